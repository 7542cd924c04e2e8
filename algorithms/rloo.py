"""RLOO: REINFORCE whose baseline is the mean reward of the prompt's other completions (arXiv:2402.14740).

On the shared on-policy trainer. A completion is one action: the KL is paid in its reward. Differs from the paper: where
a rollout is used more than once, the ratio of whole completions is clipped, as in TRL's RLOOTrainer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from bakeoff import objectives
from bakeoff.on_policy import OnPolicyAlgorithm, OnPolicySettings, Rollout

if TYPE_CHECKING:
    from torch import Tensor


class RLOOSettings(OnPolicySettings):
    """Settings of ``rloo``."""

    group: int = Field(default=4, ge=2)
    """Completions a prompt (paper: 2 and 4)."""
    beta: float = Field(default=0.05, ge=0)
    """Weight of the KL in the reward, in reward units a nat. 0.05 (TRL's default), or the paper's 0.03 (App. C, as
    TRL's paper index has it)."""
    whiten: bool = False
    """Whether advantages are brought to mean 0 and variance 1 over the rollout (TRL: not)."""


class RLOO(OnPolicyAlgorithm):
    """Leave-one-out advantages of whole completions; KL in the reward."""

    title = "REINFORCE Leave-One-Out"
    paper = "Ahmadian et al. 2024, arXiv:2402.14740"
    Settings = RLOOSettings
    settings: RLOOSettings
    kl_in_reward = True

    def advantages(self, rollout: Rollout) -> Tensor:
        """One advantage a completion, the same for each of its tokens; (B, C)."""
        rewards = rollout.rewards
        if rollout.reference_logps is not None:
            assert rollout.old_logps is not None
            kl = objectives.kl_k1(rollout.old_logps, rollout.reference_logps) * rollout.mask
            rewards = rewards - self.settings.beta * kl.sum(1)
        relative = objectives.leave_one_out_advantages(rewards, self.settings.group)
        if self.settings.whiten:
            relative = objectives.masked_whiten(relative, relative.new_ones(len(relative)))
        return relative[:, None] * rollout.mask

    def ratio(self, batch: Rollout, logps: Tensor) -> Tensor:
        """Of whole completions, (B, 1)."""
        assert batch.old_logps is not None
        return objectives.sequence_ratio(logps, batch.old_logps, batch.mask, per_token=False)[:, None]

    def policy_loss(self, batch: Rollout, logps: Tensor) -> Tensor:
        """PPO's clipped surrogate of completions; the mean over them."""
        assert batch.advantages is not None
        loss = objectives.clipped_policy_loss(self.ratio(batch, logps), batch.advantages, **self.settings.clips)
        return batch.mean(objectives.sequence_mean(loss, batch.mask))
