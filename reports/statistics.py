"""Intervals for a claim that must hold for other seeds and other prompts.

Pure functions on arrays. A score matrix has one row a training seed and one column a prompt,
(K, P); both are samples from what the claim is about, so both add to the error. Resampling prompts
alone understates the error of seed-sensitive algorithms many times over. ``make coverage`` measures how
often these intervals hold what they are after; docs/statistics.md has the table.

Sources: F. E. Satterthwaite, "An Approximate Distribution of Estimates of Variance Components",
Biometrics Bulletin 2 (1946); S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure",
Scandinavian Journal of Statistics 6 (1979); Searle, Casella & McCulloch, "Variance Components" (1992), ch. 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
LEVEL = 0.95
"""Confidence level of every interval in a report."""
ALPHA = 0.05
"""A verdict needs a Holm-adjusted p below this."""
POWER = 0.8
"""Of the test that says what could have been detected."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its error. ``low`` and ``high`` are NaN where there is no degree of freedom."""

    mean: float
    se: float
    df: float
    low: float
    high: float
    p: float
    """Two-sided p value of the mean against the null value that was asked for."""
    n_seeds: int
    n_prompts: int
    flag: str = ""
    """What narrows the claim: "conditional on this run", or empty."""

    @property
    def detectable(self) -> float:
        """The smallest true effect that this design sees with 80 % power; NaN without a degree of freedom."""
        return detectable_effect(self.se, self.df)

    def interval(self, level: float) -> tuple[float, float]:
        """The t interval of another confidence level, as in a test of equivalence. Not cut to any bound."""
        return _t_interval(self.mean, self.se, self.df, null=0.0, level=level)[:2]


class Components(NamedTuple):
    """Variances of one score y[k, p, m] = mean + seed[k] + prompt[p] + interaction[k, p] + noise[k, p, m].

    Var(mean) = seed/K + prompt/P + interaction/(K P) + noise/(K P M): what to buy next. ``noise`` is NaN with one
    sample a prompt, and then part of ``interaction``.
    """

    seed: float
    prompt: float
    interaction: float
    noise: float


def two_way(scores: Floats, *, null: float = 0.0, level: float = LEVEL) -> Estimate:
    """Mean of a (K seeds, P prompts) matrix with a two-way random-effects t interval.

    Model: y[k, p] = mean + seed[k] + prompt[p] + residual[k, p], all random. With the mean squares of the
    two-way layout, Var(mean) is estimated by

        SE² = (MS_seed + MS_prompt - MS_resid) / (K P),   at least MS_resid / (K P),
        df  = (MS_seed + MS_prompt - MS_resid)² / (MS_seed²/(K-1) + MS_prompt²/(P-1) + MS_resid²/((K-1)(P-1))),

    Satterthwaite's degrees of freedom, at least min(K, P) - 1; at the floor of SE² they are (K-1)(P-1).
    One seed leaves the prompts: an ordinary t interval, flagged "conditional on this run". One prompt leaves the seeds.
    ``null`` is the value that ``p`` tests. Raises ``ValueError`` when a score is not finite.
    """
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2 or scores.size == 0 or not np.isfinite(scores).all():
        raise ValueError(f"need a finite (seeds, prompts) matrix, not shape {scores.shape} with gaps")
    seeds, prompts = scores.shape
    mean = float(scores.mean())
    flag = "conditional on this run" if seeds == 1 else "conditional on this prompt" if prompts == 1 else ""
    if flag:
        df = float(scores.size - 1)
        se = float(scores.std(ddof=1) / np.sqrt(scores.size)) if df else float("nan")
    else:
        se, df = _error_of_squares(*mean_squares(scores), seeds, prompts)
    low, high, p = _t_interval(mean, se, df, null=null, level=level)
    return Estimate(mean, se, df, low, high, p, seeds, prompts, flag)


def mean_squares(scores: Floats) -> tuple[float, float, float]:
    """(MS_seed, MS_prompt, MS_resid) of a (K, P) matrix, or of each of a stack (..., K, P) of them; K, P >= 2."""
    seeds, prompts = scores.shape[-2:]
    mean = scores.mean(axis=(-2, -1), keepdims=True)
    by_seed, by_prompt = scores.mean(axis=-1, keepdims=True), scores.mean(axis=-2, keepdims=True)
    ms_seed = prompts * np.square(by_seed - mean).sum(axis=(-2, -1)) / (seeds - 1)
    ms_prompt = seeds * np.square(by_prompt - mean).sum(axis=(-2, -1)) / (prompts - 1)
    resid = np.square(scores - by_seed - by_prompt + mean).sum(axis=(-2, -1)) / ((seeds - 1) * (prompts - 1))
    return ms_seed, ms_prompt, resid


def _error_of_squares(
    ms_seed: float, ms_prompt: float, ms_resid: float, seeds: int, prompts: int
) -> tuple[float, float]:
    """(SE of the mean, Satterthwaite's degrees of freedom) from the mean squares; see ``two_way``."""
    df_seed, df_prompt, df_resid = seeds - 1, prompts - 1, (seeds - 1) * (prompts - 1)
    total = ms_seed + ms_prompt - ms_resid
    if total <= ms_resid:
        return float(np.sqrt(ms_resid / (seeds * prompts))), float(df_resid)
    df = total**2 / (ms_seed**2 / df_seed + ms_prompt**2 / df_prompt + ms_resid**2 / df_resid)
    return float(np.sqrt(total / (seeds * prompts))), float(max(df, min(df_seed, df_prompt)))


def variance_components(scores: Floats) -> Components:
    """The parts of a score's variance from (K, P, M) scores, M samples a prompt; (K, P) is one sample.

    The ANOVA estimates of the balanced two-way layout with replication (Searle et al., ch. 4), each at least 0;
    where all are positive they are REML's too. Raises ``ValueError`` for fewer than two seeds or prompts, or gaps.
    """
    scores = np.asarray(scores, dtype=float)
    cube = scores[..., None] if scores.ndim == 2 else scores
    if cube.ndim != 3 or min(cube.shape[:2]) < 2 or not np.isfinite(cube).all():
        raise ValueError(f"need finite scores of at least 2 seeds and 2 prompts, not shape {scores.shape} with gaps")
    seeds, prompts, samples = cube.shape
    ms_seed, ms_prompt, ms_cell = (samples * square for square in mean_squares(cube.mean(axis=2)))
    noise = float(cube.var(axis=2, ddof=1).mean()) if samples > 1 else float("nan")
    between = ms_cell if samples == 1 else max(0.0, (ms_cell - noise) / samples)
    seed = max(0.0, (ms_seed - ms_cell) / (prompts * samples))
    prompt = max(0.0, (ms_prompt - ms_cell) / (seeds * samples))
    return Components(seed, prompt, between, noise)


def expected_error(parts: Components, seeds: int, prompts: int, samples: int = 1) -> tuple[float, float]:
    """(SE, degrees of freedom) that the two-way interval is to have in a design of other size: for planning.

    Satterthwaite's formula at the expected mean squares.
    """
    cell = parts.interaction + (0.0 if np.isnan(parts.noise) else parts.noise / samples)
    ms_seed, ms_prompt = cell + prompts * parts.seed, cell + seeds * parts.prompt
    return _error_of_squares(ms_seed, ms_prompt, cell, seeds, prompts)


def detectable_effect(se: float, df: float, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest true effect that a two-sided t test at ``alpha`` finds with ``power``: (t_{1-α/2} + t_power) SE."""
    if not df > 0:
        return float("nan")
    return float((stats.t.ppf(1 - alpha / 2, df) + stats.t.ppf(power, df)) * se)


def _t_interval(mean: float, se: float, df: float, *, null: float, level: float) -> tuple[float, float, float]:
    """(low, high, two-sided p of ``null``) of Student's t; NaN without a degree of freedom."""
    if not df > 0:
        return float("nan"), float("nan"), float("nan")
    if se <= 1e-12 * max(1.0, abs(mean)):
        return mean, mean, float(abs(mean - null) <= 1e-12)
    half = float(stats.t.ppf((1 + level) / 2, df)) * se
    return mean - half, mean + half, float(2 * stats.t.sf(abs(mean - null) / se, df))


def paired_difference(a: Floats, b: Floats, *, level: float = LEVEL) -> Estimate:
    """Mean of ``a - b`` with the two-way interval; both (K, P), the same seeds and prompts in the same order.

    Pairing removes what a prompt's difficulty adds to both, which is most of the prompts' error.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"paired scores need one shape, not {a.shape} and {b.shape}")
    return two_way(a - b, level=level)


def wins(a: Floats, b: Floats) -> Floats:
    """How often a sample of ``a`` beats one of ``b`` on the same prompt: (K, P, M) twice to (K, P) in [0, 1].

    All M × M pairs of samples count; a tie is half a win. NaN samples are left out.
    """
    difference = np.asarray(a, dtype=float)[..., :, None] - np.asarray(b, dtype=float)[..., None, :]
    return np.asarray(np.nanmean(0.5 + 0.5 * np.sign(difference), axis=(-2, -1)), dtype=float)


def win_rate(outcomes: Floats, *, level: float = LEVEL) -> Estimate:
    """P(a beats b) + P(tie)/2 from outcomes (K, P), as ``wins`` gives; the two-way interval cut to [0, 1].

    ``p`` tests 0.5.
    """
    return bounded(two_way(outcomes, null=0.5, level=level), 0.0, 1.0)


def bounded(estimate: Estimate, low: float | None, high: float | None) -> Estimate:
    """The estimate with its interval cut to what the quantity can be; ``None`` is no bound."""
    ends = np.clip([estimate.low, estimate.high], -np.inf if low is None else low, np.inf if high is None else high)
    return replace(estimate, low=float(ends[0]), high=float(ends[1]))


def holm(p_values: Sequence[float]) -> Floats:
    """Holm's step-down adjustment of a family of p values, in the order given.

    adjusted(i) = max over j <= i of min(1, (m - j + 1) p(j)) with p(1) <= … <= p(m); NaN stays NaN and
    counts as a member of the family. Holds the family-wise error without assuming independence.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(np.nan_to_num(p[order], nan=0.0) * factors))
    adjusted[np.isnan(p)] = np.nan
    return adjusted
