"""What a plugin sees: Algorithm, Task, Evaluator, Judge, Report; what each is handed is of ``bakeoff.contexts``.

This file imports no torch: a plugin list, a plan and a report need none. Shapes are written
(B, C) for B sequences of C completion tokens; log-probabilities and KL are in nats.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from bakeoff.contexts import CompletionContext, EvalContext, TrainContext

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Algorithm",
    "BadRow",
    "CompletionContext",
    "EvalContext",
    "Evaluator",
    "Judge",
    "Metric",
    "Need",
    "PluginSettings",
    "Preset",
    "Report",
    "RewardFunction",
    "Row",
    "Score",
    "Source",
    "Task",
    "TaskData",
    "TaskSettings",
    "TrainContext",
    "Verdict",
]

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
    unread: str = ""
    """What the source holds that the settings do not use, and how to use it: told where an algorithm lacks rows."""


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
