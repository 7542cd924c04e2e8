"""What reward a KL budget can buy at best, from samples of the reference alone, and what best-of-n makes of them.

Rewards are (P, N): N completions a prompt, drawn from the reference at temperature 1. KL is in nats per sequence,
policy from reference, reverse direction, and for a trained policy always the exact one (evaluators/kl.py).

Sources: the optimal policy under a KL penalty is pi(y) ~ ref(y) exp(r(y) / beta), Rafailov et al. (arXiv:2305.18290),
eq. 4; best-of-n's KL is at most log n - (n-1)/n, Beirami et al. (arXiv:2401.01879), Theorem 3.1; its expectation over
subsets is the unbiased one of Nakano et al. (arXiv:2112.09332), appendix I; the forms of over-optimisation are those of
Gao et al. (arXiv:2210.10760), eq. 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from .statistics import Floats

TEMPERATURES = 48
"""Points of an attainable frontier."""
MARGIN_NATS = 2.0
"""Beyond KL = log N - 2 a frontier from N samples is not drawn: its points have slid down from where they should be."""


class Curve(NamedTuple):
    """Mean reward (T,) at each KL (T,), both rising from what the reference itself has at KL 0."""

    kl: Floats
    reward: Floats

    def at(self, kl: float) -> float:
        """The reward at a KL, between points on a straight line; NaN beyond the last point."""
        return float(np.interp(kl, self.kl, self.reward, right=np.nan))


class BestOfN(NamedTuple):
    """Expected best reward of n samples, (T,), and the KL that choosing it costs at most, for each n, (T,)."""

    n: Floats
    kl: Floats
    reward: Floats


class Efficiency(NamedTuple):
    """A policy's gain over the reference as a share of the largest that its KL could buy."""

    value: float
    is_bound: bool
    """The KL lies beyond the frontier, which still rises there: the value is the largest that it can be, below 1."""


class Overoptimisation(NamedTuple):
    """Gold reward against d = sqrt(KL): gain = d (a - b log d), its peak, and the share of variance explained."""

    a: float
    b: float
    d_peak: float
    """Where the fitted curve is highest, exp(a/b - 1); NaN where it does not turn within the data."""
    r_squared: float


def tilted(rewards: Floats, *, sign: float = 1.0, temperatures: int = TEMPERATURES) -> tuple[Floats, Floats]:
    """(KL, reward), each (T, P): each prompt's samples tilted towards reward, from not at all to the best alone.

    For each beta a prompt's N samples get weights w ~ exp(r / beta), self-normalised; then reward = sum w r and
    KL = sum w log(N w). ``sign`` -1 is for rewards that are better when low.
    """
    scores = sign * np.asarray(rewards, dtype=float)
    spread = float(scores.std(axis=1).mean())
    kls, means = [np.zeros(len(scores))], [scores.mean(axis=1)]
    for beta in (spread or 1.0) * np.geomspace(30.0, 0.02, temperatures):
        weights = np.exp((scores - scores.max(axis=1, keepdims=True)) / beta)
        weights /= weights.sum(axis=1, keepdims=True)
        kls.append((weights * np.log(np.maximum(weights * scores.shape[1], 1e-300))).sum(axis=1))
        means.append((weights * scores).sum(axis=1))
    return np.array(kls), sign * np.array(means)


def mean_curve(kls: Floats, rewards: Floats, *, samples: int) -> Curve:
    """The frontier over prompts from ``tilted``'s (T, P) arrays, cut where N ``samples`` a prompt no longer reach.

    Estimated from finite N, a point lies on the true curve to a few per cent, but slides down along it: no KL beyond
    log N can be reached. The curve ends at log N - 2, and is the reference alone where that is below 0.
    """
    kl, reward = kls.mean(axis=1), rewards.mean(axis=1)
    kept = kl <= max(0.0, float(np.log(samples)) - MARGIN_NATS)
    kept &= np.append(True, np.diff(kl) > 0)
    return Curve(kl[kept], reward[kept])


def attainable(rewards: Floats, *, sign: float = 1.0, temperatures: int = TEMPERATURES) -> Curve:
    """The frontier of all policies: the highest mean reward at each KL, from (P, N) samples of the reference."""
    kls, means = tilted(rewards, sign=sign, temperatures=temperatures)
    return mean_curve(kls, means, samples=np.shape(rewards)[1])


def best_of_n(rewards: Floats, *, sign: float = 1.0) -> BestOfN:
    """Expected reward of the best of n samples, for n = 1, 2, 3, 4, 6, 8, ... up to N: every subset counted, no draw.

    With a prompt's rewards in rising order r(1) <= ... <= r(N), E[best of n] = sum_i r(i) C(i-1, n-1) / C(N, n).
    """
    scores = np.sort(sign * np.asarray(rewards, dtype=float), axis=1)
    total = scores.shape[1]
    powers = 2 ** np.arange(int(np.log2(total)) + 1)
    n = np.unique(np.concatenate([powers, 3 * powers[:-1] // 2, [total]])).astype(float)
    n = n[(n >= 1) & (n <= total)]
    ranks = np.arange(1, total + 1)
    # P(the largest of a subset of n is the i-th) is the difference of P(all of the subset are among the first i).
    below = stats.hypergeom.cdf(0, total, total - ranks[None, :], n[:, None].astype(int))
    chances = np.diff(below, axis=1, prepend=0.0)
    return BestOfN(n, best_of_n_kl(n), sign * (chances @ scores.mean(axis=0)))


def best_of_n_kl(n: Floats) -> Floats:
    """KL of best-of-n from the reference, nats: log n - (n-1)/n. An upper bound, tight where ties are rare."""
    n = np.asarray(n, dtype=float)
    return np.asarray(np.log(n) - (n - 1) / n)


def worth_best_of(reward: float, curve: BestOfN, *, sign: float = 1.0) -> float:
    """The n whose best-of-n is as good as ``reward``, on a scale of log n; 1 or less is no better than one sample.

    Infinity where even the best of all samples is worse.
    """
    levels = np.maximum.accumulate(sign * curve.reward)
    if np.isnan(reward):
        return float("nan")
    if sign * reward <= levels[0]:
        return 1.0
    if sign * reward > levels[-1]:
        return float("inf")
    above = int(np.argmax(levels >= sign * reward))
    share = (sign * reward - levels[above - 1]) / (levels[above] - levels[above - 1])
    logs = np.log(curve.n)
    return float(np.exp(logs[above - 1] + share * (logs[above] - logs[above - 1])))


def efficiency(reward: float, kl: float, frontier: Curve) -> Efficiency:
    """eta = (reward - reference) / (best reward at this KL - reference): 1 is the most that this KL can buy.

    A value clearly above 1 means leakage or a wrong KL. NaN where the KL buys nothing, the frontier is one point, or
    the KL is so far beyond it that the gain says nothing of what was possible there.
    """
    start, end = float(frontier.reward[0]), float(frontier.kl[-1])
    best = frontier.at(min(kl, end))
    beyond = kl > end
    if len(frontier.kl) < 2 or kl <= 0 or best == start:
        return Efficiency(float("nan"), beyond)
    value = (reward - start) / (best - start)
    return Efficiency(float("nan") if beyond and value >= 1 else value, beyond)


def best_within(kl: Floats, gain: Floats, budget: float) -> float:
    """The largest of the gains (E,) at evaluations whose KL (E,) is within a budget; 0, the start's, where none is."""
    return float(np.max(gain, where=kl <= budget, initial=0.0))


def hypervolume(kl: Floats, gain: Floats, cap: float) -> float:
    """Area between the envelope ``best_within`` and 0 over budgets from 0 to ``cap``, in gain times nats.

    The hypervolume of two objectives (Zitzler & Thiele, IEEE Trans. Evolutionary Computation 3, 1999), low KL and high
    gain, with the reference point (cap, 0). It grows with the number of evaluations: compare equal numbers of them.
    """
    order = np.argsort(kl)
    edges = np.minimum(np.concatenate([np.asarray(kl)[order], [cap]]), cap)
    levels = np.maximum.accumulate(np.maximum(np.asarray(gain)[order], 0.0))
    return float((np.diff(edges) * levels).sum())


def fit_overoptimisation(kl: Floats, gain: Floats) -> Overoptimisation:
    """Least squares of gain = d (a - b log d), d = sqrt(KL), Gao's form for RL; points at KL 0 say nothing of it.

    Raises ``ValueError`` for fewer than three points with a KL above 0.
    """
    kl, gain = np.asarray(kl, dtype=float), np.asarray(gain, dtype=float)
    kl, gain = kl[kl > 0], gain[kl > 0]
    if len(kl) < 3:
        raise ValueError(f"need three points with a KL above 0, not {len(kl)}")
    d = np.sqrt(kl)
    (a, b), *_ = np.linalg.lstsq(np.stack([d, -d * np.log(d)], axis=1), gain, rcond=None)
    left = np.square(gain - d * (a - b * np.log(d))).sum()
    spread = np.square(gain - gain.mean()).sum()
    peak = float(np.exp(a / b - 1)) if b > 0 and a / b - 1 <= np.log(d.max()) else float("nan")
    return Overoptimisation(float(a), float(b), peak, float(1 - left / spread) if spread > 0 else float("nan"))
