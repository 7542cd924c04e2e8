"""Score grids, (seeds, prompts) frames, brought on common seeds and prompts."""

from __future__ import annotations

import pandas as pd


def align(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both on the seeds and prompts that they share, in one order."""
    seeds, prompts = a.index.intersection(b.index), a.columns.intersection(b.columns)
    return a.loc[seeds, prompts], b.loc[seeds, prompts]


def means_by_seed(grid: pd.DataFrame) -> dict[int, float]:
    """The mean over prompts of each seed."""
    return {int(seed): float(mean) for seed, mean in zip(grid.index, grid.mean(axis=1), strict=True)}
