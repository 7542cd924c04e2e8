"""The tables that question a result: over-optimisation, slices, health, and what needs no training at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from .. import formats
from ..analysis.frontier import kl_floor
from ..analysis.grids import align
from ..analysis.section import Section
from ..statistics import paired_difference
from .table import Column, Kind, Table, spread

HEALTH = ("ended_eos", "truncated", "length_tokens", "distinct_2", "unique")
LOGGED = ("grad_norm", "grad_norm_policy", "clip_fraction", "entropy", "approx_kl")
"""Of what trainers log: shown where they do, as the mean over the last tenth of training."""
THIRDS = ("low", "middle", "high")


def tables_of(section: Section) -> list[Table]:
    """Those for which the section has data."""
    made = (over_optimisation(section), slices(section), health(section), controls(section))
    return [table for table in made if table is not None]


def over_optimisation(section: Section) -> Table | None:
    """Training reward and gold reward at the end, the KL at which gold was best, and what was lost after."""
    rows = []
    for name, found in section.overoptimised.items():
        fit = found.fit
        rows.append(
            {"algorithm": name, "proxy": found.proxy[-1], "gold": found.gold[-1], "kl": found.kl[-1]}
            | {"peak_gold": found.gold[found.peak], "peak_kl": found.kl[found.peak], "drop": found.drop}
            | {"a": fit.a if fit else np.nan, "b": fit.b if fit else np.nan}
            | {"kl_at_fitted_peak": fit.d_peak**2 if fit else np.nan, "r_squared": fit.r_squared if fit else np.nan}
        )
    if not rows:
        return None
    columns = (
        Column("algorithm", "algorithm"),
        Column("proxy", "training reward", "number"),
        Column("gold", "gold reward", "number"),
        Column("kl", "KL", "number"),
        Column("peak_gold", "best gold", "number", help="of all evaluations along training"),
        Column("peak_kl", "at KL", "number"),
        Column("drop", "lost since", "number", help="best gold reward less the last"),
        Column("a", "a", "number"),
        Column("b", "b", "number"),
        Column("kl_at_fitted_peak", "fitted peak at KL", "number", help="exp(a/b - 1)², where the fit turns"),
        Column("r_squared", "R²", "number", help="of the fit; three evaluations leave it one degree of freedom"),
    )
    caption = (
        "Means over seeds on the prompts of the learning curves. Fit: gold gain = d (a − b log d), d = √KL "
        "(arXiv:2210.10760, eq. 1), over the evaluations after the start."
    )
    return Table("over-optimisation", "Over-optimisation", caption, pd.DataFrame(rows), columns)


def slices(section: Section) -> Table | None:
    """The gain over the baseline by prompt length and by difficulty: a mean can hide a loss."""
    if section.baseline is None:
        return None
    rows = []
    for kind, parts in _partitions(section):
        for part, prompts in parts.items():
            for name in section.trained:
                pair = align(*(section.grid(each, section.primary.name) for each in (name, section.baseline)))
                inside = pair[0].columns.intersection(prompts)
                if len(inside) < 2:
                    continue
                found = paired_difference(*(grid[inside].to_numpy() for grid in pair))
                whole = section.effects[name].difference.mean if name in section.effects else 0.0
                against = found.mean * whole < 0 and (found.low > 0 or found.high < 0)
                rows.append(
                    {"slice": f"{kind}: {part}", "algorithm": name, "prompts": len(inside)}
                    | spread("difference", found)
                    | {"note": "against the overall gain" if against else ""}
                )
    if not rows:
        return None
    columns = (
        Column("slice", "prompts"),
        Column("algorithm", "algorithm"),
        Column("prompts", "n", "whole"),
        Column("difference", f"Δ {section.baseline}", "signed", True),
        Column("note", "note"),
    )
    caption = (
        "Paired gains in thirds of the held-out prompts. Exploratory: intervals are not adjusted. Difficulty is how "
        "the reference's own samples score, from the pool and not from the samples that are compared."
    )
    return Table("slices", "Slices", caption, pd.DataFrame(rows), columns)


def _partitions(section: Section) -> Iterator[tuple[str, dict[str, pd.Index]]]:
    """Thirds of the prompts by what is known of them before training."""
    cells = section.cells[section.cells["status"] == "ok"]
    texts = section.results.samples(cells["id"].iloc[:1], columns=("prompt",)) if len(cells) else pd.DataFrame()
    if len(texts):
        lengths = texts.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"].map(lambda text: len(str(text)))
        yield from _thirds("prompt length", lengths)
    pool, metric = section.results.reference_pool(section.cells["id"]), section.primary.name
    if pool is not None and metric in pool.columns:
        yield from _thirds(
            "difficulty", -section.direction(metric) * pool.groupby("prompt_id", observed=True)[metric].mean()
        )


def _thirds(kind: str, values: pd.Series[Any]) -> Iterator[tuple[str, dict[str, pd.Index]]]:
    """Three parts of equal size by rank; nothing where the values do not differ."""
    if values.nunique() < 3:
        return
    third = (values.rank(method="first") - 1) * 3 // len(values)
    yield kind, {name: values.index[third == number] for number, name in enumerate(THIRDS)}


def health(section: Section) -> Table | None:
    """Signs of a degenerate policy, and of unwell training."""
    metrics = [name for name in HEALTH if name in section.metrics]
    logged = _logged(section)
    if not metrics and logged.empty:
        return None
    rows = []
    for name in section.ranked:
        row: dict[str, Any] = {"algorithm": name}
        for metric in metrics:
            row |= spread(metric, section.estimate(name, metric))
        row |= {key: logged.at[name, key] if name in logged.index else np.nan for key in logged.columns}
        rows.append(row)
    columns = [Column("algorithm", "algorithm")]
    for metric in metrics:
        kind: Kind = "number" if metric == "length_tokens" else "percent"
        columns.append(Column(metric, formats.phrase(metric), kind, True, section.metrics[metric].description))
    columns += [Column(key, formats.phrase(key), "number", help="logged by the trainer") for key in logged.columns]
    floor = kl_floor(section)
    caption = "Samples at the end of training; trainers' own logs as means over the last tenth of it."
    if floor is not None:
        caption += f" KL floor: the untrained policy measures {floor.mean:.2g} nats; less than that is arithmetic."
    frame = pd.DataFrame(rows, columns=None if rows else ["algorithm"])
    return Table("health", "Health", caption, frame, tuple(columns))


def _logged(section: Section) -> pd.DataFrame:
    """What trainers logged at the end, a row an algorithm, mean over seeds; only columns that somebody logs."""
    log = section.results.training()
    mine = log["id"].isin(section.cells["id"]) & (log["fraction"].astype(float) >= 0.9) & (log["status"] == "ok")
    columns = [name for name in LOGGED if name in log.columns]
    found = log[mine].assign(algorithm=log["algorithm"].astype(str)).groupby("algorithm")[columns].mean()
    return found.dropna(axis="columns", how="all")


def controls(section: Section) -> Table | None:
    """What needs no training: the untrained policy, the best of n of its samples, and the task's constant answers."""
    rows: list[dict[str, Any]] = []
    if section.baseline is not None:
        rows.append({"control": section.baseline, "kl": 0.0, "cost": 1.0}
                    | spread("score", section.estimate(section.baseline, section.primary.name)))  # fmt: skip
    if section.frontier is not None:
        pool = section.frontier.best_of_n
        for n, kl, reward in zip(*pool, strict=True):
            if n > 1 and float(np.log2(n)).is_integer():
                rows.append({"control": f"best of {n:.0f}", "kl": kl, "cost": n, "score": reward})
    references = section.results.references.get(section.task, {})
    rows += [{"control": name, "score": score} for name, score in references.items()]
    if len(rows) < 2:
        return None
    columns = (
        Column("control", "control"),
        Column("score", formats.phrase(section.primary.name), "number", True),
        Column("kl", "KL", "number", help="of best of n: log n − (n − 1)/n at most"),
        Column("cost", "× inference", "whole", help="samples drawn for each answer"),
    )
    frame = pd.DataFrame(rows).reindex(columns=["control", "score", "score_low", "score_high", "kl", "cost"])
    caption = (
        "Scores on the same test rows that need no learning: a policy below them has learnt nothing worth its cost."
    )
    return Table("controls", "Without training", caption, frame, columns)
