"""From a matrix to its cells: what is done, what is left, what it should cost, and what plan.json says of it."""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bakeoff import declaration, registry
from bakeoff import matrix as matrices
from bakeoff.environment import command_line
from bakeoff.matrix import Matrix
from bakeoff.progress import plural
from bakeoff.spec import CellSpec
from bakeoff.store import Store

if TYPE_CHECKING:
    from bakeoff.stageids import StageKey

WORKER = "bakeoff.worker"
"""The module that runs a cell: ``run_cell``, ``fingerprints``, ``incompatible``, ``estimate``, ``planned_stages``,
``PRELOAD``."""

State = Literal["done", "to do", "partial", "failed", "incompatible"]
LABELS = ("model", "task", "budget", "algorithm", "seed")


@dataclass(frozen=True)
class PlannedCell:
    """A cell of the matrix: what it is, whether it is done, and what it should cost.

    ``why`` is the reason of "failed" and "incompatible". ``seconds`` (wall-clock) and ``bytes`` (peak
    memory) are what like cells of this run took, or else a rough estimate, as ``basis`` says.
    """

    id: str
    cell: CellSpec
    state: State
    why: str
    seconds: float
    bytes: float
    basis: str
    stages: tuple[StageKey, ...] = ()
    """What it uses and other cells may share, in the order in which it does."""

    @property
    def is_due(self) -> bool:
        """Whether a run has to compute it."""
        return self.state not in ("done", "incompatible")

    @property
    def labels(self) -> dict[str, Any]:
        """The cell's place in the matrix: model, task, budget, algorithm (labels) and seed."""
        cell = self.cell
        names = (cell.model.label, cell.task.label, cell.budget.name, cell.algorithm.label, cell.seed)
        return dict(zip(LABELS, names, strict=True))

    def record(self) -> dict[str, Any]:
        """What plan.json says of the cell."""
        algorithm, preset = self.cell.algorithm.name, self.cell.algorithm.preset
        return {
            "id": self.id,
            **self.labels,
            "algorithm_name": algorithm,
            "preset": preset,
            "title": registry.variant(algorithm, preset).title,
            "incompatible": self.why if self.state == "incompatible" else None,
            "estimated_s": self.seconds,
        }


@dataclass(frozen=True)
class PlannedStage:
    """A stage that cells of the matrix share: computed by the first that needs it."""

    id: str
    label: str
    is_done: bool
    cells: tuple[PlannedCell, ...]
    """Those that use it."""


def plan(matrix: Matrix, store: Store) -> list[PlannedCell]:
    """The cells that ``matrix`` asks for, in the order in which they run: all of one seed, then the next.

    So a run that is stopped early is a comparison already. Reads the store and writes nothing.
    """
    return planned(_cells(matrix), store)


def stages(cells: Sequence[PlannedCell], store: Store) -> list[PlannedStage]:
    """The stages that ``cells`` use, in the order in which they are first needed."""
    users: dict[str, list[PlannedCell]] = {}
    labels: dict[str, str] = {}
    for cell in cells:
        for key in cell.stages:
            users.setdefault(key.id, []).append(cell)
            labels[key.id] = key.label
    return [PlannedStage(key, labels[key], store.stage(key).exists(), tuple(using)) for key, using in users.items()]


def _cells(matrix: Matrix) -> dict[str, CellSpec]:
    """The matrix's cells by id, seed by seed."""
    fingerprints = importlib.import_module(WORKER).fingerprints
    cells = sorted(matrix.cells(), key=lambda cell: matrix.spec.seeds.index(cell.seed))
    return {matrices.cell_id(cell, fingerprints=fingerprints(cell)): cell for cell in cells}


def planned(cells: Mapping[str, CellSpec], store: Store) -> list[PlannedCell]:
    """State and price of each cell. A stage that is not there yet is paid for by the first cell that will use it."""
    work, past = importlib.import_module(WORKER), _past_costs(store)
    made: list[PlannedCell] = []
    paid: set[str] = set()
    for cell_id, cell in cells.items():
        state, why = _state(cell, cell_id, store, work)
        keys = () if state == "incompatible" else tuple(work.planned_stages(cell))
        found = PlannedCell(cell_id, cell, state, why, 0.0, 0.0, "", stages=keys)
        if like := past.get(tuple(found.labels[axis] for axis in LABELS[:-1])):
            seconds, peaks = zip(*like, strict=True)
            known = (statistics.median(seconds), max(peaks), f"{plural(len(like))} of this run")
        else:
            first = [key for key in keys if key.id not in paid and not store.stage(key.id).exists()]
            guess = work.estimate(cell, first)
            known = (guess.seconds, guess.bytes, guess.basis)
        if found.is_due:
            paid |= {key.id for key in keys}
        made.append(dataclasses.replace(found, seconds=known[0], bytes=known[1], basis=known[2]))
    return made


def _state(cell: CellSpec, cell_id: str, store: Store, work: Any) -> tuple[State, str]:
    """What is to be done about the cell, and why it failed or cannot run."""
    status = store.status(cell_id)
    if status is not None and status["status"] == "ok":
        return "done", ""
    if status is not None and status["status"] == "incompatible":
        return "incompatible", status["reason"]
    if reason := work.incompatible(cell):
        return "incompatible", reason
    if store.partial(cell_id).exists():
        return "partial", ""
    return ("to do", "") if status is None else ("failed", f"{status['status']}: {status['reason']}")


def _past_costs(store: Store) -> dict[tuple[str, ...], list[tuple[float, float]]]:
    """Seconds and peak bytes of the cells that ended well, by model, task, budget and algorithm."""
    costs: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for entry in _earlier_plan(store).get("cells", []):
        status = store.status(entry["id"])
        if status is not None and status["status"] == "ok":
            ledger = store.cell(entry["id"]) / "ledger.json"
            peak = store.read_json(ledger).get("peak_bytes") if ledger.exists() else None
            key = tuple(entry[name] for name in LABELS[:-1])
            costs.setdefault(key, []).append((status["wall_s"], peak or 0))
    return costs


def _earlier_plan(store: Store) -> dict[str, Any]:
    return store.read_json(store.plan_path) if store.plan_path.exists() else {}


def write_plan(matrix: Matrix, cells: Sequence[PlannedCell], store: Store) -> None:
    """Amend the run's plan with the cells asked for, and say what it stands on.

    The plan holds the cells that were ever asked for and still belong to the matrix without ``--only``,
    in its order. Cells that no longer do (a setting changed, so their ids did) stay on disk and are listed
    as "retired": reports leave them out. Nothing is written when nothing changes.
    """
    with store.lock("plan"):
        earlier = _earlier_plan(store)
        known = {entry["id"]: entry for entry in earlier.get("cells", []) + earlier.get("retired", [])}
        kept = {entry["id"] for entry in earlier.get("cells", [])} | {cell.id for cell in cells}
        asked = {cell.id: cell.record() for cell in cells}
        # Whether other cells still belong is asked only where there are any: what --only leaves out need not be there.
        order = [*(_cells(dataclasses.replace(matrix, only=())) if known.keys() - asked.keys() else asked)]
        entries = [asked.get(key) or known[key] for key in order if key in kept]
        retired = [entry for key, entry in known.items() if key not in order]
        plan = {
            "name": store.folder.name,
            "created": earlier.get("created") or datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": command_line(sys.argv),
            "declarations": declaration.declare(matrix.spec, earlier.get("declarations", []), results=_results(store)),
            "matrix": matrix.spec.model_dump(mode="json"),
            "cells": entries,
            "retired": retired,
        }
        if _comparable(plan) == _comparable(earlier):
            return
        # A value of --set can have several lines.
        head = "".join(f"# {line}\n" for line in str(plan["command"]).splitlines())
        yaml = f"{head}{matrices.to_yaml(matrix.spec)}"
        store.write_bytes(store.folder / "matrix.yaml", yaml.encode())
        store.write_json(store.plan_path, plan)


def _comparable(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A plan without what differs between two runs of the same matrix."""
    entries = {
        part: [{key: value for key, value in entry.items() if key != "estimated_s"} for entry in plan.get(part, [])]
        for part in ("cells", "retired")
    }
    return {key: plan.get(key) for key in ("name", "declarations", "matrix")} | entries


def _results(store: Store) -> int:
    """Cells on disk that ended well, of this matrix or an earlier one: what somebody may have looked at."""
    folders = (store.folder / "cells").glob("*/status.json")
    return sum(store.is_done(path.parent.name) for path in folders if path.parent.suffix != ".partial")
