"""Several tasks under one model and budget in one table: what holds beyond a single data set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..aggregates import iqm, optimality_gap, probability_of_improvement
from ..analysis.section import Section, sections
from ..frame import Results
from ..resampling import stratified_bootstrap
from ..statistics import Floats
from .table import ROLE, Column, Table, bounds

SEED = 0
DRAWS = 1000


def tables_of_run(results: Results) -> list[Table]:
    """One table a model and budget that was run on two tasks or more, each with a base."""
    return [across(group, f"across-{number}") for number, group in enumerate(groups(results), 1) if len(group) > 1]


def groups(results: Results) -> list[list[Section]]:
    """The sections with a base, those of one model and budget together."""
    found: dict[tuple[str, str], list[Section]] = {}
    for section in sections(results):
        if section.baseline is not None:
            found.setdefault((section.model, section.budget), []).append(section)
    return list(found.values())


def across(group: list[Section], name: str) -> Table:
    """Probability of improvement over the base, and the interquartile mean of scores that are on one scale.

    That scale is the task's own: 0 is the start's mean reward, 1 that of the best of all samples in its pool.
    Contenders come first, the likeliest to improve at the top; controls stand below them.
    """
    shared = [label for label in group[0].trained if all(label in section.trained for section in group)]
    controls = frozenset().union(*(section.controls for section in group))
    rows = [_row(group, label) | {"role": "control" if label in controls else "contender"} for label in shared]
    rows.sort(key=lambda row: (row["role"] == "control", -row["improvement"]))
    columns = [
        Column("algorithm", "algorithm"),
        *([Column("role", "role", help=ROLE)] if controls.intersection(shared) else []),
        Column("improvement", "P(improves on base)", "percent", True, "a run beats one of base on the same task"),
    ]
    if all(section.frontier is not None for section in group):
        columns += [
            Column("iqm", "IQM", "number", True, "interquartile mean over runs and tasks; 1 is as good as best of n"),
            Column("gap", "optimality gap", "number", True, "how far runs fall short of 1, on average"),
        ]
    tasks = ", ".join(section.task for section in group)
    caption = (
        f"Over {len(group)} tasks: {tasks}. 95% stratified bootstrap intervals (arXiv:2108.13264): runs are drawn anew "
        "within each task, so the claim is about other runs on these tasks. Too narrow below five seeds."
    )
    title = f"Across tasks: {group[0].model}, {group[0].budget}"
    return Table(name, title, caption, pd.DataFrame(rows, columns=None if rows else ["algorithm"]), tuple(columns))


def _row(group: list[Section], label: str) -> dict[str, Any]:
    runs, starts = ([run_means(section, each(section)) for section in group] for each in (lambda _: label, _baseline))
    pairs = [*runs, *starts]
    tasks = len(group)
    improvement = stratified_bootstrap(
        lambda drawn: probability_of_improvement(drawn[:tasks], drawn[tasks:]), pairs, rng=_rng(), draws=DRAWS
    )[0]
    row: dict[str, Any] = {"algorithm": label} | bounds("improvement", improvement)
    scaled = [on_one_scale(section, values) for section, values in zip(group, runs, strict=True)]
    known = [task for task in scaled if task is not None]
    if len(known) == tasks:
        means, gaps = stratified_bootstrap(
            lambda drawn: np.array([iqm(drawn), optimality_gap(drawn)]), known, rng=_rng(), draws=DRAWS
        )
        row |= bounds("iqm", means) | bounds("gap", gaps)
    return row


def _baseline(section: Section) -> str:
    return str(section.baseline)


def run_means(section: Section, label: str) -> Floats:
    """The mean score of each seed, so that higher is better."""
    primary = section.primary.name
    return np.asarray(section.direction(primary) * section.grid(label, primary).mean(axis=1).to_numpy(), dtype=float)


def on_one_scale(section: Section, runs: Floats) -> Floats | None:
    """0 is the start's mean reward, 1 that of the best of all samples in the pool; None without one that says that."""
    if section.frontier is None:
        return None
    levels = section.direction(section.primary.name) * section.frontier.best_of_n.reward
    return np.asarray((runs - levels[0]) / (levels[-1] - levels[0])) if levels[-1] > levels[0] else None


def _rng() -> np.random.Generator:
    return np.random.default_rng(SEED)
