"""GRPO: rewards of a group of completions, relative to the group, instead of a value function (arXiv:2402.03300).

On the shared on-policy trainer. As TRL's default and unlike the paper, the loss is the mean over all tokens of the
step (DAPO, arXiv:2503.14476, Eq. 8) and not over each completion first, which would favour long wrong answers. Its
published relatives differ in a setting or two each: they are presets.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bakeoff import objectives
from bakeoff.contracts import Preset
from bakeoff.on_policy import OnPolicyAlgorithm, OnPolicySettings, Rollout

if TYPE_CHECKING:
    from torch import Tensor


class GRPOSettings(OnPolicySettings):
    """Settings of ``grpo``."""

    group: int = Field(default=8, ge=2)
    """Completions a prompt, the group that advantages are relative to. 4 to 64 (paper: 64; TRL: 8)."""
    beta: float = Field(default=0.04, ge=0)
    """Weight of the k3 penalty in the loss (paper: 0.04)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """The standard deviation that advantages are divided by; "group" is the paper's, "none" Dr. GRPO's
    (arXiv:2503.20783)."""
    average: Literal["tokens", "sequences", "length_limit"] = "tokens"
    """The mean of the loss: over all tokens of the step; over each completion's first (paper); or the sum over the
    number of completions times the length limit, which no length changes (Dr. GRPO). "tokens" is
    DAPO's (arXiv:2503.14476) and TRL's default."""
    ratio_of: Literal["token", "sequence"] = "token"
    """What is clipped: each token's ratio (paper), or the geometric mean of a completion's (GSPO, arXiv:2507.18071)."""
    clip: Literal["surrogate", "weight"] = "surrogate"
    """PPO's pessimistic surrogate (paper), or the clipped ratio as a weight without gradient (CISPO,
    arXiv:2506.13585)."""
    train_truncated: bool = True
    """Whether completions that were cut off at the length limit count in the loss (TRL: yes; DAPO: no)."""
    overlong: float = Field(default=0.0, ge=0, le=1)
    """Last share of the length limit, over which a penalty rises from 0 to 1 (DAPO, arXiv:2503.14476,
    Eq. 13: a fifth). 0 is off."""


class GRPO(OnPolicyAlgorithm):
    """Group-relative advantages; clipped ratio; KL in the loss."""

    title = "Group Relative Policy Optimization"
    paper = "Shao et al. 2024, arXiv:2402.03300"
    Settings = GRPOSettings
    settings: GRPOSettings

    presets = MappingProxyType(
        {
            "paper": Preset(
                "Group Relative Policy Optimization as published",
                "Shao et al. 2024, arXiv:2402.03300",
                {"average": "sequences", "beta": 0.04, "group": 64, "prompts_per_rollout": 16},
                "LoRA's learning rate; 16 prompts of 64 completions a rollout stand for the paper's batch of 1024. The "
                "paper does not print its clip, which is 0.2 here.",
            ),
            "dr_grpo": Preset(
                "GRPO Done Right",
                "Liu et al. 2025, arXiv:2503.20783",
                {"average": "length_limit", "scale_rewards": "none", "beta": 0.0},
            ),
            "dapo": Preset(
                "Decoupled Clip and Dynamic Sampling Policy Optimization",
                "Yu et al. 2025, arXiv:2503.14476",
                {"clip_high": 0.28, "beta": 0.0, "train_truncated": False, "overlong": 0.2},
                "No dynamic sampling: groups of equal rewards are not drawn again, they have no gradient. Tokens of "
                "completions that were cut off count in the mean, with a loss of 0. The paper has groups of 16, and 16 "
                "updates a rollout.",
            ),
            "gspo": Preset(
                "Group Sequence Policy Optimization",
                "Zheng et al. 2025, arXiv:2507.18071",
                {"ratio_of": "sequence", "average": "sequences", "clip_low": 3e-4, "clip_high": 4e-4, "beta": 0.0},
                "The paper divides a rollout among four minibatches; with one, as here unless set, nothing is clipped.",
            ),
            "cispo": Preset(
                "Clipped Importance Sampling Policy Optimization",
                "MiniMax 2025, arXiv:2506.13585",
                {"clip": "weight", "clip_low": 1.0, "clip_high": 4.0, "beta": 0.0},
                "The paper tunes the upper bound and does not print it; 1 + 4 is ScaleRL's (arXiv:2510.13786), as "
                "TRL's documentation has it. Without dynamic sampling and length penalty, which it takes from DAPO.",
            ),
            "lite_ppo": Preset(
                "Lite PPO: group mean, batch standard deviation",
                "Liu et al. 2025, arXiv:2508.08221",
                {"scale_rewards": "batch", "beta": 0.0},
                "Sampled from the whole vocabulary, where the paper has the 100 likeliest tokens and top-p 0.99.",
            ),
        }
    )

    def advantages(self, rollout: Rollout) -> Tensor:
        """One advantage a completion, the same for each of its tokens; (B, C)."""
        rewards = rollout.rewards
        if self.settings.overlong:
            buffer = self.settings.overlong * rollout.max_tokens
            late = rollout.mask.sum(1) - (rollout.max_tokens - buffer)
            rewards = rewards - (late / buffer).clamp(0, 1)
        relative = objectives.group_advantages(rewards, self.settings.group, scale=self.settings.scale_rewards)
        return relative[:, None] * rollout.mask

    def ratio(self, batch: Rollout, logps: Tensor) -> Tensor:
        """Of tokens (B, C), or of sequences (B, 1)."""
        assert batch.old_logps is not None
        if self.settings.ratio_of == "token":
            return objectives.ratio(logps, batch.old_logps)
        return objectives.sequence_ratio(logps, batch.old_logps, batch.mask, per_token=True)[:, None]

    def policy_loss(self, batch: Rollout, logps: Tensor) -> Tensor:
        """The clipped objective and ``beta`` times the k3 penalty, averaged as set."""
        assert batch.advantages is not None
        settings, ratio = self.settings, self.ratio(batch, logps)
        if settings.clip == "surrogate":
            loss = objectives.clipped_policy_loss(ratio, batch.advantages, **settings.clips)
        else:
            loss = objectives.weighted_likelihood_loss(logps, ratio, batch.advantages, **settings.clips)
        if batch.reference_logps is not None:
            loss = loss + settings.beta * objectives.kl_k3(logps, batch.reference_logps)
        if not settings.train_truncated:
            loss = loss * batch.ended_eos[:, None]
        if settings.average == "tokens":
            return batch.mean(loss)
        if settings.average == "sequences":
            return batch.mean(objectives.sequence_mean(loss, batch.mask))
        return batch.mean((loss * batch.mask).sum(1) / batch.max_tokens)
