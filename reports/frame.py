"""A run folder as frames: the one reader that every report, chart and notebook stands on.

Nothing is read before it is asked for, nothing is guessed: a file that is missing, malformed or of
another schema version is a ``StoreError`` that names it. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bakeoff import declaration
from bakeoff.contracts import Metric
from bakeoff.errors import StoreError

from .records.lock import LOCKED_OUT, locked_out
from .records.reading import read_columns, read_json, read_jsonl, rerun
from .records.scored import scorings
from .records.scores import SCORE_COLUMNS, CellScores

CURRENCIES = ("steps", "prompts", "tokens_trained", "tokens_generated", "tokens_scored", "flops", "seconds")
"""What a ledger counts. ``seconds`` and ``flops`` are floats, the rest whole numbers."""
IDENTITY = ["id", "model", "task", "budget", "algorithm", "algorithm_name", "title", "seed", "status"]
"""The columns of a cell that every other frame repeats."""
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
    """plan.json: name, created, command, declarations, matrix, cells."""
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
        plan = read_json(folder / "plan.json")
        for key in ("name", "declarations", "cells"):
            if key not in plan:
                raise StoreError(f"{folder / 'plan.json'} has no {key!r}.", fix="Run the matrix again.")
        return cls(folder, plan, mixed)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """environment.json: python, platform, cpu, gpu, packages, git, command."""
        return read_json(self.folder / "environment.json")

    def environment_or(self, otherwise: dict[str, Any]) -> dict[str, Any]:
        """``environment``, or ``otherwise`` where the run has none that can be read."""
        try:
            return self.environment
        except StoreError:
            return otherwise

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row a planned cell, in the plan's order.

        Columns: ``IDENTITY``; ``reason`` (one line, empty when ok); ``settings`` (JSON, empty before they are
        known); ``is_control``; ``kl_bound`` (nats a sequence, by a formula); ``spent_<currency>``; ``peak_bytes``;
        ``wall_s``; ``trainable_policy`` and ``trainable_auxiliary`` (parameters); ``overshoot`` (largest share over a
        limit); ``shared_flops`` and ``shared_seconds`` (stages that the cell used, charged to it alone);
        ``amortised_flops`` and ``amortised_seconds`` (the same, split evenly among the cells of the run that used
        them). Numbers are NaN where the cell did not get that far.
        """
        users: dict[str, int] = {}
        for cell in self.plan["cells"]:
            for stage in {share["stage"] for share in self._ledgers.get(cell["id"], {}).get("shared", ())}:
                users[stage] = users.get(stage, 0) + 1
        return pd.DataFrame([self._row(cell, users) for cell in self.plan["cells"]], columns=_cell_columns())

    @cached_property
    def retired(self) -> pd.DataFrame:
        """Cells that this run computed and that left its matrix, as in ``cells``. No estimate is over them."""
        entries = [entry | {"incompatible": None} for entry in self.plan.get("retired", ())]
        return pd.DataFrame([self._row(entry, {}) for entry in entries], columns=_cell_columns())

    def frame(self) -> pd.DataFrame:
        """All scores, long and tidy: the columns of ``IDENTITY`` and ``SCORE_COLUMNS``.

        One row a (cell, prompt, sample, fraction, metric); ``fraction`` is the share of the budget spent
        when the sample was drawn, 1.0 at the end. Cells without scores have no row; ``cells`` lists them.
        Estimates do not go through this frame but through ``scores``.
        """
        wanted = self._present("scores.parquet")
        frames = [self.scores(cell_id).frame() for cell_id in wanted]
        for name in ("prompt_id", "metric"):
            known = sorted(set().union(*(frame[name].cat.categories for frame in frames)))
            frames = [frame.assign(**{name: frame[name].cat.set_categories(known)}) for frame in frames]
        return self._tag(wanted, frames, SCORE_COLUMNS)

    def scores(self, cell_id: str) -> CellScores:
        """The scores of one cell as arrays. Raises ``StoreError`` where it has none."""
        if cell_id not in self._scores:
            later = [scoring.scores[scoring.scores["id"] == cell_id] for scoring in scorings(self)]
            own = CellScores.read(self._cell(cell_id) / "scores.parquet")
            self._scores[cell_id] = own.joined([rows for rows in later if len(rows)])
        return self._scores[cell_id]

    def samples(
        self,
        ids: Iterable[str] | None = None,
        *,
        final: bool = True,
        prompts: Collection[str] | None = None,
        columns: Collection[str] = (*SAMPLE_COLUMNS, *LOGP_COLUMNS),
    ) -> pd.DataFrame:
        """The sampled texts of the cells ``ids`` (all) for ``prompts`` (all), ``final`` ones or those of every probe.

        Columns: ``IDENTITY``, ``SAMPLE_COLUMNS`` and, NaN where nobody measured them, ``LOGP_COLUMNS``; or of those the
        ``columns`` and the keys ``prompt_id, sample, fraction``. Only what is asked for is read. The text is the
        model's own: treat it as hostile.
        """
        wanted = self._present("samples.parquet", ids)
        needed = [name for name in SAMPLE_COLUMNS if name in (*SAMPLE_COLUMNS[:3], *columns)]
        optional = [name for name in LOGP_COLUMNS if name in columns]
        kept: list[tuple[str, str, Any]] = [("fraction", "==", 1.0)] if final else []
        kept += [("prompt_id", "in", list(prompts))] if prompts is not None else []
        frames = []
        for cell_id in wanted:
            path = self._cell(cell_id) / "samples.parquet"
            table = read_columns(path, needed, optional=optional, filters=kept or None)
            frame = table.to_pandas().astype({"prompt_id": object})
            frames.append(frame.reindex(columns=[*needed, *optional]))
        return self._tag(wanted, frames, [*needed, *optional])

    def reference_pool(self, ids: Iterable[str]) -> pd.DataFrame | None:
        """Scored samples of where the cells ``ids`` start: ``prompt_id, sample`` and a column a reward.

        None where none were drawn, or the cells do not all start at the same place.
        """
        stages = {record["reference_pool"] for i in ids if (record := self.record(i)).get("reference_pool")}
        path = self.folder / "stages" / next(iter(stages), "") / "samples.parquet"
        if len(stages) != 1 or not path.is_file():
            return None
        rewards = ("gold_reward", "train_reward")
        return read_columns(path, ["prompt_id", "sample"], optional=rewards).to_pandas().astype({"prompt_id": object})

    def probes(self) -> pd.DataFrame:
        """What had been spent at each evaluation: ``IDENTITY``, ``fraction`` and every currency."""
        columns = ["fraction", *CURRENCIES]
        wanted = self._present("ledger.json")
        return self._tag(wanted, [pd.DataFrame(self._ledgers[i]["probes"], columns=columns) for i in wanted], columns)

    def stages(self) -> pd.DataFrame:
        """What each cell used of the stages that cells share: ``IDENTITY``, ``stage`` (its id), ``label``, ``flops``,
        ``seconds``. The cost is that of the stage, which was computed once."""
        columns = ["stage", "label", "flops", "seconds"]
        wanted = self._present("ledger.json")
        used = [pd.DataFrame(self._ledgers[i]["shared"], columns=[*columns, "kind"]) for i in wanted]
        frames = [frame.drop_duplicates("stage") for frame in used]
        frames = [frame.assign(label=frame["label"].astype(object).fillna(frame["kind"]))[columns] for frame in frames]
        return self._tag(wanted, frames, columns)

    def training(self) -> pd.DataFrame:
        """What the trainers logged, wide: ``IDENTITY``, ``step``, ``fraction``, ``seconds``, a column a metric."""
        wanted = self._present("training.jsonl")
        frames = [pd.DataFrame(read_jsonl(self._cell(i) / "training.jsonl")) for i in wanted]
        return self._tag(wanted, frames, ["step", "fraction", "seconds"])

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Declared metrics by name. Tasks may declare one name differently: see ``declared``."""
        return self.declared(cell["id"] for cell in self.plan["cells"])

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
    def declaration(self) -> dict[str, Any]:
        """What the run declared last: primary_metric, margin, family, seeds, prompts, hash; see bakeoff.declaration."""
        last: dict[str, Any] = self.plan["declarations"][-1]
        return last

    @cached_property
    def amendments(self) -> list[str]:
        """What was changed of the declaration after there were results to look at, a line each; empty when nothing."""
        return declaration.amendments(self.plan["declarations"])

    def primary_of(self, scored: Iterable[str]) -> Primary:
        """The plan's primary metric when it is among ``scored``, else the best stand-in, with a note."""
        planned, scored = self.declaration["primary_metric"], list(scored)
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

    @property
    def _known(self) -> list[str]:
        """Ids of planned and of retired cells."""
        return [cell["id"] for part in ("cells", "retired") for cell in self.plan.get(part, ())]

    @cached_property
    def _records(self) -> dict[str, dict[str, Any]]:
        known = self._present("cell.json", self._known)
        return {i: read_json(self._cell(i) / "cell.json") for i in known}

    @cached_property
    def _ledgers(self) -> dict[str, dict[str, Any]]:
        ledgers = {}
        for cell_id in self._present("ledger.json", self._known):
            path = self._cell(cell_id) / "ledger.json"
            ledgers[cell_id] = ledger = read_json(path)
            if missing := {"spent", "shared", "probes", "trainable"} - set(ledger):
                raise StoreError(f"{path} has no {sorted(missing)}.", fix=rerun(path))
        return ledgers

    @cached_property
    def _scores(self) -> dict[str, CellScores]:
        return {}

    def _tag(self, ids: list[str], frames: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
        """``frames`` one below the other, each with the identity of its cell in front."""
        lengths = [len(frame) for frame in frames]
        if not sum(lengths):
            return pd.DataFrame(columns=[*IDENTITY, *columns])
        place = {cell_id: row for row, cell_id in enumerate(self.cells["id"])}
        rows = np.repeat([place[cell_id] for cell_id in ids], lengths)
        # Categories: a few bytes a row, where text would take a hundred.
        tags = {name: pd.Categorical(self.cells[name], ordered=False)[rows] for name in IDENTITY}
        tags["seed"] = self.cells["seed"].to_numpy()[rows]
        joined = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
        return pd.concat([pd.DataFrame(tags), joined], axis="columns")

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
        row["settings"] = json.dumps(record["settings"], sort_keys=True) if "settings" in record else ""
        row |= {"is_control": record.get("is_control", False), "kl_bound": record.get("kl_bound")}
        if ledger is None:
            return row
        row |= {f"spent_{name}": ledger["spent"].get(name, 0) for name in CURRENCIES}
        row |= {f"trainable_{kind}": ledger["trainable"].get(kind, 0) for kind in ("policy", "auxiliary")}
        row["peak_bytes"] = ledger.get("peak_bytes")
        row["overshoot"] = max((ledger.get("overshoot") or {}).values(), default=0.0)
        for name in ("flops", "seconds"):
            costs = {share["stage"]: share.get(name, 0) for share in ledger["shared"]}
            row[f"shared_{name}"] = sum(costs.values())
            row[f"amortised_{name}"] = sum(cost / users.get(stage, 1) for stage, cost in costs.items())
        return row

    def _status(self, cell: dict[str, Any]) -> tuple[str, str, float]:
        """(status, reason, wall-clock seconds) of a planned cell."""
        folder, partial = self._cell(cell["id"]), self._cell(f"{cell['id']}.partial")
        if folder.is_dir():
            status = read_json(folder / "status.json")
            wanted = ("cell.json", "ledger.json", "scores.parquet") if status["status"] == "ok" else ()
            for file in wanted:
                if not (folder / file).is_file():
                    raise StoreError(f"{folder} says ok but has no {file}.", fix=rerun(folder / file))
            return status["status"], status.get("reason") or "", status.get("wall_s", np.nan)
        if cell.get("incompatible"):
            return "incompatible", cell["incompatible"], np.nan
        if not partial.is_dir():
            return "not_run", "not started", np.nan
        if not (partial / "progress.json").is_file():
            return "running", "starting", np.nan
        progress = read_json(partial / "progress.json", versioned=False)
        return "running", f"{progress.get('phase')}, {progress.get('fraction') or 0:.0%} of the budget spent", np.nan


def _cell_columns() -> list[str]:
    ledger = ["peak_bytes", "wall_s", "trainable_policy", "trainable_auxiliary", "overshoot"]
    costs = ["shared_flops", "shared_seconds", "amortised_flops", "amortised_seconds"]
    facts = ["reason", "settings", "is_control", "kl_bound"]
    return [*IDENTITY, *facts, *(f"spent_{name}" for name in CURRENCIES), *ledger, *costs]
