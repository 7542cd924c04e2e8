"""REINFORCE++: PPO without its value function; advantages are normalised over the whole rollout (arXiv:2501.03262).

On the shared on-policy trainer. The advantage of a token is what its completion still earns from there on, the KL
(k1) of each token included (Eq. 4), whitened over all tokens of the rollout (Eq. 5); the ratio is clipped as in PPO.
Differs from the paper: the loss is the mean over all tokens of a step, not over each completion first (Eq. 1).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import Field

from bakeoff import objectives
from bakeoff.contracts import Preset
from bakeoff.on_policy import OnPolicyAlgorithm, OnPolicySettings, Rollout

if TYPE_CHECKING:
    from torch import Tensor


class ReinforcePPSettings(OnPolicySettings):
    """Settings of ``reinforce++``."""

    prompts_per_rollout: int = Field(default=32, ge=1)
    """Distinct prompts sampled before each round of updates. This project's choice, small for small machines."""
    group: int = Field(default=1, ge=1)
    """Completions a prompt; needed only by ``group_baseline`` (paper: 1 without it)."""
    beta: float = Field(default=0.01, ge=0)
    """Weight of the KL in the reward of each token, in reward units a nat. 0.01, or 0.001 for mathematics (first
    version of the paper; later ones print none)."""
    group_baseline: bool = False
    """Subtract the mean reward of the prompt's completions first (REINFORCE++-baseline, of the same paper)."""


class ReinforcePP(OnPolicyAlgorithm):
    """Rewards to go, whitened over the rollout; clipped ratio; KL in the reward."""

    title = "REINFORCE++"
    paper = "Hu et al. 2025, arXiv:2501.03262"
    Settings = ReinforcePPSettings
    settings: ReinforcePPSettings
    kl_in_reward = True

    presets = MappingProxyType(
        {
            "baseline": Preset(
                "REINFORCE++ with the group's mean as baseline",
                "Hu et al. 2025, arXiv:2501.03262",
                {"group": 8, "prompts_per_rollout": 4, "group_baseline": True},
                "The KL is paid in the reward (k1) and whitened with it; the paper's baseline variant has k2 in the "
                "loss (Eq. 8), with a weight that it does not print.",
            ),
        }
    )

    def advantages(self, rollout: Rollout) -> Tensor:
        """Whitened rewards to go, (B, C)."""
        assert rollout.old_logps is not None
        scores, kl = rollout.rewards, rollout.mask * 0
        if self.settings.group_baseline:
            scores = objectives.group_advantages(scores, self.settings.group, scale="none")
        if rollout.reference_logps is not None:
            kl = objectives.kl_k1(rollout.old_logps, rollout.reference_logps) * rollout.mask
        rewards = objectives.shape_rewards(scores, kl, rollout.mask, beta=self.settings.beta)
        return objectives.masked_whiten(objectives.rewards_to_go(rewards, rollout.mask), rollout.mask)
