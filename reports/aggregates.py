"""One number for several tasks: interquartile mean, probability of improvement, performance profiles.

The quantities of Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(arXiv:2108.13264), section 4, on a list of strata: one array of run scores a task, (runs,). Their intervals come from
``resampling.stratified_bootstrap``. Scores of several tasks have to be on one scale before they are pooled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from .statistics import Floats


def iqm(tasks: Sequence[Floats]) -> float:
    """Interquartile mean over all runs of all tasks: the mean without the lowest and the highest quarter."""
    return float(stats.trim_mean(_pooled(tasks), 0.25))


def optimality_gap(tasks: Sequence[Floats], target: float = 1.0) -> float:
    """How far runs fall short of ``target`` on average; what exceeds it does not make up for what misses it."""
    return float(np.mean(np.maximum(target - _pooled(tasks), 0.0)))


def probability_of_improvement(a: Sequence[Floats], b: Sequence[Floats]) -> float:
    """P(a run of ``a`` beats one of ``b`` on the same task), ties half, mean over tasks: Mann-Whitney's U / (n m)."""
    if len(a) != len(b):
        raise ValueError(f"need the same tasks, not {len(a)} and {len(b)}")
    return float(np.mean([np.mean(0.5 + 0.5 * np.sign(x[:, None] - y[None, :])) for x, y in zip(a, b, strict=True)]))


def performance_profile(tasks: Sequence[Floats], thresholds: Floats) -> Floats:
    """Share of runs that score above each threshold, (T,), averaged over tasks: a run-score distribution."""
    above = [(np.asarray(task)[:, None] > np.asarray(thresholds)[None, :]).mean(axis=0) for task in tasks]
    return np.asarray(np.mean(above, axis=0), dtype=float)


def _pooled(tasks: Sequence[Floats]) -> Floats:
    return np.concatenate([np.ravel(np.asarray(task, dtype=float)) for task in tasks])
