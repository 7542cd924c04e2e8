"""GRPO by TRL's own ``GRPOTrainer``: the cross-check of ``grpo``, and a baseline for its speed.

Composed through the public constructor. Set to compute what ``grpo`` does: full-vocabulary sampling at temperature
1, no dropout, KL without the importance-sampling correction that TRL turns on (``use_bias_correction_kl``,
arXiv:2512.02556), which changes the gradient. Those of ``grpo``'s presets that TRL computes are presets here.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

from pydantic import model_validator

from bakeoff.contracts import Algorithm, TrainContext

from .grpo import GRPO
from .trl_sampling import TRLSamplingSettings, train

LOSS_TYPES = {"tokens": "dapo", "sequences": "grpo", "length_limit": "dr_grpo"}
"""TRL's names of ``average``."""


class TRLGRPOSettings(TRLSamplingSettings):
    """Settings of ``trl-grpo``, named as ``grpo``'s. The KL is the k3 penalty in the loss."""

    scale_rewards: Literal["group", "batch", "none"] = "group"
    """The standard deviation that advantages are divided by (paper, TRL: the group's). Dr. GRPO is "none" here,
    too: TRL's loss of that name does not see to it."""
    average: Literal["tokens", "sequences", "length_limit"] = "tokens"
    """The mean of the loss, as in ``grpo``; TRL's default, too."""
    ratio_of: Literal["token", "sequence"] = "token"
    """What is clipped, as in ``grpo``; TRL's default, too."""
    clip: Literal["surrogate", "weight"] = "surrogate"
    """How it is clipped, as in ``grpo``. TRL's weight is averaged over tokens and has no lower bound; the upper one,
    here 1 + ``clip_high``, is TRL's ``epsilon_high`` itself."""

    @model_validator(mode="after")
    def _trl_has_it(self) -> TRLGRPOSettings:
        if self.clip == "weight" and (self.average != "tokens" or self.clip_low < 1):
            raise ValueError("TRL clips a weight (CISPO) from above alone, and averages over tokens: set clip_low: 1")
        return self

    @property
    def loss_type(self) -> str:
        """TRL's name of the loss."""
        return "cispo" if self.clip == "weight" else LOSS_TYPES[self.average]


class TRLGRPO(Algorithm):
    """TRL's Group Relative Policy Optimization."""

    title = "Group Relative Policy Optimization (TRL's trainer)"
    paper = "Shao et al. 2024, arXiv:2402.03300"
    Settings = TRLGRPOSettings
    settings: TRLGRPOSettings
    consumes = frozenset({"prompts", "reward"})
    trained_by = "TRL's GRPOTrainer"

    presets = MappingProxyType({name: GRPO.presets[name] for name in ("paper", "dr_grpo", "gspo", "cispo", "lite_ppo")})

    def train(self, context: TrainContext) -> None:
        """Train until the budget is spent."""
        from trl import GRPOConfig, GRPOTrainer

        settings = self.settings
        train(
            GRPOTrainer,
            GRPOConfig,
            context,
            settings,
            scale_rewards=settings.scale_rewards,
            epsilon_high=settings.clip_high + (settings.clip == "weight"),
            loss_type=settings.loss_type,
            importance_sampling_level=settings.ratio_of,
            use_bias_correction_kl=False,
        )
