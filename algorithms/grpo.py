"""GRPO: rewards of a group of completions, relative to the group, instead of a value function (arXiv:2402.03300).

On the shared on-policy trainer. As TRL's default and unlike the paper, the loss is the mean over all tokens of the
step (DAPO, arXiv:2503.14476, Eq. 8) and not over each completion first, which would favour long wrong answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from bakeoff import objectives
from bakeoff.on_policy import OnPolicyAlgorithm, OnPolicySettings, Rollout

if TYPE_CHECKING:
    from torch import Tensor


class GRPOSettings(OnPolicySettings):
    """Settings of ``grpo``."""

    group: int = Field(default=8, ge=2)
    """Completions a prompt, the group that advantages are relative to. 4 to 64 (paper: 64)."""
    beta: float = Field(default=0.04, ge=0)
    """Weight of the k3 penalty in the loss (paper: 0.04)."""
    scale_rewards: bool = True
    """Divide by the group's standard deviation; False is Dr. GRPO (arXiv:2503.20783)."""


class GRPO(OnPolicyAlgorithm):
    """Group-relative advantages; clipped ratio; KL in the loss."""

    title = "Group Relative Policy Optimization"
    paper = "Shao et al. 2024, arXiv:2402.03300"
    Settings = GRPOSettings
    settings: GRPOSettings

    def advantages(self, rollout: Rollout) -> Tensor:
        """One advantage a completion, the same for each of its tokens; (B, C)."""
        relative = objectives.group_advantages(rollout.rewards, self.settings.group, scale=self.settings.scale_rewards)
        return relative[:, None] * rollout.mask
