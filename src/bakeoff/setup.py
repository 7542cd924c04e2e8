"""What every cell begins with: the task's rows, the tokenizer, the base with a fresh adapter, all by role."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bakeoff import models, registry
from bakeoff.contracts import Score, Task, TaskData
from bakeoff.errors import PluginFailure
from bakeoff.rows import CommonRows, tokenise
from bakeoff.seeds import derive_seed
from bakeoff.spec import CellSpec, PluginSpec

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from bakeoff.roles import RoleModel


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


def make(kind: Any, spec: PluginSpec) -> Any:
    """An instance of a plugin with its settings."""
    plugin = registry.load(kind, spec.name)
    return plugin(plugin.Settings.model_validate(spec.settings))


def task_and_data(spec: PluginSpec) -> tuple[Task, TaskData]:
    """The task and its rows; loaded once a process, since planning asks for each cell."""
    return _task_and_data(spec.name, json.dumps(spec.settings, sort_keys=True, default=str))


@functools.lru_cache(maxsize=32)
def _task_and_data(name: str, settings: str) -> tuple[Task, TaskData]:
    task = make("task", PluginSpec(name=name, label=name, settings=json.loads(settings)))
    return task, task.load()


def load(cell: CellSpec) -> Setup:
    """Load everything. The adapter's first weights depend on the cell's seed alone, not on its algorithm."""
    from bakeoff.roles import RoleModel

    task, data = task_and_data(cell.task)
    tokenizer = models.load_tokenizer(cell.model)
    rows = tokenise(data, tokenizer, task.settings)
    dtype = models.compute_dtype(cell.model)
    longest = task.settings.max_prompt_tokens + task.settings.max_new_tokens
    base = models.load_base(cell.model, longest=longest)
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
    """A task's own code: its exceptions are the plugin's, and it must answer for every completion."""

    def call(rows: Any, completions: Any) -> list[float]:
        try:
            values = [float(value) for value in score(rows, completions)]
        except Exception as error:
            raise PluginFailure("the task's reward failed") from error
        if len(values) != len(completions):
            raise PluginFailure(f"the task's reward gave {len(values)} numbers for {len(completions)} completions")
        return values

    return call


def parity(setup: Setup) -> dict[str, Any]:
    """What must be equal between cells for their comparison to be one; a report refuses or flags a mixture."""
    cell, tokenizer = setup.cell, setup.tokenizer

    def sha(value: Any) -> str:
        return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def ids(rows: Any) -> str:
        return sha([(row.row["id"], row.prompt_ids, dict(row.completions)) for row in rows])

    return {
        "model_sha": models.fingerprint(cell.model),
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
