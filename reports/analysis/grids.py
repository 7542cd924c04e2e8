"""Scores of one algorithm as arrays: cubes (seeds, prompts, samples), and grids (seeds, prompts) of their means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..records.scores import CellScores
from ..statistics import Floats, wins


class Cube(NamedTuple):
    """Scores of one algorithm by one metric: values (seeds, prompts, samples), NaN where there is no score."""

    seeds: pd.Index
    prompts: pd.Index
    values: Floats


def cube(cells: Mapping[int, CellScores], metric: str, probe: int) -> Cube:
    """The scores of one algorithm's cells, by seed, at the ``probe``-th evaluation, or at the last (-1).

    Prompts and samples that any of the seeds lacks are left out.
    """
    cells = {seed: cell for seed, cell in cells.items() if metric in cell.metrics}
    # A cell that stopped short of an evaluation at 1 has no end to report.
    cells = {seed: cell for seed, cell in cells.items() if probe != -1 or cell.fractions[-1:] == [1.0]}
    if not cells:
        return Cube(pd.Index([], dtype=int), pd.Index([], dtype=object), np.zeros((0, 0, 0)))
    first, *rest = cells.values()
    prompts, samples = first.prompts, pd.Index(first.samples)
    for cell in rest:
        prompts = prompts if prompts.equals(cell.prompts) else prompts.intersection(cell.prompts)
        samples = samples.intersection(cell.samples)
    values = []
    for cell in cells.values():
        whole = cell.at(metric, probe)
        rows, columns = cell.prompts.get_indexer(prompts), pd.Index(cell.samples).get_indexer(samples)
        values.append(whole if whole.shape == (len(rows), len(columns)) else whole[np.ix_(rows, columns)])
    return Cube(pd.Index(cells), prompts, np.stack(values))


def grid(scores: Cube) -> pd.DataFrame:
    """Means over samples. Prompts that any of the seeds has no finite score for are left out."""
    known = np.isfinite(scores.values)
    counts = known.sum(axis=2)
    totals = np.where(known, scores.values, 0.0).sum(axis=2)
    whole = (counts > 0).all(axis=0)
    means = totals[:, whole] / np.maximum(counts[:, whole], 1)
    return pd.DataFrame(means, index=scores.seeds, columns=scores.prompts[whole])


def outcomes(a: Cube, b: Cube, sign: float) -> pd.DataFrame:
    """P(a sample of ``a`` beats one of ``b``), ties half, (seeds, prompts) of both; ``sign`` -1: lower is better.

    Prompts that any of the seeds has no score for are left out.
    """
    seeds, prompts = a.seeds.intersection(b.seeds), a.prompts.intersection(b.prompts)
    if not len(seeds) or not len(prompts):
        return pd.DataFrame(index=seeds, columns=prompts, dtype=float)
    mine, other = (
        sign * each.values[np.ix_(each.seeds.get_indexer(seeds), each.prompts.get_indexer(prompts))] for each in (a, b)
    )
    known = np.all(np.isfinite(mine).any(axis=2) & np.isfinite(other).any(axis=2), axis=0)
    return pd.DataFrame(wins(mine[:, known], other[:, known]), index=seeds, columns=prompts[known])


def align(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both on the seeds and prompts that they share, in one order."""
    seeds, prompts = a.index.intersection(b.index), a.columns.intersection(b.columns)
    return a.loc[seeds, prompts], b.loc[seeds, prompts]


def means_by_seed(grid: pd.DataFrame) -> dict[int, float]:
    """The mean over prompts of each seed."""
    return {int(seed): float(mean) for seed, mean in zip(grid.index, grid.mean(axis=1), strict=True)}
