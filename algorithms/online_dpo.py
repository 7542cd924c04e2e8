"""Online DPO: pairs of the policy's own samples, ranked by the reward, under DPO's loss (arXiv:2402.04792).

On the shared on-policy trainer. The paper's annotator is a language model; here it is the training reward. Of a group,
the best and the worst completion make the pair, and a group of equal rewards makes none. Nothing is clipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from bakeoff.on_policy import OnPolicyAlgorithm, OnPolicySettings, Rollout
from bakeoff.preference_losses import logistic_loss

if TYPE_CHECKING:
    from torch import Tensor


class OnlineDPOSettings(OnPolicySettings):
    """Settings of ``online-dpo``."""

    group: int = Field(default=2, ge=2)
    """Completions a prompt, of which the best and the worst are the pair (paper: 2)."""
    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull to the reference, as in DPO (paper: 0.1)."""

    @model_validator(mode="after")
    def _minibatches_have_groups(self) -> OnlineDPOSettings:
        if self.minibatches > self.prompts_per_rollout:
            raise ValueError("a pair needs its whole group: minibatches must not exceed prompts_per_rollout")
        return self

    @model_validator(mode="after")
    def _nothing_is_clipped(self) -> OnlineDPOSettings:
        for name in ("clip_low", "clip_high"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect: online DPO's loss is of pairs and clips no ratio")
        return self


class OnlineDPO(OnPolicyAlgorithm):
    """DPO's sigmoid loss on the best and the worst of each group."""

    title = "Online Direct Preference Optimization"
    paper = "Guo et al. 2024, arXiv:2402.04792"
    Settings = OnlineDPOSettings
    settings: OnlineDPOSettings
    loss_over_groups = True

    def advantages(self, rollout: Rollout) -> Tensor:
        """+1 on the tokens of a group's best completion, -1 on those of its worst, else 0; (B, C)."""
        import torch

        grouped = rollout.rewards.view(-1, self.settings.group)
        sides = torch.zeros_like(grouped)
        differ = (grouped.amax(1) > grouped.amin(1)).float()[:, None]
        sides.scatter_(1, grouped.argmax(1, keepdim=True), differ)
        sides.scatter_(1, grouped.argmin(1, keepdim=True), -differ)
        return sides.view(-1)[:, None] * rollout.mask

    def policy_loss(self, batch: Rollout, logps: Tensor) -> Tensor:
        """-log sigma of the margin of each pair; the mean over the prompts of the step."""
        assert batch.advantages is not None and batch.reference_logps is not None
        # Each side's log-ratio with its sign: the sum over a group is chosen less rejected.
        signed = (batch.advantages * (logps - batch.reference_logps) * batch.mask).sum(1)
        margins = self.settings.beta * signed.view(-1, self.settings.group).sum(1)
        is_pair = (batch.advantages != 0).any(1).view(-1, self.settings.group).any(1)
        # mean() divides by the step's sequences, of which a prompt has `group`.
        return batch.mean(self.settings.group * logistic_loss(margins) * is_pair)
