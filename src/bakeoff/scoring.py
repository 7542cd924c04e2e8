"""Score samples: while a cell runs, and again later, by a new evaluator or judge over what a run stored.

A later look goes to ``scored/<kind>-<label>/``: ``scored.json`` (by what, when, over which samples),
``scores.parquet`` (``id`` of the cell and the columns of a cell's scores) and, of a judge, ``verdicts.parquet`` and
``canaries.parquet`` (``bakeoff.tournament``). What a cell measured itself is never touched. Imports no torch; a
plugin may.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pandas as pd

import bakeoff
from bakeoff import registry
from bakeoff.contracts import EvalContext, Evaluator, Judge, Metric
from bakeoff.environment import command_line, versions
from bakeoff.errors import BakeoffError, PluginError, PluginFailure, StoreError
from bakeoff.identity import plugin_identity
from bakeoff.setup import make
from bakeoff.spec import PluginSpec
from bakeoff.store import Store
from bakeoff.stored import KEYS, StoredCell, stored_cells
from bakeoff.tournament import CANARIES, VERDICTS, Tournament, play, stack

if TYPE_CHECKING:
    from bakeoff.modelview import ModelView

SCORES = ["id", *KEYS, "fraction", "metric", "value"]

Kind = Literal["evaluator", "judge"]


def score_samples(
    evaluators: Sequence[Evaluator], context: EvalContext, model: ModelView | None = None
) -> pd.DataFrame:
    """Every evaluator's rows, one below the other. Those that need it are handed the ``model``.

    Raises ``PluginFailure`` when one raises, gives other columns, or a number that is not finite: it would vanish in
    a mean.
    """
    columns = [*KEYS, "metric", "value"]
    frames = []
    for evaluator in evaluators:
        name = f"evaluator {type(evaluator).__name__}"
        try:
            frame = evaluator.score(replace(context, model=model) if "model" in evaluator.needs else context)[columns]
            finite = frame["value"].astype(float).abs().lt(float("inf"))
        except Exception as error:
            raise PluginFailure(f"{name} failed") from error
        if not finite.all():
            metrics = ", ".join(frame.loc[~finite, "metric"].unique())
            raise PluginFailure(f"{name} gave {(~finite).sum()} numbers that are not finite ({metrics})")
        frames.append(frame)
    return stack(frames, columns)


@dataclass(frozen=True)
class Scored:
    """What one call of ``score`` added: cells, comparisons (of which ``invalid`` without a verdict), and its record."""

    folder: Path
    cells: int
    comparisons: int = 0
    invalid: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the plugin has to say of it: the model that answered, requests, cost."""


class _Work(NamedTuple):
    """Frames by file name, the metrics in them, and what was done."""

    frames: Mapping[str, pd.DataFrame]
    metrics: Sequence[Metric]
    comparisons: int = 0
    invalid: int = 0
    facts: Mapping[str, Any] = {}


def score(store: Store, kind: Kind, spec: PluginSpec) -> Scored:
    """Run one evaluator or judge over the run's stored samples and keep the results; only what is missing is done.

    Raises ``PluginError`` when the plugin fails, needs what is not stored, or a judge gives no valid verdict;
    ``StoreError`` when the label holds scores of another plugin, version or settings. Nothing is written then.
    """
    folder = store.scoring(f"{kind}-{spec.label}")
    with store.lock("scoring", folder.name):
        cells = [cell for cell in stored_cells(store) if cell.has_samples]
        if not cells:
            raise StoreError(f"{store.folder} has no finished cell to score.", fix="Run the matrix first.")
        record, earlier = _earlier(store, folder, kind, spec)
        # A cell that was trained again has other samples, and nothing has been said of those.
        known = {cell.id for cell in cells if record.get("cells", {}).get(cell.id) == cell.fingerprint}
        began = time.monotonic()
        plugin, work = _work(kind, spec, cells, earlier, known)
        done = Scored(folder, len(cells) - len(known), work.comparisons, work.invalid, work.facts)
        if done.cells or done.comparisons:
            session = {
                "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "command": command_line(sys.argv),
                "packages": versions(),
                "seconds": time.monotonic() - began,
                "cells": done.cells,
                "comparisons": done.comparisons,
                "facts": dict(done.facts),
            }
            fields = {
                "kind": kind,
                **spec.model_dump(mode="json"),
                "title": plugin.title,
                "identity": identity(kind, spec),
                "bakeoff": bakeoff.__version__,
                "metrics": [asdict(metric) for metric in work.metrics],
                "cells": {cell.id: cell.fingerprint for cell in cells},
                "sessions": [*record.get("sessions", []), session],
            }
            _write(store, folder, fields, work.frames)
        return done


def score_by_free_judge(store: Store, judge: PluginSpec) -> Scored | None:
    """Let the matrix's judge compare all algorithms, if asking it costs nothing; else, or without samples, None."""
    if registry.load("judge", judge.name).free and any(cell.has_samples for cell in stored_cells(store)):
        return score(store, "judge", judge)
    return None


def identity(kind: Kind, spec: PluginSpec) -> str:
    """16 hexadecimal digits of what determines a plugin's results: its name, settings and source."""
    text = json.dumps(plugin_identity(kind, spec), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _earlier(
    store: Store, folder: Path, kind: Kind, spec: PluginSpec
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """The record and the frames of what the same plugin with the same settings said before; empty the first time."""
    columns = {"scores": SCORES, "verdicts": VERDICTS, "canaries": CANARIES}
    frames = {name: pd.DataFrame(columns=names) for name, names in columns.items()}
    if not folder.exists():
        return {}, frames
    record = store.read_json(folder / "scored.json")
    if record["identity"] != identity(kind, spec):
        raise StoreError(
            f"{folder} holds what {kind} '{spec.label}' said with other settings or in another version.",
            fix=f'Give this one a label of its own: --{kind} "{{name: {spec.name}, label: {spec.label}-2}}". '
            f"Or delete {folder}.",
        )
    return record, frames | {path.stem: pd.read_parquet(path) for path in folder.glob("*.parquet")}


def _write(store: Store, folder: Path, record: Mapping[str, Any], frames: Mapping[str, pd.DataFrame]) -> None:
    """The whole folder in one step: a reader sees the old one or the new one."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, frame in frames.items():
        store.write_frame(partial / f"{name}.parquet", frame)
    store.write_json(partial / "scored.json", record)
    store.replace(partial)


def _work(
    kind: Kind, spec: PluginSpec, cells: Sequence[StoredCell], earlier: Mapping[str, pd.DataFrame], known: set[str]
) -> tuple[Any, _Work]:
    """The plugin and what it did; its own exceptions as ``PluginError``."""
    try:
        plugin = make(kind, spec)
        return plugin, (_judge if kind == "judge" else _evaluate)(plugin, spec, cells, earlier, known)
    except BakeoffError:
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, PluginFailure) else error
        said = f"{error}: " if isinstance(error, PluginFailure) else f"{kind} '{spec.label}' failed: "
        raise PluginError(f"{said}{type(cause).__name__}: {cause}" if cause else str(error)) from error


def _evaluate(
    evaluator: Evaluator,
    spec: PluginSpec,
    cells: Sequence[StoredCell],
    earlier: Mapping[str, pd.DataFrame],
    known: set[str],
) -> _Work:
    """Every set of samples that a cell drew. Metrics keep their names, unless the cells have measured one so called."""
    if lacking := sorted(evaluator.needs - {"samples", "reference_samples"}):
        raise PluginError(
            f"evaluator '{spec.name}' needs {', '.join(lacking)}, which a run does not store.",
            fix="Name it in the matrix's `evaluators` and run that: a cell is measured while its model is loaded.",
        )
    with_start = "reference_samples" in evaluator.needs
    judges: dict[str, Judge] = {}
    frames = [earlier["scores"][earlier["scores"]["id"].isin(known)]]
    measured = {metric["name"] for cell in cells for metric in cell.record["metrics"]}
    names = {
        metric.name: f"{metric.name}@{spec.label}" if metric.name in measured else metric.name
        for metric in evaluator.metrics
    }
    for cell in cells:
        if cell.id in known:
            continue
        own = cell.spec.judge
        if with_start and own.label not in judges:
            judges[own.label] = make("judge", own)
        for fraction, samples in cell.samples.groupby("fraction", sort=True):
            context = cell.context(samples, with_start=with_start, judge=judges.get(own.label))
            scores = score_samples([evaluator], context).replace({"metric": names})
            frames.append(scores.assign(id=cell.id, fraction=fraction))
    metrics = [replace(metric, name=names[metric.name]) for metric in evaluator.metrics]
    return _Work({"scores": stack(frames, SCORES)}, metrics)


def _judge(
    judge: Judge, spec: PluginSpec, cells: Sequence[StoredCell], earlier: Mapping[str, pd.DataFrame], known: set[str]
) -> _Work:
    """All comparisons of final samples. Those that had no valid verdict are asked again: an endpoint may be back."""
    old = earlier["verdicts"]
    old = old[old["a"].isin(known) & (old["b"].isin(known) | (old["b"] == ""))]
    # What a run's own judge thinks of a cell and its start is measured already.
    with_start = {cell.id for cell in cells if identity("judge", cell.spec.judge) != identity("judge", spec)}
    played = play(judge, cells, Tournament(old, earlier["canaries"]), with_start)
    if played.asked and played.asked == played.invalid:
        facts = "; ".join(f"{key}: {value}" for key, value in judge.facts.items())
        raise PluginError(f"judge '{spec.label}' gave no valid verdict{f' ({facts})' if facts else ''}.")
    won = played.verdicts[(played.verdicts["b"] == "") & played.verdicts["value"].notna()]
    metric = Metric(
        f"win_rate@{spec.label}",
        "share of comparisons",
        "higher",
        f"Judge {spec.label}, against the sample where training started: 1 for a win, 0.5 for a tie, 0 for a loss.",
        0.0,
        1.0,
    )
    scores = won.rename(columns={"a": "id"}).assign(fraction=1.0, metric=metric.name)[SCORES]
    frames = {"scores": scores, "verdicts": played.verdicts, "canaries": played.canaries}
    return _Work(frames, [metric] if len(scores) else [], played.asked, played.invalid, judge.facts)
