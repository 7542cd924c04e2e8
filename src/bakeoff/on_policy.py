"""What an on-policy algorithm defines: settings, advantages and a loss. Under it is ``on_policy_trainer``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from bakeoff import objectives
from bakeoff.contracts import Algorithm, PluginSettings

if TYPE_CHECKING:
    from torch import Tensor

    from bakeoff.contracts import TrainContext
    from bakeoff.rollout import Sequences


class OnPolicySettings(PluginSettings):
    """What every on-policy algorithm can set."""

    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate of the policy; it decays linearly over the budget. LoRA: 1e-5 to 1e-3."""
    prompts_per_rollout: int = Field(default=8, ge=1)
    """Distinct prompts sampled before each round of updates."""
    group: int = Field(default=8, ge=1)
    """Completions a prompt."""
    epochs: int = Field(default=1, ge=1)
    """Passes over a rollout."""
    minibatches: int = Field(default=1, ge=1)
    """Optimizer steps a pass; the rollout's sequences are divided among them."""
    micro_batch: int = Field(default=32, ge=1)
    """Sequences a forward pass: memory only, the gradient is the same."""
    beta: float = Field(default=0.05, ge=0)
    """Weight of the KL to the reference, in reward units a nat. 0 drops the reference pass."""
    clip_low: float = Field(default=0.2, gt=0)
    """The ratio pi/pi_old loses its gradient below 1 - clip_low (PPO: 0.2)."""
    clip_high: float = Field(default=0.2, gt=0)
    """... and above 1 + clip_high."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient-norm clip, for policy and value apart."""

    @model_validator(mode="after")
    def _minibatches_have_rows(self) -> OnPolicySettings:
        if self.minibatches > self.prompts_per_rollout * self.group:
            raise ValueError("minibatches must not exceed prompts_per_rollout x group, the sequences of a rollout")
        return self


@dataclass
class Rollout:
    """Prompts, completions and everything computed from them before the update. B = prompts x group."""

    sequences: Sequences
    rewards: Tensor
    """(B,), the score of each completion, raw."""
    ended_eos: Tensor
    """(B,) bool."""
    old_logps: Tensor | None = None
    """(B, C); None when one update follows, whose own log-probabilities are the old ones."""
    reference_logps: Tensor | None = None
    """(B, C); None when beta is 0."""
    values: Tensor | None = None
    """(B, C), of the state before each token, at sampling time; None without a value role."""
    advantages: Tensor | None = None
    """(B, C)."""
    returns: Tensor | None = None
    """(B, C), what the value role is fitted to."""

    @property
    def mask(self) -> Tensor:
        """(B, C), fp32: 1 on completion tokens."""
        return self.sequences.completion_mask.float()

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, rows: Tensor) -> Rollout:
        """The given rows; the completion width shrinks to what they need."""
        sequences = self.sequences[rows]
        width = sequences.completion_ids.shape[1]

        def of(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[rows][:, :width]

        return Rollout(
            sequences,
            self.rewards[rows],
            self.ended_eos[rows],
            of(self.old_logps),
            of(self.reference_logps),
            of(self.values),
            of(self.advantages),
            of(self.returns),
        )


class OnPolicyAlgorithm(Algorithm):
    """An algorithm that learns from its own samples: override ``advantages`` and ``policy_loss``.

    What is here is a clipped policy gradient with the batch's mean reward as baseline; its gradient at the first
    update of a rollout is that of REINFORCE (Williams 1992).
    """

    Settings = OnPolicySettings
    consumes = frozenset({"prompts", "reward"})
    has_value: ClassVar[bool] = False
    """Whether a value role (adapter and fp32 head) is trained beside the policy."""
    kl_in_reward: ClassVar[bool] = False
    """Whether the KL is paid in the per-token reward: policy log-probabilities are then needed before the update."""

    def advantages(self, rollout: Rollout) -> Tensor:
        """Advantage of each token, (B, C). With a value role, sets ``rollout.returns`` too."""
        return (rollout.rewards - rollout.rewards.mean())[:, None] * rollout.mask

    def policy_loss(self, batch: Rollout, logps: Tensor) -> Tensor:
        """Loss of each token, (B, C); the trainer averages it over the tokens of the optimizer step.

        PPO's clipped surrogate, and ``beta`` times the k3 penalty unless the KL is paid in the reward.
        """
        assert batch.old_logps is not None and batch.advantages is not None
        clips = {"clip_low": self.settings.clip_low, "clip_high": self.settings.clip_high}
        loss = objectives.clipped_policy_loss(logps, batch.old_logps, batch.advantages, **clips)
        if batch.reference_logps is not None and not self.kl_in_reward:
            loss = loss + self.settings.beta * objectives.kl_k3(logps, batch.reference_logps)
        return loss

    def value_loss(self, batch: Rollout, values: Tensor) -> Tensor:
        """Loss of each value, (B, C); only with ``has_value``. Half the squared error."""
        assert batch.returns is not None
        return 0.5 * (values - batch.returns) ** 2

    def value_learning_rate(self) -> float:
        """Peak learning rate of the value role."""
        return 3 * self.settings.learning_rate

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of the algorithm itself, as JSON."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""

    def train(self, context: TrainContext) -> None:
        """Train until the budget is spent."""
        from bakeoff.on_policy_trainer import OnPolicyTrainer

        OnPolicyTrainer(self, context).train()
