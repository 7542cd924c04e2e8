"""What every cell begins with: the task's rows, the tokenizer, the base with a fresh adapter, all by role."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bakeoff import modelfiles, models, registry
from bakeoff.contracts import Score, Task, TaskData
from bakeoff.errors import BakeoffError, PluginError, PluginFailure
from bakeoff.rows import CommonRows, tokenise
from bakeoff.seeds import derive_seed
from bakeoff.spec import CellSpec, PluginSpec

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from transformers import PreTrainedTokenizerBase

    from bakeoff.roles import Role, RoleModel


@dataclass
class Setup:
    """One cell, loaded. ``train_reward`` is the task's own reward until a reward model's takes its place."""

    cell: CellSpec
    task: Task
    data: TaskData
    rows: CommonRows
    tokenizer: PreTrainedTokenizerBase
    roles: RoleModel
    dtype: torch.dtype
    train_reward: Score | None
    gold: Score | None

    @property
    def evaluation_rows(self) -> Any:
        """The held-out rows that are measured."""
        return self.rows.test[: self.cell.evaluation.prompts]

    @property
    def max_new_tokens(self) -> int:
        return int(self.task.settings.max_new_tokens)

    @property
    def max_tokens(self) -> int:
        """The longest sequence in training."""
        return longest(self.task)

    def draw_samples(self, role: Role, rows: Any, *, seed: int, samples: int) -> pd.DataFrame:
        """``evaluation.draw_samples`` as this cell samples."""
        from bakeoff.evaluation import draw_samples

        limits = {"max_new_tokens": self.max_new_tokens, "batch": self.cell.evaluation.batch}
        return draw_samples(self.roles, role, rows, self.tokenizer, seed=seed, samples=samples, **limits)

    def write_samples(self, texts: Sequence[str], rows: Any, *, samples: int) -> pd.DataFrame:
        """``evaluation.write_samples`` for this cell."""
        from bakeoff.evaluation import write_samples

        return write_samples(texts, rows, self.tokenizer, samples=samples, max_new_tokens=self.max_new_tokens)


def make(kind: Any, spec: PluginSpec) -> Any:
    """An instance of a plugin with its settings. Raises ``PluginFailure`` when its own code does."""
    plugin = registry.load(kind, spec.name)
    settings = plugin.Settings.model_validate(spec.settings)
    try:
        return plugin(settings)
    except BakeoffError:
        raise
    except Exception as error:
        raise PluginFailure(f"{kind} {spec.name} could not be made") from error


def task_and_data(spec: PluginSpec) -> tuple[Task, TaskData]:
    """The task and its rows; loaded once a process, since planning asks for each cell.

    Raises ``PluginError`` when the task's own code fails; a ``BakeoffError`` of its own goes through.
    """
    return _task_and_data(spec.name, json.dumps(spec.settings, sort_keys=True, default=str))


@functools.lru_cache(maxsize=32)
def _task_and_data(name: str, settings: str) -> tuple[Task, TaskData]:
    try:
        task = make("task", PluginSpec(name=name, label=name, settings=json.loads(settings)))
        return task, task.load()
    except BakeoffError:
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, PluginFailure) and error.__cause__ else error
        raise PluginError(
            f"task '{name}' could not be loaded: {type(cause).__name__}: {cause}",
            fix="Check the task's settings and its files; --debug shows where its code failed.",
        ) from error


def longest(task: Task) -> int:
    """Tokens of the longest sequence that a task allows."""
    return int(task.settings.max_prompt_tokens + task.settings.max_new_tokens)


def load(cell: CellSpec) -> Setup:
    """Load everything. The adapter's first weights depend on the cell's seed alone, not on its algorithm."""
    from bakeoff.roles import RoleModel

    task, data = task_and_data(cell.task)
    tokenizer = models.load_tokenizer(cell.model)
    rows = tokenise(data, tokenizer, task.settings)
    dtype = models.compute_dtype(cell.model)
    base = models.load_base(cell.model, longest=longest(task))
    policy = models.add_lora(base, cell.lora, seed=derive_seed(cell.seed, "lora"), dtype=dtype)
    return Setup(
        cell=cell,
        task=task,
        data=data,
        rows=rows,
        tokenizer=tokenizer,
        roles=RoleModel(policy),
        dtype=dtype,
        train_reward=guarded(task.reward) if task.reward_metric else None,
        gold=guarded(task.gold) if task.gold_metric else None,
    )


def guarded(score: Score) -> Score:
    """A task's own code: its exceptions are the plugin's, and each completion must get a finite number."""

    def call(rows: Any, completions: Any) -> list[float]:
        try:
            values = [float(value) for value in score(rows, completions)]
        except Exception as error:
            raise PluginFailure("the task's reward failed") from error
        if len(values) != len(completions):
            raise PluginFailure(f"the task's reward gave {len(values)} numbers for {len(completions)} completions")
        if broken := sum(not math.isfinite(value) for value in values):
            raise PluginFailure(f"the task's reward gave {broken} of {len(values)} numbers that are not finite")
        return values

    return call


def parity(setup: Setup) -> dict[str, Any]:
    """What must be equal between cells for their comparison to be one; a report refuses or flags a mixture."""
    cell, tokenizer = setup.cell, setup.tokenizer

    def sha(value: Any) -> str:
        return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def ids(rows: Any) -> str:
        return sha([(row.row["id"], row.prompt_ids, dict(row.completions), row.text_ids) for row in rows])

    return {
        "model_sha": modelfiles.fingerprint(cell.model),
        "tokenizer_sha": sha(sorted(tokenizer.get_vocab().items())),
        "template_sha": sha(tokenizer.chat_template),
        "precision": cell.model.precision,
        "dtype": str(setup.dtype).removeprefix("torch."),
        "device": setup.roles.device.type,
        "lora": cell.lora.model_dump(),
        "train_rows_sha": ids(setup.rows.train),
        "test_rows_sha": ids(setup.evaluation_rows),
        "decoding": f"temperature 1, whole vocabulary, at most {setup.max_new_tokens} tokens",
    }
