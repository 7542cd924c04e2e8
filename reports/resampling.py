"""Bootstrap intervals and permutation tests, for statistics without a formula for their error.

Every draw comes from the generator that is handed in, so equal seeds give equal numbers. Percentile intervals of
few seeds are too narrow (docs/statistics.md); where a mean is asked for, ``statistics.two_way`` is the better one.

Sources: A. B. Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1 (2007); Agarwal et al.,
"Deep Reinforcement Learning at the Edge of the Statistical Precipice" (arXiv:2108.13264), section 4;
Phipson & Smyth, "Permutation P-values Should Never Be Zero" (2010).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .statistics import LEVEL, Floats

DRAWS = 2_000
"""Bootstrap resamples: the Monte Carlo error of an end of an interval is then a few per cent of its width."""
PERMUTATIONS = 10_000
"""Rearrangements up to which a test goes through all of them."""


class Interval(NamedTuple):
    """A statistic of the data, and the percentile interval of its resamples."""

    value: float
    low: float
    high: float


def two_way_bootstrap(
    statistic: Callable[..., Any],
    *scores: Floats,
    rng: np.random.Generator,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> list[Interval]:
    """Intervals of ``statistic(*scores)`` with seeds and prompts both drawn anew, each with replacement.

    Each of ``scores`` is (K, P, ...) with the same K seeds and P prompts, which are drawn alike for all of them: so
    differences stay paired. The statistic gives one number or an array; one interval each, in its order.
    Anti-conservative below five seeds; with one seed the interval holds for that run alone.
    """
    arrays = [np.asarray(score, dtype=float) for score in scores]
    seeds, prompts = arrays[0].shape[:2]
    if any(array.shape[:2] != (seeds, prompts) for array in arrays):
        raise ValueError(f"need the same seeds and prompts, not shapes {[array.shape for array in arrays]}")

    def resample() -> list[Floats]:
        rows, columns = (np.asarray(rng.integers(count, size=count)) for count in (seeds, prompts))
        return [array[np.ix_(rows, columns)] for array in arrays]

    return _intervals(statistic(*arrays), (statistic(*resample()) for _ in range(draws)), level)


def stratified_bootstrap(
    statistic: Callable[[list[Floats]], Any],
    strata: Sequence[Floats],
    *,
    rng: np.random.Generator,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> list[Interval]:
    """Intervals of ``statistic(strata)`` with the runs of each stratum (a task, say) drawn anew within it.

    A stratum is (runs, ...), and may have another number of runs than the next. Tasks themselves are not drawn: the
    claim is about other runs on these tasks.
    """
    groups = [np.asarray(stratum, dtype=float) for stratum in strata]

    def resample() -> list[Floats]:
        return [group[rng.integers(len(group), size=len(group))] for group in groups]

    return _intervals(statistic(groups), (statistic(resample()) for _ in range(draws)), level)


def _intervals(value: Any, resampled: Iterator[Any], level: float) -> list[Interval]:
    tail = (1 - level) / 2
    ends = np.nanquantile(np.array([np.atleast_1d(one) for one in resampled]), [tail, 1 - tail], axis=0)
    return [Interval(*map(float, each)) for each in zip(np.atleast_1d(value), *ends, strict=True)]


def permutation_test(a: Floats, b: Floats, *, rng: np.random.Generator, permutations: int = PERMUTATIONS) -> float:
    """Two-sided p of equal means of two unpaired samples, e.g. the seeds' means of two algorithms.

    Goes through all splits when there are at most ``permutations``; else draws that many, and counts the observed one
    in, so that p is never 0. Three against three give 0.10 at best, five against five 0.008.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    pooled, first = np.concatenate([a, b]), len(a)
    if math.comb(len(pooled), first) <= permutations:
        chosen = np.array(list(itertools.combinations(range(len(pooled)), first)))
        sums = pooled[chosen].sum(axis=1)
        return _share_as_extreme(_gap(sums, pooled, first), abs(a.mean() - b.mean()))
    order = rng.permuted(np.tile(np.arange(len(pooled)), (permutations, 1)), axis=1)[:, :first]
    gaps = _gap(pooled[order].sum(axis=1), pooled, first)
    return _share_as_extreme(np.append(gaps, a.mean() - b.mean()), abs(a.mean() - b.mean()))


def _gap(sums: Floats, pooled: Floats, first: int) -> Floats:
    """Difference of the means of the two parts, from the sum of the first."""
    return np.asarray(sums / first - (pooled.sum() - sums) / (len(pooled) - first))


def sign_flip_test(differences: Floats, *, rng: np.random.Generator, permutations: int = PERMUTATIONS) -> float:
    """Two-sided p of differences, one a seed say, that are symmetric about 0: all 2^K signs, or that many drawn.

    Six differences are the fewest that can reach p < 0.05.
    """
    differences = np.asarray(differences, dtype=float)
    observed, count = abs(differences.mean()), len(differences)
    if 2**count <= permutations:
        signs = 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
        return _share_as_extreme(signs @ differences / count, observed)
    drawn = rng.choice([-1.0, 1.0], size=(permutations, count)) @ differences / count
    return _share_as_extreme(np.append(drawn, observed), observed)


def _share_as_extreme(rearranged: Floats, observed: float) -> float:
    # The slack keeps rearrangements that are equal in exact arithmetic from being lost to rounding.
    return float(np.mean(np.abs(rearranged) >= observed * (1 - 1e-12) - 1e-15))
