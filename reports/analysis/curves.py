"""A metric along training: what each algorithm had reached when it had spent how much."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from ..frame import CURRENCIES
from ..statistics import Estimate
from .grids import means_by_seed

if TYPE_CHECKING:
    from .section import Section


@dataclass(frozen=True)
class Point:
    """One algorithm at one evaluation along training, over its seeds."""

    fraction: float
    estimate: Estimate
    by_seed: dict[int, float]
    spent: dict[str, float]
    """Mean over seeds of each currency of the ledger."""
    spent_by_seed: dict[int, dict[str, float]] = field(default_factory=dict)


def of(section: Section, algorithm: str, metric: str) -> list[Point]:
    """``Section.curve``."""
    probes = range(section.probe_count(algorithm))
    grids = [section.on_curve(section.grid(algorithm, metric, probe)) for probe in probes]
    if not grids or any(not grid.size for grid in grids):
        return []
    points = [
        _point(section, grid, metric, section.spent(algorithm, probe))
        for probe, grid in zip(probes, grids, strict=True)
    ]
    starts = algorithm != section.baseline and algorithm not in section.idle
    if section.baseline and starts and points[0].fraction > 0:
        start = section.on_curve(section.grid(section.baseline, metric))
        if start.size:
            points.insert(0, _point(section, start, metric, None))
    return points


def _point(section: Section, grid: pd.DataFrame, metric: str, spent: pd.DataFrame | None) -> Point:
    by_seed = means_by_seed(grid)
    if spent is None:
        nothing = dict.fromkeys(CURRENCIES, 0.0)
        return Point(0.0, section.two_way(grid, metric), by_seed, nothing, {seed: nothing for seed in by_seed})
    costs = spent[list(CURRENCIES)]
    spent_by_seed = {int(seed): dict(zip(CURRENCIES, row, strict=True)) for seed, *row in costs.itertuples()}
    mean = {name: float(costs[name].mean()) for name in CURRENCIES}
    return Point(float(spent["fraction"].mean()), section.two_way(grid, metric), by_seed, mean, spent_by_seed)
