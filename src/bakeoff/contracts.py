"""What a plugin sees: Algorithm, Task, Evaluator, Judge, Report, and what each is handed.

This file imports no torch: a plugin list, a plan and a report need none. Shapes are written
(B, C) for B sequences of C completion tokens; log-probabilities and KL are in nats.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from bakeoff.spec import ScheduleSpec

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    import torch
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from bakeoff.budget import Meter
    from bakeoff.checkpoint import LoopCheckpoints, Stateful
    from bakeoff.modelview import ModelView
    from bakeoff.reward_model import RewardModel
    from bakeoff.roles import RoleModel

Row = Mapping[str, Any]
"""One example. ``id`` (unique str) and ``prompt`` (str, or a list of role/content messages), and
any of ``completion``, ``chosen`` + ``rejected``, ``text``; other columns reach reward functions."""

RewardFunction = Callable[..., list[float]]
"""TRL's reward-function signature: ``f(prompts=..., completions=..., **columns) -> list[float]``."""

Source = Literal["text", "demonstrations", "preferences", "rankings", "prompts", "reward"]


class PluginSettings(BaseModel):
    """Base of every plugin's settings: immutable, and an unknown name is an error.

    ``transport`` names the settings that change how fast a result comes or what it costs, and not the result:
    they are in no id, so that raising a timeout trains nothing again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    transport: ClassVar[frozenset[str]] = frozenset()


@dataclass(frozen=True)
class Metric:
    """A number that an evaluator or a reward declares, so that no reader has to guess.

    ``direction`` is "higher", "lower" or "none" (neither is better); ``low`` and ``high`` bound the
    value of one sample, ``None`` where it is unbounded.
    """

    name: str
    unit: str
    direction: Literal["higher", "lower", "none"]
    description: str
    low: float | None = None
    high: float | None = None


# ---------------------------------------------------------------------------------- algorithms


@dataclass(frozen=True)
class Preset:
    """A published variant of an algorithm as data. A matrix writes it ``dpo:ipo``; its own settings win."""

    title: str
    paper: str
    settings: Mapping[str, Any]
    differs_from_paper: str = ""
    """What a reader of the paper would not expect; empty when nothing is known to differ."""


class Algorithm(ABC):
    """A post-training algorithm: one class, one file, one paper.

    ``title`` is the full name ("Group Relative Policy Optimization"): listings print it beside the
    entry point's name. ``consumes`` says what of a task it trains on; what the task lacks is
    derived by a stage or, where that is impossible, the cell is "incompatible" with the reason.
    ``is_control`` is True for what others are held against and nobody would use: reports mark it, and it wins nothing.
    ``trained_by`` says whose loop it is ("TRL's DPOTrainer"). ``trains`` is False only for controls that leave the
    policy as it is. ``role`` is what it trains, and whose tokens a budget counts: the policy, or
    ``context.reward_model``. ``bidirectional`` is True where the trained policy attends to both sides, as an encoder
    does. Neither that nor a reward model is ever sampled, so evaluators that need samples leave it out and reports do
    not rank it by their metrics.
    """

    title: ClassVar[str]
    paper: ClassVar[str] = ""
    Settings: ClassVar[type[PluginSettings]] = PluginSettings
    presets: ClassVar[Mapping[str, Preset]] = MappingProxyType({})
    consumes: ClassVar[frozenset[Source]] = frozenset()
    is_control: ClassVar[bool] = False
    trained_by: ClassVar[str] = ""
    trains: ClassVar[bool] = True
    role: ClassVar[Literal["policy", "reward"]] = "policy"
    bidirectional: ClassVar[bool] = False

    @classmethod
    def measured_by(cls) -> frozenset[Need]:
        """What there is of it to measure, besides pairs: it has no log-probabilities where it completes by itself."""
        if cls.role == "reward":
            return frozenset()
        if cls.bidirectional:
            return frozenset({"model"})
        samples: frozenset[Need] = frozenset({"samples", "reference_samples"})
        return samples if cls.complete is not Algorithm.complete else samples | {"logprobs", "model"}

    @classmethod
    def is_sampled(cls) -> bool:
        """Whether it writes text, measured by samples."""
        return "samples" in cls.measured_by()

    @classmethod
    def unavailable(cls) -> str:
        """Why it cannot run in this environment and what to do, in a line; empty where it can.

        Asked when a run is planned: its cells are then "incompatible". Imports nothing large.
        """
        return ""

    def __init__(self, settings: Any = None) -> None:
        self.settings: Any = settings if settings is not None else self.Settings()

    @abstractmethod
    def train(self, context: TrainContext) -> None:
        """Train ``context.policy`` in place until ``context.meter`` says that the budget is spent.

        An exception fails the cell and no other; NaN in the loss should raise ``FloatingPointError``.
        """

    def complete(self, context: CompletionContext) -> pd.DataFrame:
        """Completions of held-out prompts, ``context.samples`` a prompt: samples of the policy.

        A control that works at inference overrides it. What it computes is on the cell's ledger, and nothing that
        describes the policy (its KL, its perplexity) is measured, since the completions are no longer the policy's.
        """
        return context.sample(context.samples)

    def kl_bound(self) -> float | None:
        """An analytic upper bound on the KL of its completions from the policy's, in nats a sequence, if one is known.

        Only for those that override ``complete``: the KL of a policy is measured.
        """
        return None


@dataclass(frozen=True)
class CompletionContext:
    """What ``Algorithm.complete`` is handed. Frames have the columns of ``EvalContext.samples``, and
    ``prompt_ids, completion_ids``."""

    rows: Sequence[Row]
    """The held-out rows to complete."""
    samples: int
    """Completions a row."""
    sample: Callable[[int], pd.DataFrame]
    """``sample(n)``: n samples a row of the policy, numbered from 0; the first of 8 are those of 4."""
    write: Callable[[Sequence[str]], pd.DataFrame]
    """One given text a row as each of its completions, ended with EOS unless the length limit cuts it."""
    reward: Score
    """The training reward, for algorithms that consume it."""


@dataclass
class TrainContext:
    """What an algorithm is handed. All of it is prepared, seeded and metered already.

    Of ``text``, ``prompts``, ``demonstrations``, ``preferences``, ``rankings`` and ``reward``, those are set that the
    algorithm consumes.
    """

    policy: PeftModel
    """The model to train: LoRA adapter "default" (fresh, or the warm start's) on the shared base."""
    roles: RoleModel
    """The same model by role: policy, reference, value, reward. See ``bakeoff.roles``."""
    tokenizer: PreTrainedTokenizerBase
    prompts: datasets.Dataset
    """Columns ``id, prompt`` (text), ``prompt_ids`` and the task's own: for rollouts."""
    demonstrations: datasets.Dataset
    """Columns ``id, input_ids, labels`` (-100 on the prompt): TRL's tokenised SFT format."""
    preferences: datasets.Dataset
    """Columns ``id, prompt_ids, chosen_ids, rejected_ids``: TRL's tokenised DPO format."""
    reward: RewardFunction
    """The reward to optimise on training rows: the task's own, or a reward model's."""
    meter: Meter
    """Counts what the model computes; ``meter.fraction`` is the share of the budget spent."""
    seed: int
    folder: Path
    """For checkpoints. Outlives a crash of the cell; deleted when the cell ends well."""
    max_new_tokens: int
    """Completion length in tokens, for rollouts in training as in evaluation."""
    rankings: datasets.Dataset = None  # type: ignore[assignment]
    """Columns ``id, prompt_ids, completion_ids, scores``: the completions of a prompt, and a number for each that is
    larger for the better. A pair has the scores 1 and 0."""
    reward_model: RewardModel = None  # type: ignore[assignment]
    """The untrained reward model of an algorithm with ``role = "reward"``; its rewards are normalised as it is saved,
    which is no algorithm's doing."""
    max_tokens: int = 0
    """The longest sequence in training: ``max_prompt_tokens`` and ``max_new_tokens`` of the task together."""
    text: datasets.Dataset = None  # type: ignore[assignment]
    """Columns ``id, input_ids``: pieces of at most ``max_tokens`` tokens, none of more than one text; each text's
    last piece ends with EOS."""
    schedule: ScheduleSpec = field(default_factory=ScheduleSpec)
    callbacks: list[TrainerCallback] = field(default_factory=list)
    """Hand them to any ``transformers.Trainer``: they stop at the budget, schedule the
    learning rate by the fraction spent, log, probe and report progress."""
    resume_from: Path | None = None
    """A checkpoint that an interrupted attempt at this cell left in ``folder``, if any."""
    record: Callable[[Mapping[str, float]], None] = lambda metrics: None
    on_step: Callable[[], None] = lambda: None
    loop_checkpoints: LoopCheckpoints | None = None
    """Where ``steps`` keeps its checkpoints, if anywhere."""
    _turn: list[Mapping[str, float]] | None = None

    def log(self, metrics: Mapping[str, float]) -> None:
        """Write a line of training metrics, stamped with the step and the budget spent; a turn's, at its end."""
        if self._turn is None:
            self.record(metrics)
        else:
            self._turn.append(metrics)

    def steps(self, *kept: Stateful) -> Iterator[int]:
        """Optimizer steps for a hand-written loop: yields 0, 1, ... until the budget is spent.

        ``kept`` is what changes from step to step beside the trained weights and torch's global generator, which are
        always kept: the optimizer, and whatever else has ``state_dict()`` and ``load_state_dict()``. A checkpoint holds
        it, and a killed cell goes on there; without any, no checkpoint is written and the cell starts again. Call it
        once: a checkpoint does not know which of two loops it is of.
        """
        checkpoints = self.loop_checkpoints if kept else None
        if checkpoints and self.resume_from:
            checkpoints.restore(self.resume_from, kept)
        while not self.meter.is_spent:
            lines: list[Mapping[str, float]] = []
            self._turn = lines
            yield self.meter.steps
            self._turn = None
            self.meter.count_step()
            for metrics in lines:
                self.record(metrics)
            self.on_step()
            if checkpoints and not self.meter.is_spent:
                checkpoints.save_when_due(self.meter.steps, kept)

    @property
    def checkpoint(self) -> str | None:
        """``resume_from`` as ``transformers.Trainer.train(resume_from_checkpoint=...)`` takes it."""
        return str(self.resume_from) if self.resume_from is not None else None

    def learning_rate_scale(self) -> float:
        """Factor in [0, 1] on the learning rate now: the schedule that every algorithm follows."""
        from bakeoff.budget import learning_rate_scale

        return learning_rate_scale(self.meter.fraction, self.schedule)

    def optimizer(self, learning_rate: float, *, layer_decay: float = 1.0) -> torch.optim.Optimizer:
        """The optimizer that every algorithm uses, over the policy's parameters: AdamW with fp32 masters.

        With ``layer_decay`` below 1 each layer of the transformer learns at that share of the rate of the one
        above it (discriminative fine-tuning: Howard and Ruder 2018, arXiv:1801.06146, §3.2).
        """
        from bakeoff.optim import MasterAdamW, layer_groups

        return MasterAdamW(layer_groups(self.roles, learning_rate, layer_decay), lr=learning_rate)

    def trainer_arguments(self, **overrides: Any) -> dict[str, Any]:
        """Arguments for any ``TrainingArguments`` that make it obey this cell.

        Seeded, silent, checkpointed in ``folder``, on the right device and precision, without
        gradient checkpointing or an own learning-rate schedule; ``overrides`` win.
        """
        from bakeoff.callbacks import trainer_arguments

        return trainer_arguments(self) | overrides


# --------------------------------------------------------------------------------------- tasks


class TaskSettings(PluginSettings):
    """Settings that every task has; a task's own class adds to them."""

    max_prompt_tokens: int = Field(default=256, ge=1)
    """A row whose prompt is longer is left out for every algorithm alike, and counted."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Completion length in tokens, in training and in evaluation. Longer completions in the data
    leave their row out for every algorithm alike, and are counted."""


@dataclass(frozen=True)
class BadRow:
    """A row that could not be used: where it stands and why. ``line`` counts from 1."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True)
class TaskData:
    """A task's rows. No prompt is in both splits. ``provides`` says what the rows hold."""

    train: Sequence[Row]
    test: Sequence[Row]
    provides: frozenset[Source]
    fingerprint: str
    """sha256 over all rows: equal exactly when the data is."""
    licence: str
    source: str
    bad_rows: tuple[BadRow, ...] = ()
    references: Mapping[str, float] = field(default_factory=dict)
    """Named gold scores on ``test`` to hold a policy against, e.g. "best constant answer '7'"."""


class Task(ABC):
    """The common dataset: prompts, what else the rows hold, and, where there is one, a reward.

    ``reward`` is what training optimises (the proxy), ``gold`` what the report scores; a task without
    them has ``reward_metric`` or ``gold_metric`` None. Loading is deterministic.
    """

    title: ClassVar[str]
    Settings: ClassVar[type[TaskSettings]] = TaskSettings
    reward_metric: Metric | None = None
    gold_metric: Metric | None = None

    def __init__(self, settings: Any = None) -> None:
        self.settings: Any = settings if settings is not None else self.Settings()

    @abstractmethod
    def load(self) -> TaskData:
        """Read or make the rows. Raises ``DataError`` with file and line."""

    def reward(self, rows: Sequence[Row], completions: Sequence[str]) -> list[float]:
        """The reward that training optimises, one finite number a completion."""
        raise LookupError(f"{type(self).__name__} has no reward")

    def gold(self, rows: Sequence[Row], completions: Sequence[str]) -> list[float]:
        """The score that the report believes, one finite number a completion."""
        raise LookupError(f"{type(self).__name__} has no gold reward")


# ---------------------------------------------------------------------------------- evaluators

Verdict = Literal["a", "b", "tie", "invalid"]
Score = Callable[[Sequence[Row], Sequence[str]], list[float]]

Need = Literal["samples", "logprobs", "reference_samples", "model", "pairs"]


class Judge(ABC):
    """Says which of two completions of a prompt is better.

    ``free`` is True where a verdict costs next to nothing: such a judge compares all algorithms at the end of every
    run. Any other does so when ``bakeoff score RUN --judge NAME`` asks for it.
    """

    title: ClassVar[str]
    Settings: ClassVar[type[PluginSettings]] = PluginSettings
    free: ClassVar[bool] = False

    def __init__(self, settings: Any = None) -> None:
        self.settings: Any = settings if settings is not None else self.Settings()

    @property
    def facts(self) -> Mapping[str, Any]:
        """What belongs on record beside the verdicts: the model that answered, requests, cost. No secrets."""
        return {}

    @abstractmethod
    def compare(self, context: EvalContext, rows: Sequence[Row], a: Sequence[str], b: Sequence[str]) -> list[Verdict]:
        """One verdict a row. The caller asks in both orders; disagreement is a tie.

        What could not be judged (a refusal, no answer, one that makes no sense) is "invalid": it counts as
        missing, never as a tie or a guess. Completions are hostile: nothing that they say is an instruction.
        """


@dataclass(frozen=True)
class EvalContext:
    """What an evaluator is handed: the samples of one sampling pass and what they can be scored by.

    ``samples`` and ``reference_samples`` have one row a (prompt, sample), with columns ``prompt_id,
    sample, prompt, completion, n_tokens, ended_eos, truncated`` (the last two bool). When an evaluator
    needs "logprobs", ``samples`` also has the lists ``token_logps``, ``token_reference_logps`` and
    ``token_kl``, one number a completion token, EOS included; ``token_kl`` is the exact KL divergence
    of the next-token distributions, policy from reference, over the whole vocabulary.
    """

    rows: Sequence[Row]
    """The held-out rows that were sampled; their ``id`` is ``prompt_id``."""
    samples: pd.DataFrame
    reference_samples: pd.DataFrame
    """Drawn the same way, for the same prompts, from where the policy started (warm start or base)."""
    task: Task
    train_reward: Score | None
    """The reward that training optimised: the task's own or a reward model's."""
    gold: Score | None
    """The gold reward, where the task has one."""
    judge: Judge | None = None
    """The matrix's judge, for evaluators that compare completions."""
    model: ModelView | None = None
    """The trained policy, to be asked and not changed; only for evaluators that need "model"."""
    pairs: pd.DataFrame | None = None
    """With the need "pairs", and where the cell has a reward model: its rewards on held-out pairs, one row a pair, with
    columns ``prompt_id, sample`` (the number of the pair within its prompt)``, chosen_reward, rejected_reward,
    chosen_tokens, rejected_tokens, logit, logit_again``. ``logit`` is the difference of the rewards before they were
    normalised, the log-odds that a Bradley-Terry model gives the label; ``logit_again`` should be the same: it is from
    a second scoring, in other batches and with the sides swapped."""


class Evaluator(ABC):
    """Scores samples, or the policy itself ("model"). Declares its metrics and what it needs.

    Never sees a training row. A policy that attends to both sides is scored by evaluators that need "model" alone.
    """

    title: ClassVar[str]
    Settings: ClassVar[type[PluginSettings]] = PluginSettings
    metrics: ClassVar[tuple[Metric, ...]]
    needs: ClassVar[frozenset[Need]] = frozenset({"samples"})
    """What the core computes for it. A cell that cannot have one of them is not measured by this evaluator."""

    def __init__(self, settings: Any = None) -> None:
        self.settings: Any = settings if settings is not None else self.Settings()

    @abstractmethod
    def score(self, context: EvalContext) -> pd.DataFrame:
        """Columns ``prompt_id, sample, metric, value``: one row a (prompt, sample, metric).

        Never a bare mean. A metric that cannot be had (no gold reward, say) is left out whole.
        """


class Report(ABC):
    """Writes a run's results in one form."""

    title: ClassVar[str]

    @abstractmethod
    def write(self, results: Any, to: Path) -> list[Path]:
        """Write under ``to`` and return the files written. ``results`` is ``bakeoff.reports.frame.Results``."""
