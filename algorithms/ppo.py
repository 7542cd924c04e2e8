"""PPO for language models: clipped surrogate, GAE with a learned value, KL in the reward (arXiv:1707.06347).

On the shared on-policy trainer, over one base: the policy's adapter, the value's adapter with an fp32 head, and the
reference, which is the base with adapters off or the frozen warm start. Where there is a reward model, the value starts
as its copy. Details that change results, and where implementations differ: the score is paid at the last token;
log-probabilities of the rollout are recomputed by the training path; advantages are whitened over the rollout; the KL
penalty is k1, per token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from bakeoff import objectives
from bakeoff.on_policy import OnPolicyAlgorithm, OnPolicySettings, Rollout

if TYPE_CHECKING:
    from torch import Tensor


class PPOSettings(OnPolicySettings):
    """Settings of ``ppo``."""

    prompts_per_rollout: int = Field(default=64, ge=1)
    """Distinct prompts sampled before each round of updates. This project's choice, for small machines; InstructGPT has
    512 (arXiv:2203.02155)."""
    group: int = Field(default=1, ge=1)
    """Completions a prompt; PPO needs no group, and TRL's had none."""
    epochs: int = Field(default=4, ge=1)
    """Passes over a rollout (Ziegler et al. 2019 and TRL: 4; InstructGPT: 1, which is steadier on small rollouts)."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount; 1 in RLHF, since completions are short (TRL's PPO: 1)."""
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    """1 trusts returns, 0 the value function (arXiv:1506.02438; TRL's PPO: 0.95)."""
    value_learning_rate: float | None = Field(default=None, gt=0)
    """Peak for the value's adapter and head; three times the policy's unless given, which is this project's choice."""
    value: Literal["adapter", "head"] = "adapter"
    """The value function: an adapter and a head of its own, or a head on the policy's hidden states, which costs no
    pass of its own and sends the policy no gradient. The first is this project's choice: InstructGPT's value is a
    model of its own, too (arXiv:2203.02155)."""
    value_warmup: int = Field(default=0, ge=0)
    """Rollouts at the start whose updates move the value alone (VC-PPO, arXiv:2503.01491, pretrains it too).
    0 is off."""
    value_clip: float = Field(default=0.2, gt=0)
    """How far a value may move in one rollout's updates (TRL's PPO: 0.2)."""
    no_eos_penalty: float = Field(default=0.0, ge=0)
    """Subtracted from the score of a completion that did not end within the length limit. 0 is off, as TRL's
    ``missing_eos_penalty`` was unless given."""
    kl_target: float | None = Field(default=None, gt=0)
    """With a target (nats a sequence), beta adapts to it (arXiv:1909.08593, §2.2); else it is fixed."""
    kl_horizon: int = Field(default=10_000, ge=1)
    """Sequences over which an adaptive beta may change by a fifth (10000 in the code of arXiv:1909.08593 and in
    TRL's first PPO)."""
    whiten: Literal["rollout", "none"] = "rollout"
    """Scope over which advantages are whitened; the rollout in the code of arXiv:1909.08593, and in TRL's PPO."""

    @model_validator(mode="after")
    def _target_has_a_beta_to_move(self) -> PPOSettings:
        if self.kl_target is not None and self.beta == 0:
            raise ValueError("kl_target multiplies beta, which is 0: give beta a value to start from")
        return self


class PPO(OnPolicyAlgorithm):
    """GAE over shaped rewards; clipped policy and value losses."""

    title = "Proximal Policy Optimization"
    paper = "Schulman et al. 2017, arXiv:1707.06347; Ouyang et al. 2022, arXiv:2203.02155"
    Settings = PPOSettings
    settings: PPOSettings
    has_value = True
    kl_in_reward = True

    def __init__(self, settings: PPOSettings | None = None) -> None:
        super().__init__(settings)
        target = self.settings.kl_target or 1.0
        self.value_on_policy = self.settings.value == "head"
        self.controller = objectives.AdaptiveKL(self.settings.beta, target, self.settings.kl_horizon)

    def advantages(self, rollout: Rollout) -> Tensor:
        """Whitened GAE advantages (B, C); sets ``rollout.returns``."""
        assert rollout.values is not None and rollout.old_logps is not None
        scores = rollout.rewards - self.settings.no_eos_penalty * (~rollout.ended_eos).float()
        if rollout.reference_logps is None:
            kl = rollout.mask * 0
        else:
            kl = objectives.kl_k1(rollout.old_logps, rollout.reference_logps) * rollout.mask
        rewards = objectives.shape_rewards(scores, kl, rollout.mask, beta=self.controller.beta)
        if self.settings.kl_target is not None:
            self.controller.update(kl.sum(1).mean().item(), len(rollout))
        advantages = objectives.gae(
            rewards, rollout.values, rollout.mask, gamma=self.settings.gamma, gae_lambda=self.settings.gae_lambda
        )
        rollout.returns = advantages + rollout.values
        if self.settings.whiten == "rollout":
            advantages = objectives.masked_whiten(advantages, rollout.mask)
        return advantages

    def value_loss(self, batch: Rollout, values: Tensor) -> Tensor:
        """Clipped squared error, the mean over tokens."""
        assert batch.values is not None and batch.returns is not None
        clip = self.settings.value_clip
        return batch.mean(objectives.clipped_value_loss(values, batch.values, batch.returns, clip=clip))

    def updates_policy(self, rollout: int) -> bool:
        """Not while the value warms up."""
        return rollout >= self.settings.value_warmup

    def value_learning_rate(self) -> float:
        """As set, else three times the policy's."""
        return self.settings.value_learning_rate or super().value_learning_rate()

    def state(self) -> dict[str, Any]:
        """The KL controller's beta."""
        return {"beta": self.controller.beta}

    def restore(self, state: dict[str, Any]) -> None:
        """The KL controller's beta."""
        self.controller.beta = state["beta"]
