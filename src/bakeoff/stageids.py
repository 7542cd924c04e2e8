"""What determines the stages of a cell, and so their ids: known before any model is loaded. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bakeoff
from bakeoff import modelfiles, registry
from bakeoff.contracts import Source
from bakeoff.executors import visible_gpus
from bakeoff.setup import task_and_data
from bakeoff.spec import CellSpec

VERSION = 2
"""Raise it when a stage computes something else from the same inputs."""


@dataclass(frozen=True)
class StageKey:
    """A stage before it is computed: equal inputs are the same stage, whichever cell asks for it."""

    kind: str
    inputs: Mapping[str, Any]
    label: str
    """What a plan and a report call it."""
    charged: bool = True
    """Whether it is on the ledgers of the cells that use it: measuring is nobody's training cost."""

    @property
    def record(self) -> dict[str, Any]:
        """What the id hashes."""
        return {"kind": self.kind, "version": VERSION, "bakeoff": bakeoff.__version__, **self.inputs}

    @property
    def id(self) -> str:
        text = json.dumps(self.record, sort_keys=True, default=str)
        return f"{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


class StageKeys:
    """The keys of one cell's stages. ``warm_start_id`` moves on as the warm start's stages are passed."""

    def __init__(self, cell: CellSpec, device: str) -> None:
        self.cell = cell
        self.device = device
        self.task, self.data = task_and_data(cell.task)
        self.warm_start_id: str | None = None

    def _start(self) -> dict[str, Any]:
        """What determines the policy's starting point and the rows."""
        cell = self.cell
        # Files count by what is in them, which the data's fingerprint says, and not by where they lie.
        settings = {
            name: value for name, value in self.task.settings.model_dump().items() if not isinstance(value, Path)
        }
        return {
            "model": modelfiles.fingerprint(cell.model),
            "precision": cell.model.precision,
            "device": self.device,
            "task": [cell.task.name, registry.source_hash(type(self.task)), settings],
            "data": self.data.fingerprint,
            "warm_start": self.warm_start_id,
        }

    def warm_start(self, number: int) -> StageKey:
        """Stage ``number`` of the warm start, trained from the one before it."""
        cell, stage = self.cell, self.cell.warm_start[number]
        source = registry.source_hash(registry.load("algorithm", stage.algorithm.name))
        inputs = {
            **self._start(),
            "lora": cell.lora.model_dump(),
            "algorithm": [stage.algorithm.model_dump(exclude={"label", "preset"}), source],
            "budget": stage.budget.limits(),
            "schedule": cell.schedule.model_dump(),
            "preparation": cell.preparation.model_dump(),
            "seed": cell.seed,
        }
        return StageKey("warm-start", inputs, f"warm start: {stage.algorithm.label}")

    def samples(self) -> StageKey:
        """Ranked completions of training prompts from where the policy now starts."""
        spec = self.cell.preparation
        inputs = {**self._start(), "prompts": spec.prompts, "samples": spec.samples}
        since = " after the warm start" if self.warm_start_id else ""
        return StageKey("samples", inputs, f"{spec.samples} samples of {spec.prompts} prompts{since}")

    def held_out_samples(self) -> StageKey:
        """The same of the evaluation prompts, for pairs to measure a reward model on."""
        prompts, samples = self.cell.evaluation.prompts, self.cell.preparation.samples
        inputs = {**self._start(), "prompts": prompts, "samples": samples}
        return StageKey("held-out-samples", inputs, f"{samples} samples of {prompts} held-out prompts", charged=False)

    def reward_model(self) -> StageKey:
        """A reward model of the task's pairs or of ranked samples."""
        spec = self.cell.preparation
        own = "preferences" in self.data.provides
        inputs = {
            **self._start(),
            "warm_start": None,
            "lora": self.cell.lora.model_dump(),
            "rankings": {} if own else spec.model_dump(include={"prompts", "samples", "min_gap"}),
            "reward_model": spec.reward_model.model_dump(),
        }
        count = spec.reward_model.comparisons
        return StageKey("reward-model", inputs, f"reward model of {count} comparisons" if count else "reward model")

    def reference_samples(self) -> StageKey:
        """Completions of the evaluation prompts from where the policy starts."""
        spec = self.cell.evaluation
        inputs = {**self._start(), "prompts": spec.prompts, "samples": spec.samples, "seed": self.cell.seed}
        return StageKey("reference-samples", inputs, "samples of the reference", charged=False)

    def reference_pool(self) -> StageKey:
        """Many scored completions of the evaluation prompts from there, for best-of-n."""
        spec, cell = self.cell.evaluation, self.cell
        scored_by = self.reward_model().id if has_reward_model(cell) else None
        inputs = {
            **self._start(),
            "prompts": spec.prompts,
            "samples": spec.reference_samples,
            "reward_model": scored_by,
        }
        label = f"{spec.reference_samples} samples of the reference a prompt"
        return StageKey("reference-pool", inputs, label, charged=False)


def has_reward_model(cell: CellSpec) -> bool:
    """Whether a reward model is the cell's training reward: asked for, or all that pairs without a reward can give."""
    task, data = task_and_data(cell.task)
    needed = cell.preparation.reward == "model" or (task.reward_metric is None and "preferences" in data.provides)
    return needed and registry.load("algorithm", cell.algorithm.name).is_sampled()


def learns_from_reward(cell: CellSpec) -> bool:
    """Whether the algorithm or its warm start trains on the reward; if not, a reward model only measures the cell."""
    names = [cell.algorithm.name, *(stage.algorithm.name for stage in cell.warm_start)]
    return any("reward" in registry.load("algorithm", name).consumes for name in names)


def planned_stages(cell: CellSpec) -> list[StageKey]:
    """The stages that a cell will use, in the order in which it does."""
    keys = StageKeys(cell, "cuda" if visible_gpus() else "cpu")
    task, has = keys.task, keys.data.provides
    algorithm = registry.load("algorithm", cell.algorithm.name)
    found: dict[str, StageKey] = {}

    def use(*wanted: StageKey) -> None:
        found.update({key.id: key for key in wanted})

    def derived(consumes: frozenset[Source]) -> Iterator[StageKey]:
        demonstrations = "demonstrations" in consumes and not has & {"demonstrations", "preferences"}
        if demonstrations or (consumes & {"preferences", "rankings"} and "preferences" not in has):
            yield keys.samples()

    if learned := has_reward_model(cell):
        model = [*([] if "preferences" in has else [keys.samples()]), keys.reward_model()]
        use(*(replace(key, charged=learns_from_reward(cell)) for key in model))
    for number, stage in enumerate(cell.warm_start):
        consumed = registry.load("algorithm", stage.algorithm.name).consumes
        use(*derived(consumed), key := keys.warm_start(number))
        keys.warm_start_id = key.id
    use(*derived(algorithm.consumes))
    if algorithm.is_sampled():
        use(keys.reference_samples())
        if cell.evaluation.reference_samples and (task.gold_metric or task.reward_metric or learned):
            use(keys.reference_pool())
    by_pairs = any("pairs" in registry.load("evaluator", spec.name).needs for spec in cell.evaluators)
    ranked = "preferences" not in has and (task.gold_metric or task.reward_metric)
    if by_pairs and ranked and (learned or algorithm.role == "reward"):
        use(keys.held_out_samples())
    return list(found.values())
