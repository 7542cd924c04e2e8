"""Finished cells of a run, as far as scoring their samples again needs them. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from bakeoff.contracts import EvalContext, Judge
from bakeoff.errors import StoreError
from bakeoff.setup import guarded, task_and_data
from bakeoff.spec import CellSpec
from bakeoff.store import Store

KEYS = ["prompt_id", "sample"]
SECTION = ["model", "task", "budget"]


@dataclass(frozen=True, eq=False)
class StoredCell:
    """A cell that ended well, with all that scoring it again needs."""

    store: Store
    entry: Mapping[str, Any]
    """What plan.json says of it."""

    @property
    def id(self) -> str:
        return str(self.entry["id"])

    @property
    def section(self) -> tuple[str, str, str]:
        return self.entry["model"], self.entry["task"], self.entry["budget"]

    @cached_property
    def record(self) -> dict[str, Any]:
        return self.store.read_json(self.store.cell(self.id) / "cell.json")

    @cached_property
    def spec(self) -> CellSpec:
        return CellSpec.model_validate(self.record["spec"])

    @property
    def trains(self) -> bool:
        """Whether its algorithm changed the policy: then it left an adapter. The plugin need not be there any more."""
        return (self.store.cell(self.id) / "adapter").is_dir()

    @property
    def has_samples(self) -> bool:
        """Whether it drew any: an encoder or a reward model writes no text."""
        return (self.store.cell(self.id) / "samples.parquet").is_file() and self.record.get("is_sampled", True)

    @cached_property
    def fingerprint(self) -> str:
        """Of its samples: scores of other samples are not its own."""
        with (self.store.cell(self.id) / "samples.parquet").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    @cached_property
    def samples(self) -> pd.DataFrame:
        """As ``EvalContext.samples`` has them, without log-probabilities of tokens."""
        stored = pd.read_parquet(self.store.cell(self.id) / "samples.parquet")
        return stored.drop(columns="token_kl", errors="ignore")

    @property
    def final(self) -> pd.DataFrame:
        return self.samples[self.samples["fraction"] == 1.0]

    @cached_property
    def start(self) -> pd.DataFrame:
        """The samples of where it started. Raises ``StoreError`` when they are gone."""
        stage = self.record.get("reference_samples")
        path = self.store.stage(stage) / "samples.parquet" if stage else None
        if path is None or not path.is_file():
            raise StoreError(
                f"cell {self.id} has no samples of where it started: {path or 'an older bakeoff ran it'}.",
                fix="Run the matrix again under another --name.",
            )
        return pd.read_parquet(path)

    def context(self, samples: pd.DataFrame, *, with_start: bool, judge: Judge | None = None) -> EvalContext:
        """The context that an evaluator or a judge is handed for some of its samples.

        The training reward is the task's own; a reward model's is not loaded again. Raises ``StoreError`` when the
        task's rows are no longer those that were sampled.
        """
        task, data = task_and_data(self.spec.task)
        if data.fingerprint != self.record["data"]["fingerprint"]:
            raise StoreError(
                f"the rows of task '{self.spec.task.label}' have changed since cell {self.id} was sampled.",
                fix="Restore the data or the task's version, or run the matrix again.",
            )
        names = set(samples["prompt_id"])
        start = self.start if with_start else samples.iloc[:0]
        return EvalContext(
            rows=[row for row in data.test if row["id"] in names],
            samples=samples,
            reference_samples=start[start["prompt_id"].isin(names)],
            task=task,
            train_reward=guarded(task.reward) if task.reward_metric else None,
            gold=guarded(task.gold) if task.gold_metric else None,
            judge=judge,
        )


def stored_cells(store: Store) -> list[StoredCell]:
    """The cells of the run's plan that ended well, in its order."""
    plan = store.read_json(store.plan_path)
    return [StoredCell(store, entry) for entry in plan["cells"] if store.is_done(entry["id"])]
