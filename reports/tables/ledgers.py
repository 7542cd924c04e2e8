"""The tables of record: what was spent, what was tried, on which data, where, and how every planned cell ended."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pandas as pd

from bakeoff.errors import StoreError

from .. import formats
from ..analysis.grids import means_by_seed
from ..analysis.section import Section, sections
from ..frame import CURRENCIES, Results
from .data import facts
from .table import Column, Kind, Table


def tables_of(section: Section) -> list[Table]:
    """The ledgers of a section: budget, shared stages, tuning, and data where a cell got as far as that."""
    made = [ledger(section), *filter(None, [stages(section)]), tuning(section)]
    told = facts(section.results, section)
    return [*made, data(section, told)] if told else made


def tables_of_run(results: Results) -> list[Table]:
    """All cells, and where they ran."""
    return [runs(results), environment(results)]


def ledger(section: Section) -> Table:
    """What each algorithm spent in every currency, mean over seeds, and what its shared stages cost."""
    rows = []
    for name in section.algorithms:
        done = section.cells[(section.cells["algorithm"] == name) & (section.cells["status"] == "ok")]
        row: dict[str, Any] = {"algorithm": name, "seeds": len(done)}
        row |= {currency: done[f"spent_{currency}"].mean() for currency in CURRENCIES}
        shares = [row[currency] / limit for currency, limit in section.limits.items()]
        row["spent"] = max((share for share in shares if not np.isnan(share)), default=np.nan)
        row["overshoot"] = done["overshoot"].max()
        costs = ("shared_flops", "amortised_flops", "shared_seconds", "amortised_seconds")
        row |= {key: done[key].mean() for key in (*costs, "trainable_policy", "trainable_auxiliary")}
        for unit in ("flops", "seconds"):
            row[f"alone_{unit}"] = row[unit] + row[f"shared_{unit}"]
            row[f"split_{unit}"] = row[unit] + row[f"amortised_{unit}"]
        rows.append(row)
    kinds: dict[str, Kind] = {"flops": "si", "seconds": "duration"}
    currencies = [Column(name, formats.phrase(name), kinds.get(name, "si")) for name in CURRENCIES]
    columns = (
        Column("algorithm", "algorithm"),
        *currencies,
        Column("spent", "of budget", "share", help="largest share of a limit"),
        Column("overshoot", "overshoot", "share", help="worst seed; at most one step is allowed"),
        Column("shared_flops", "shared FLOPs", "si", help="stages that it needs, charged to it alone"),
        Column("amortised_flops", "… split", "si", help="the same, split evenly among the cells that used them"),
        Column("alone_flops", "FLOPs alone", "si", help="training and all its stages: what it costs by itself"),
        Column("split_flops", "FLOPs shared", "si", help="training and its part of the stages: what it cost this run"),
        Column("alone_seconds", "time alone", "duration"),
        Column("split_seconds", "time shared", "duration"),
        Column("trainable_policy", "policy params", "si"),
        Column("trainable_auxiliary", "auxiliary params", "si", help="a critic or another head that the policy needs"),
    )
    kinds_of_limit = [f"{formats.si(limit)} {formats.phrase(name)}" for name, limit in section.limits.items()]
    limits = f"Budget {section.budget}: {', '.join(kinds_of_limit) or 'unlimited'}"
    caption = f"{limits}; training stops at the first limit reached. Means over seeds that ended well."
    return Table("ledger", "Budget ledger", caption, pd.DataFrame(rows), columns)


def stages(section: Section) -> Table | None:
    """One row a stage that the section's cells used, in the order in which they did; None without any.

    Its cost is charged to each user in full ("alone") and split evenly among all users of the run.
    """
    used = section.stages
    if used.empty:
        return None
    users = section.results.stages()["stage"].value_counts()
    rows = []
    for stage, mine in used.groupby("stage", sort=False):
        seeds = sorted(set(mine["seed"]))
        rows.append(
            {"stage": stage, "label": mine["label"].iloc[0], "users": int(users[stage])}
            | {"algorithms": ", ".join(dict.fromkeys(mine["algorithm"])), "seeds": ", ".join(map(str, seeds))}
            | {unit: mine[unit].iloc[0] for unit in ("flops", "seconds")}
            | {f"split_{unit}": mine[unit].iloc[0] / users[stage] for unit in ("flops", "seconds")}
        )
    columns = (
        Column("label", "stage"),
        Column("flops", "FLOPs", "si", help="charged to each user when it is charged alone"),
        Column("split_flops", "FLOPs a user", "si", help="the same, split evenly among its users"),
        Column("seconds", "time", "duration"),
        Column("split_seconds", "time a user", "duration"),
        Column("users", "cells", "whole", help="of the whole run that used it"),
        Column("algorithms", "algorithms"),
        Column("seeds", "seeds"),
        Column("stage", "id"),
    )
    caption = "Each was computed once, by the first cell that needed it, within a budget of its own."
    return Table("stages", "Shared stages", caption, pd.DataFrame(rows), columns)


def tuning(section: Section) -> Table:
    """How many configurations of each algorithm were tried in this run, those that were dropped included."""
    rows = []
    retired = section.results.retired
    mine = (retired["model"] == section.model) & (retired["task"] == section.task)
    # A cell that failed before it wrote down its settings is no configuration of its own.
    kept, dropped = (
        frame[frame["settings"] != ""]
        for frame in (section.cells, retired[mine & (retired["budget"] == section.budget)])
    )
    for name in dict.fromkeys(kept["algorithm_name"]):
        shown, gone = (frame[frame["algorithm_name"] == name] for frame in (kept, dropped))
        configurations = set(shown["settings"]) | set(gone["settings"])
        rows.append(
            {"algorithm": name, "labels": ", ".join(dict.fromkeys(shown["algorithm"]))}
            | {"shown": shown["settings"].nunique(), "tried": len(configurations), "retired": len(gone)}
            | {"space": _hash("".join(sorted(configurations)))}
            | {"seconds": shown["spent_seconds"].sum(), "retired_seconds": gone["spent_seconds"].sum()}
        )
    columns = (
        Column("algorithm", "algorithm"),
        Column("labels", "rows in this report"),
        Column("shown", "configurations shown", "whole"),
        Column("tried", "tried in this run", "whole", help="those of cells that left the matrix included"),
        Column("retired", "retired cells", "whole", help="a setting changed after they had run; they are not reported"),
        Column("seconds", "training", "duration", help="all seeds of what is shown"),
        Column("retired_seconds", "in retired cells", "duration"),
        Column("space", "hash of the settings"),
    )
    declared = section.results.declaration
    caption = (
        f"Every algorithm is reported at its {declared['checkpoint']} checkpoint; none is chosen by its score. "
        f"Declared {declared['declared']} as {declared['hash']}, "
        + ("and not changed after there were results. " if not section.results.amendments else
           f"and changed since: {'; '.join(section.results.amendments)}. ")
        + "What was tried in other runs is not known to this report."
    )  # fmt: skip
    frame = pd.DataFrame(rows, columns=None if rows else [column.key for column in columns])
    return Table("tuning", "Tuning and selection", caption, frame, columns)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def data(section: Section, told: dict[str, Any]) -> Table:
    """Where the rows come from, how many there are, what was left out, and what training saw of the test prompts."""
    rows = [{"fact": formats.phrase(name), "value": str(value)} for name, value in told.items()]
    caption = "The same rows for every algorithm. Training and test rows share no prompt id; overlap is of their text."
    return Table("data", "Data", caption, pd.DataFrame(rows), (Column("fact", "fact"), Column("value", "value")))


def runs(results: Results) -> Table:
    """Every planned cell with its status, its final score, and, where it did not end well, the reason."""
    varied = [key for key in ("task", "model", "budget") if results.cells[key].nunique() > 1]
    means: dict[str, float] = {}
    for section in sections(results):
        for name in section.finished:
            scored = means_by_seed(section.grid(name, section.primary.name))
            cells = section.cells[section.cells["algorithm"] == name]
            means |= {cell: scored.get(seed, np.nan) for cell, seed in zip(cells["id"], cells["seed"], strict=True)}
    frame = results.cells.assign(
        primary=results.cells["id"].map(means).astype(float),
        settings_hash=results.cells["settings"].map(lambda text: _hash(text) if text else ""),
        log=[f"cells/{cell}/log.txt" for cell in results.cells["id"]],
    )
    columns = (
        Column("algorithm", "algorithm"),
        *(Column(key, key) for key in varied),
        Column("seed", "seed", "whole"),
        Column("status", "status", "status"),
        Column("primary", "final score", "number", help="mean of the primary metric over its prompts"),
        Column("reason", "reason"),
        Column("spent_steps", "steps", "whole"),
        Column("spent_seconds", "training", "duration"),
        Column("wall_s", "wall clock", "duration", help="set-up, probes and evaluation included"),
        Column("settings_hash", "settings", help="hash of the algorithm's settings"),
        Column("id", "cell"),
    )
    counts = frame["status"].value_counts()
    caption = f"{len(frame)} cells planned: " + ", ".join(f"{n} {status}" for status, n in counts.items()) + "."
    return Table("runs", "All runs", caption, frame, columns)


def environment(results: Results) -> Table:
    """Versions, hardware, commit and command: what it takes to run this again."""
    try:
        found = results.environment
    except StoreError as error:
        found = {"missing": str(error)}
    rows = []
    for name, value in found.items():
        if name == "schema_version":
            continue
        inner = value.items() if isinstance(value, dict) else [("", value)]
        rows += [{"item": f"{name} {key}".strip(), "value": _told(each)} for key, each in inner]
    columns = (Column("item", "item"), Column("value", "value"))
    return Table("environment", "Environment", "As recorded when the run last started.", pd.DataFrame(rows), columns)


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
