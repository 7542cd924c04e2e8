"""A run folder as frames: the one reader that every report, chart and notebook stands on.

Nothing is read before it is asked for, nothing is guessed: a file that is missing, malformed or of
another schema version is a ``StoreError`` that names it. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bakeoff.contracts import Metric
from bakeoff.errors import StoreError

from .lock import LOCKED_OUT, locked_out
from .scored import scorings

SCHEMA_VERSION = 1
CURRENCIES = ("steps", "prompts", "tokens_trained", "tokens_generated", "tokens_scored", "flops", "seconds")
"""What a ledger counts. ``seconds`` and ``flops`` are floats, the rest whole numbers."""
IDENTITY = ["id", "model", "task", "budget", "algorithm", "algorithm_name", "title", "seed", "status"]
"""The columns of a cell that every other frame repeats."""
SCORE_COLUMNS = ["prompt_id", "sample", "fraction", "metric", "value"]
SAMPLE_COLUMNS = [
    *("prompt_id", "sample", "fraction", "prompt", "completion", "n_tokens", "ended_eos", "truncated"),
]
LOGP_COLUMNS = ["logp", "reference_logp", "kl"]
"""Of samples too, sums over a completion's tokens in nats; only where an evaluator needed log-probabilities."""


class Primary(NamedTuple):
    """The metric that decides, and, when it is not the one that the plan names, why."""

    name: str
    note: str


@dataclass(eq=False)
class Results:
    """The results of one run, finished or not.

    ``Results.read(folder)`` checks the plan; all else is read when first asked for and then kept.
    """

    folder: Path
    plan: dict[str, Any]
    """plan.json: name, created, command, primary_metric, matrix, cells."""
    mixed: bool = False
    """Whether cells that differ in what must be equal are compared all the same; see ``lock``."""
    memo: dict[str, Any] = field(default_factory=dict, repr=False)
    """What reports computed from this run and share with each other; goes when the run's results go."""

    @classmethod
    def read(cls, folder: Path, *, mixed: bool = False) -> Results:
        """Open the run in ``folder``. Raises ``StoreError`` when it is not a run of this schema version."""
        folder = Path(folder)
        if not (folder / "plan.json").is_file():
            raise StoreError(
                f"{folder} is not a run: it has no plan.json.",
                fix="Name a folder that `bakeoff run` wrote, e.g. runs/quickstart.",
            )
        plan = _read_json(folder / "plan.json")
        for key in ("name", "primary_metric", "cells"):
            if key not in plan:
                raise StoreError(f"{folder / 'plan.json'} has no {key!r}.", fix="Run the matrix again.")
        return cls(folder, plan, mixed)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """environment.json: python, platform, cpu, gpu, packages, git, command."""
        return _read_json(self.folder / "environment.json")

    def environment_or(self, otherwise: dict[str, Any]) -> dict[str, Any]:
        """``environment``, or ``otherwise`` where the run has none that can be read."""
        try:
            return self.environment
        except StoreError:
            return otherwise

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row a planned cell, in the plan's order.

        Columns: ``IDENTITY``; ``reason`` (one line, empty when ok); ``settings`` (JSON); ``spent_<currency>``;
        ``peak_bytes``; ``wall_s``; ``trainable_policy`` and ``trainable_auxiliary`` (parameters);
        ``overshoot`` (largest share over a limit); ``shared_flops`` and ``shared_seconds`` (stages that the
        cell used, charged to it alone); ``amortised_flops`` and ``amortised_seconds`` (the same, split evenly
        among the cells of the run that used them). Numbers are NaN where the cell did not get that far.
        """
        users: dict[str, int] = {}
        for ledger in self._ledgers.values():
            for stage in {share["stage"] for share in ledger["shared"]}:
                users[stage] = users.get(stage, 0) + 1
        return pd.DataFrame([self._row(cell, users) for cell in self.plan["cells"]], columns=_cell_columns())

    def frame(self) -> pd.DataFrame:
        """All scores, long and tidy: the columns of ``IDENTITY`` and ``SCORE_COLUMNS``.

        One row a (cell, prompt, sample, fraction, metric); ``fraction`` is the share of the budget spent
        when the sample was drawn, 1.0 at the end. Cells without scores have no row; ``cells`` lists them.
        """
        return self.scores.copy()

    def samples(self, ids: Iterable[str] | None = None, *, final: bool = True) -> pd.DataFrame:
        """The sampled texts of the cells ``ids`` (all), ``final`` ones only or those of every probe.

        Columns: ``IDENTITY``, ``SAMPLE_COLUMNS`` and, NaN where nobody measured them, ``LOGP_COLUMNS``. The text is
        the model's own: treat it as hostile.
        """
        wanted = self._present("samples.parquet", ids)
        columns = [*SAMPLE_COLUMNS, *LOGP_COLUMNS]
        files = [self._cell(i) / "samples.parquet" for i in wanted]
        frames = [_read_parquet(file, SAMPLE_COLUMNS).reindex(columns=columns) for file in files]
        samples = self._tag(wanted, frames, columns)
        return samples[samples["fraction"] == 1.0].reset_index(drop=True) if final else samples

    def probes(self) -> pd.DataFrame:
        """What had been spent at each evaluation: ``IDENTITY``, ``fraction`` and every currency."""
        columns = ["fraction", *CURRENCIES]
        frames = [pd.DataFrame(ledger["probes"], columns=columns) for ledger in self._ledgers.values()]
        return self._tag(list(self._ledgers), frames, columns)

    def training(self) -> pd.DataFrame:
        """What the trainers logged, wide: ``IDENTITY``, ``step``, ``fraction``, ``seconds``, a column a metric."""
        wanted = self._present("training.jsonl")
        frames = [pd.DataFrame(_read_jsonl(self._cell(i) / "training.jsonl")) for i in wanted]
        return self._tag(wanted, frames, ["step", "fraction", "seconds"])

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Declared metrics by name. Tasks may declare one name differently: see ``declared``."""
        return self.declared(self._records)

    def declared(self, ids: Iterable[str]) -> dict[str, Metric]:
        """The metrics that the cells ``ids`` declared; a name's first declaration wins."""
        fields = ("name", "unit", "direction", "description", "low", "high")
        metrics: dict[str, Metric] = {}
        for cell_id in ids:
            for metric in self._records.get(cell_id, {}).get("metrics", ()):
                metrics.setdefault(metric["name"], Metric(**{key: metric.get(key) for key in fields}))
        for scoring in scorings(self):
            for metric in scoring.metrics:
                metrics.setdefault(metric.name, metric)
        return metrics

    @property
    def primary(self) -> Primary:
        """The metric that decides over the whole run."""
        return self.primary_of(self.scores["metric"].unique())

    def primary_of(self, scored: Iterable[str]) -> Primary:
        """The plan's primary metric when it is among ``scored``, else the best stand-in, with a note."""
        planned, scored = self.plan["primary_metric"], list(scored)
        if planned in scored or not scored:
            return Primary(planned, "" if scored else "no cell has been scored yet")
        if "train_reward" in scored:
            return Primary("train_reward", f"proxy: this task has no {planned.replace('_', ' ')}")
        stand_in = next((name for name in scored if self._direction(name) != "none"), scored[0])
        return Primary(stand_in, f"stand-in: this task has neither {planned} nor train_reward")

    @cached_property
    def references(self) -> dict[str, dict[str, float]]:
        """By task label: named gold scores on the test rows, e.g. "best constant answer '7'"."""
        references: dict[str, dict[str, float]] = {}
        for cell in self.plan["cells"]:
            references.setdefault(cell["task"], {}).update(self.record(cell["id"]).get("references") or {})
        return references

    def record(self, cell_id: str) -> dict[str, Any]:
        """cell.json of a cell, or {} where it wrote none."""
        return self._records.get(cell_id, {})

    def parity(self) -> list[tuple[str, dict[str, list[str]]]]:
        """What differs between cells of one model, task and budget that should be equal, and are compared.

        A list of (field, {value: [cell ids]}), empty unless cells are ``mixed``. A field that a cell
        did not record is not compared.
        """
        groups: dict[tuple[str, str, str, str], dict[str, list[str]]] = {}
        for cell in self.plan["cells"]:
            if cell["id"] in self._locked_out:
                continue
            for name, value in (self.record(cell["id"]).get("parity") or {}).items():
                if value is not None:
                    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
                    key = (cell["model"], cell["task"], cell["budget"], name)
                    groups.setdefault(key, {}).setdefault(text, []).append(cell["id"])
        return [(key[3], values) for key, values in groups.items() if len(values) > 1]

    # ------------------------------------------------------------------------------- reading

    def _cell(self, cell_id: str) -> Path:
        return self.folder / "cells" / cell_id

    def _present(self, file: str, ids: Iterable[str] | None = None) -> list[str]:
        wanted = [cell["id"] for cell in self.plan["cells"]] if ids is None else list(ids)
        return [cell_id for cell_id in wanted if (self._cell(cell_id) / file).is_file()]

    @cached_property
    def _records(self) -> dict[str, dict[str, Any]]:
        return {i: _read_json(self._cell(i) / "cell.json") for i in self._present("cell.json")}

    @cached_property
    def _ledgers(self) -> dict[str, dict[str, Any]]:
        ledgers = {}
        for cell_id in self._present("ledger.json"):
            path = self._cell(cell_id) / "ledger.json"
            ledgers[cell_id] = ledger = _read_json(path)
            if missing := {"spent", "shared", "probes", "trainable"} - set(ledger):
                raise StoreError(f"{path} has no {sorted(missing)}.", fix=_rerun(path))
        return ledgers

    @cached_property
    def scores(self) -> pd.DataFrame:
        """``frame()`` without the copy: read it, do not change it."""
        wanted = self._present("scores.parquet")
        frames = []
        for cell_id in wanted:
            path = self._cell(cell_id) / "scores.parquet"
            frames.append(_read_parquet(path, SCORE_COLUMNS)[SCORE_COLUMNS])
            if frames[-1].duplicated(SCORE_COLUMNS[:-1]).any():
                raise StoreError(f"{path} scores a sample twice by one metric.", fix=_rerun(path))
            later = [scoring.scores[scoring.scores["id"] == cell_id] for scoring in scorings(self)]
            frames[-1] = pd.concat([frames[-1], *(rows[SCORE_COLUMNS] for rows in later if len(rows))])
        return self._tag(wanted, frames, SCORE_COLUMNS)

    def _tag(self, ids: list[str], frames: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
        """``frames`` one below the other, each with the identity of its cell in front."""
        kept = [frame.assign(id=cell_id) for cell_id, frame in zip(ids, frames, strict=True) if len(frame)]
        if not kept:
            return pd.DataFrame(columns=[*IDENTITY, *columns])
        return self.cells[IDENTITY].merge(pd.concat(kept, ignore_index=True), on="id", how="inner")

    @cached_property
    def _locked_out(self) -> dict[str, str]:
        """Why the parity lock leaves a cell out, by its id."""
        return {} if self.mixed else locked_out(self.plan["cells"], self._records)

    def _direction(self, metric: str) -> str:
        return self.metrics[metric].direction if metric in self.metrics else "none"

    def _row(self, cell: dict[str, Any], users: dict[str, int]) -> dict[str, Any]:
        record, ledger = self._records.get(cell["id"], {}), self._ledgers.get(cell["id"])
        status, reason, wall_s = self._status(cell)
        if status == "ok" and cell["id"] in self._locked_out:
            status, reason = LOCKED_OUT, self._locked_out[cell["id"]]
        row = {key: cell[key] for key in IDENTITY if key != "status"}
        row |= {"status": status, "reason": reason, "wall_s": wall_s}
        row["settings"] = json.dumps(record.get("settings", {}), sort_keys=True)
        if ledger is None:
            return row
        row |= {f"spent_{name}": ledger["spent"].get(name, 0) for name in CURRENCIES}
        row |= {f"trainable_{kind}": ledger["trainable"].get(kind, 0) for kind in ("policy", "auxiliary")}
        row["peak_bytes"] = ledger.get("peak_bytes")
        row["overshoot"] = max((ledger.get("overshoot") or {}).values(), default=0.0)
        for name in ("flops", "seconds"):
            costs = {share["stage"]: share.get(name, 0) for share in ledger["shared"]}
            row[f"shared_{name}"] = sum(costs.values())
            row[f"amortised_{name}"] = sum(cost / users[stage] for stage, cost in costs.items())
        return row

    def _status(self, cell: dict[str, Any]) -> tuple[str, str, float]:
        """(status, reason, wall-clock seconds) of a planned cell."""
        folder, partial = self._cell(cell["id"]), self._cell(f"{cell['id']}.partial")
        if folder.is_dir():
            status = _read_json(folder / "status.json")
            wanted = ("cell.json", "ledger.json", "scores.parquet") if status["status"] == "ok" else ()
            for file in wanted:
                if not (folder / file).is_file():
                    raise StoreError(f"{folder} says ok but has no {file}.", fix=_rerun(folder / file))
            return status["status"], status.get("reason") or "", status.get("wall_s", np.nan)
        if cell.get("incompatible"):
            return "incompatible", cell["incompatible"], np.nan
        if not partial.is_dir():
            return "not_run", "not started", np.nan
        if not (partial / "progress.json").is_file():
            return "running", "starting", np.nan
        progress = _read_json(partial / "progress.json", versioned=False)
        return "running", f"{progress.get('phase')}, {progress.get('fraction') or 0:.0%} of the budget spent", np.nan


def _cell_columns() -> list[str]:
    ledger = ["peak_bytes", "wall_s", "trainable_policy", "trainable_auxiliary", "overshoot"]
    costs = ["shared_flops", "shared_seconds", "amortised_flops", "amortised_seconds"]
    return [*IDENTITY, "reason", "settings", *(f"spent_{name}" for name in CURRENCIES), *ledger, *costs]


def _rerun(path: Path) -> str:
    return f"Delete {path.parent} and run the matrix again: only what is missing is done."


def _read_json(path: Path, *, versioned: bool = True) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path} is missing.", fix=_rerun(path)) from None
    except ValueError as error:
        raise StoreError(f"{path} is not JSON: {error}.", fix=_rerun(path)) from None
    if not isinstance(content, dict):
        raise StoreError(f"{path} does not hold a JSON object.", fix=_rerun(path))
    if versioned and content.get("schema_version") != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {content.get('schema_version')!r}; this bakeoff reads {SCHEMA_VERSION}.",
            fix="Read the run with the bakeoff version that environment.json names, or run the matrix again.",
        )
    return content


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise StoreError(f"{path}:{number} is not JSON: {error}.", fix=_rerun(path)) from None
    return rows


def _read_parquet(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is not a Parquet file: {error}.", fix=_rerun(path)) from None
    if missing := [name for name in columns if name not in frame.columns]:
        raise StoreError(f"{path} has no column {', '.join(missing)}.", fix=_rerun(path))
    return frame
