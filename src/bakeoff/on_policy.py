"""What an on-policy algorithm defines: settings, advantages and a loss. Under it is ``on_policy_trainer``.

A rollout of B = prompts x group completions is sampled, scored and given advantages; then ``epochs`` passes over it,
each of ``minibatches`` optimizer steps. An algorithm overrides ``advantages()`` and ``policy_loss()``, and little else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from bakeoff import objectives
from bakeoff.contracts import Algorithm, PluginSettings
from bakeoff.errors import PluginError

if TYPE_CHECKING:
    from torch import Tensor

    from bakeoff.contracts import TrainContext
    from bakeoff.rollout import Sequences


class OnPolicySettings(PluginSettings):
    """What every on-policy algorithm can set."""

    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate of the policy; it follows the matrix's schedule. LoRA: 1e-5 to 1e-3. The default is
    this project's choice, ten times TRL's 1e-6 for full fine-tuning."""
    prompts_per_rollout: int = Field(default=8, ge=1)
    """Distinct prompts sampled before each round of updates. This project's choice, small for small machines."""
    group: int = Field(default=8, ge=1)
    """Completions a prompt (TRL's GRPO: 8)."""
    epochs: int = Field(default=1, ge=1)
    """Passes over a rollout (TRL's GRPO: 1)."""
    minibatches: int = Field(default=1, ge=1)
    """Optimizer steps a pass; the rollout's sequences are divided among them. One is this project's choice: with
    one pass, too, every update is on-policy."""
    micro_batch: int = Field(default=32, ge=1)
    """Sequences a forward pass: memory only, the gradient is the same. This project's choice."""
    beta: float = Field(default=0.05, ge=0)
    """Weight of the KL to the reference, in reward units a nat. 0 drops the reference pass. 0.05 is TRL's, of its
    RLOO and of the PPO that it had."""
    clip_low: float = Field(default=0.2, gt=0)
    """The ratio pi/pi_old loses its gradient below 1 - clip_low (PPO: 0.2)."""
    clip_high: float = Field(default=0.2, gt=0)
    """... and above 1 + clip_high (PPO: 0.2)."""
    stop_kl: float | None = Field(default=None, gt=0)
    """Drop what is left of a rollout's updates after one that began with KL(pi_old || pi) above this, in nats a token
    (k3). 0.01 to 0.1. Off unless given."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient-norm clip, for policy and value apart (HF's Trainer: 1)."""

    @model_validator(mode="after")
    def _minibatches_have_rows(self) -> OnPolicySettings:
        if self.minibatches > self.prompts_per_rollout * self.group:
            raise ValueError("minibatches must not exceed prompts_per_rollout x group, the sequences of a rollout")
        return self

    @property
    def clips(self) -> dict[str, float]:
        """The clip range, as ``objectives`` takes it."""
        return {"clip_low": self.clip_low, "clip_high": self.clip_high}


@dataclass
class Rollout:
    """Prompts, completions and everything computed from them before the update; or a part of it, a batch.

    B = prompts x group, rows of one prompt one after another. A batch knows how many tokens and sequences its whole
    optimizer step has, so that ``mean`` over micro-batches adds up to the mean over the step.
    """

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
    companions: Rollout | None = None
    """Sequences that are trained on beside these but were not sampled now; see ``OnPolicyAlgorithm.companions``."""
    max_tokens: int = 0
    """The length limit of a completion."""
    number: int = 0
    """Which rollout of the cell this is, counted from 0."""
    fraction: float = 0.0
    """The share of the budget that was spent when this was sampled."""
    step_tokens: int = 0
    """Completion tokens of the whole optimizer step; unless given, those here."""
    step_sequences: int = 0
    """Sequences of the whole optimizer step; unless given, those here."""

    def __post_init__(self) -> None:
        self.step_tokens = self.step_tokens or max(1, int(self.sequences.completion_mask.sum()))
        self.step_sequences = self.step_sequences or len(self)

    @property
    def mask(self) -> Tensor:
        """(B, C), fp32: 1 on completion tokens."""
        return self.sequences.completion_mask.float()

    def __len__(self) -> int:
        return len(self.sequences)

    def mean(self, values: Tensor) -> Tensor:
        """This batch's share of a mean over the optimizer step: (B, C) over its tokens, (B,) over its sequences."""
        if values.dim() == 1:
            return values.sum() / self.step_sequences
        return (values * self.mask).sum() / self.step_tokens

    def __getitem__(self, rows: Tensor) -> Rollout:
        """The given rows as a step of their own, without companions; the width shrinks to what they need."""
        sequences = self.sequences[rows]
        width = sequences.completion_ids.shape[1]
        cut: dict[str, Any] = {"sequences": sequences, "companions": None, "step_tokens": 0, "step_sequences": 0}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name not in cut and hasattr(value, "dim"):
                cut[each.name] = value[rows] if value.dim() == 1 else value[rows][:, :width]
        return replace(self, **cut)

    def micro_batches(self, size: int, *, unit: int = 1) -> Iterator[Rollout]:
        """At most ``size`` rows at a time, in whole units of ``unit`` rows, as parts of this step."""
        import torch

        for rows in torch.arange(len(self)).split(max(unit, size // unit * unit)):
            yield replace(self[rows], step_tokens=self.step_tokens, step_sequences=self.step_sequences)


class OnPolicyAlgorithm(Algorithm):
    """An algorithm that learns from its own samples: override ``advantages`` and ``policy_loss``.

    What is here is a clipped policy gradient with the batch's mean reward as baseline; its gradient at the first
    update of a rollout is that of REINFORCE (Williams 1992).
    """

    Settings = OnPolicySettings
    consumes = frozenset({"prompts", "reward"})
    trained_by = "bakeoff's on-policy trainer"
    has_value: ClassVar[bool] = False
    """Whether a value role is trained beside the policy; ``value_on_policy`` says where it stands."""
    value_on_policy: bool = False
    """Whether the value is a head on the policy's hidden states, without an adapter of its own."""
    kl_in_reward: ClassVar[bool] = False
    """Whether the KL is paid in the reward: policy log-probabilities are then needed before the update."""
    loss_over_groups: bool = False
    """Whether the loss couples the completions of a prompt: batches then hold whole groups."""

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.needs_reference: bool = self.settings.beta > 0
        """Whether a rollout has the reference's log-probabilities."""

    def advantages(self, rollout: Rollout) -> Tensor:
        """Advantage of each token, (B, C). With a value role, sets ``rollout.returns`` too."""
        return (rollout.rewards - rollout.rewards.mean())[:, None] * rollout.mask

    def ratio(self, batch: Rollout, logps: Tensor) -> Tensor:
        """pi / pi_old, per token (B, C) or per sequence (B, 1); what the clip applies to."""
        assert batch.old_logps is not None
        return objectives.ratio(logps, batch.old_logps)

    def updates_policy(self, rollout: int) -> bool:
        """Whether the policy moves in the updates of this rollout, counted from 0."""
        return True

    def policy_loss(self, batch: Rollout, logps: Tensor) -> Tensor:
        """The batch's share of the step's loss, a scalar; ``logps`` (B, C) carry the gradient.

        PPO's clipped surrogate, and ``beta`` times the k3 penalty unless the KL is paid in the reward.
        """
        assert batch.advantages is not None
        loss = objectives.clipped_policy_loss(self.ratio(batch, logps), batch.advantages, **self.settings.clips)
        if batch.reference_logps is not None and not self.kl_in_reward:
            loss = loss + self.settings.beta * objectives.kl_k3(logps, batch.reference_logps)
        return batch.mean(loss)

    def value_loss(self, batch: Rollout, values: Tensor) -> Tensor:
        """The same for ``values`` (B, C); only with ``has_value``. Half the squared error."""
        assert batch.returns is not None
        return batch.mean(0.5 * (values - batch.returns) ** 2)

    def companions(self, context: TrainContext, rollout: Rollout) -> Rollout | None:
        """Pairs of rows to train on beside ``rollout``, such as offline preferences.

        The trainer fills in their log-probabilities and divides them among the optimizer steps as it does the rollout;
        their loss is ``companion_loss``.
        """
        return None

    def companion_loss(self, batch: Rollout, logps: Tensor) -> Tensor:
        """The loss of companions, as ``policy_loss``."""
        raise LookupError(f"{type(self).__name__} has companions and no companion_loss()")

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


def checked(algorithm: OnPolicyAlgorithm, method: str, given: Any, shape: tuple[int, ...]) -> Tensor:
    """What this method of an algorithm gave. Raises ``PluginError`` unless it is a tensor of this shape."""
    if getattr(given, "shape", None) == shape:
        return given  # type: ignore[no-any-return]
    found = f"a tensor of shape {tuple(given.shape)}" if hasattr(given, "shape") else type(given).__name__
    wanted = f"{shape}, a number for each completion and token, as `rollout.mask`" if shape else "a scalar"
    raise PluginError(
        f"{type(algorithm).__name__}.{method}() gave {found} and not {wanted}.",
        fix="Spread one number a completion over its tokens: `numbers[:, None] * rollout.mask`."
        if shape
        else "Return `batch.mean(losses)`, this batch's share of the step's mean.",
    )
