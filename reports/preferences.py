"""What pairwise preferences say: a Bradley-Terry ranking, and win rates at equal length.

Both are logistic regressions, and the error of the fit is part of each interval: a ranking is fitted anew in every
resample of seeds and prompts; of a win rate at equal length we take how far each answer moves it, fit included, and
give these influences the two-way t interval. (AlpacaEval 2 takes the standard error of its fitted predictions, which
leaves the fit out. Refitting in resamples of seeds and prompts counts the noise of single answers up to three times,
Owen 2007: it covered 98.5 % where 95 % was asked for.)

Sources: R. A. Bradley & M. E. Terry, Biometrika 39 (1952); Chiang et al., "Chatbot Arena" (arXiv:2403.04132), ties as
half a win; Dubois et al., "Length-Controlled AlpacaEval" (arXiv:2404.04475), section 3: we keep its length and
difficulty terms, fit one algorithm at a time, without its regularisation and without its data of "gamed" baselines;
F. R. Hampel, "The Influence Curve and its Role in Robust Estimation", JASA 69 (1974).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .resampling import DRAWS, Interval
from .statistics import LEVEL, Floats, bounded, two_way

RIDGE = 1e-6
"""Keeps a fit finite where one side wins every time. Far below what data say."""
LEVEL_STRENGTH = 1e-6
"""Log-odds: who is no further behind another shares its rank. Above what is left of a fit that has converged."""
FAR_APART = 0.10
"""A length-controlled win rate further than this from the raw one is a warning; AlpacaEval's code asks, besides, for a
change by a quarter."""


@dataclass(frozen=True)
class Ranking:
    """Bradley-Terry strengths, in the order in which the algorithms were given; each array is (A,)."""

    strength: Floats
    """Natural log-odds against the average algorithm: a difference of 1.1 is a win rate of 75 %."""
    low: Floats
    high: Floats
    rank: Floats
    """1 is the strongest; equals share the better one."""
    rank_low: Floats
    rank_high: Floats
    """The best and the worst rank that resampling seeds and prompts leaves possible."""


@dataclass(frozen=True)
class LengthControlled:
    """A win rate as it would be at equal length."""

    win_rate: Interval
    raw: float
    slope: float
    """Log-odds of winning per standard deviation of the length difference, near equal length."""
    warning: str
    """Why not to trust it, or empty."""
    answers: Floats
    """(K, P): the rate plus how far each answer moves it. Its two-way interval is that of ``win_rate``; the difference
    of two algorithms' is that of their rates."""


def bradley_terry(wins: Floats) -> Floats:
    """Log-strengths (..., A), mean 0, from how often i beat j, (..., A, A); ties are half a win to both.

    P(i beats j) = 1 / (1 + exp(strength[j] - strength[i])). Maximum likelihood by Newton's method, all fits of a stack
    at once; the likelihood is concave.
    """
    wins = np.nan_to_num(np.asarray(wins, dtype=float))
    each = np.arange(wins.shape[-1])
    wins[..., each, each] = 0.0
    games, strength = wins + np.swapaxes(wins, -1, -2), np.zeros(wins.shape[:-1])
    for _ in range(50):
        expected = 1 / (1 + np.exp(strength[..., None, :] - strength[..., :, None]))
        gradient = (wins - games * expected).sum(axis=-1) - RIDGE * strength
        weights = games * expected * (1 - expected)
        information = -weights
        information[..., each, each] += weights.sum(axis=-1) + RIDGE
        # A step of more than 2 overshoots where the likelihood is flat.
        step = np.clip(np.linalg.solve(information, gradient[..., None])[..., 0], -2.0, 2.0)
        strength = strength + step
        if np.abs(step).max() < 1e-10:
            break
    return np.asarray(strength - strength.mean(axis=-1, keepdims=True), dtype=float)


def bradley_terry_ranking(outcomes: Floats, *, rng: np.random.Generator, draws: int = DRAWS) -> Ranking:
    """A ranking from ``outcomes`` (K, P, A, A): how often i beat j on prompt p with seed k, ties half, NaN not asked.

    Intervals draw whole seeds and prompts anew, since answers to one prompt are not independent. A fit needs sums of
    outcomes alone, so a draw is how often each seed and prompt counts in them.
    """
    known = np.nan_to_num(np.asarray(outcomes, dtype=float))
    seeds, prompts, count = known.shape[:3]
    sums = [known.sum(axis=(0, 1))]
    for _ in range(draws):
        rows, columns = (np.bincount(rng.integers(n, size=n), minlength=n) for n in (seeds, prompts))
        sums.append((rows @ (columns @ known.reshape(seeds, prompts, -1))).reshape(count, count))
    strength = bradley_terry(np.stack(sums))
    stronger = strength[..., None, :] > strength[..., :, None] + LEVEL_STRENGTH
    found = np.concatenate([strength, 1.0 + stronger.sum(axis=-1)], axis=-1)
    low, high = np.quantile(found[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    ends = (found[0], low, high)
    (strength, low, high), (rank, rank_low, rank_high) = (
        [end[part] for end in ends] for part in (slice(None, count), slice(count, None))
    )
    return Ranking(strength, low, high, rank, np.floor(rank_low), np.ceil(rank_high))


def length_controlled(
    outcomes: Floats, length_difference: Floats, *, difficulty: Floats | None = None
) -> LengthControlled:
    """The win rate at equal length, from ``outcomes`` (K, P) in [0, 1] and lengths, policy minus reference, (K, P).

    Fits logit P(win) = a + b tanh(length_difference / sd) + c difficulty, and averages the prediction at a length
    difference of 0 over prompts. ``difficulty`` (P,) is a number a prompt that does not come from this algorithm: the
    logit of the others' mean outcome, say. The interval is ``statistics.two_way`` of the rate plus the influences of
    the answers; the spread of lengths is taken as it is. NaN ends with one answer.
    """
    outcomes, lengths = np.asarray(outcomes, dtype=float), np.asarray(length_difference, dtype=float)
    hard = np.zeros(outcomes.shape) if difficulty is None else np.broadcast_to(difficulty, outcomes.shape)
    spread = lengths.std()
    gap = np.tanh(lengths / spread) if spread > 0 else np.zeros(lengths.shape)
    features = np.stack([np.ones(outcomes.size), gap.ravel(), (hard - hard.mean()).ravel()], axis=1)
    fitted = logistic_fit(features, outcomes.ravel())
    level = features * [1.0, 0.0, 1.0]
    at_equal_length = _sigmoid(level @ fitted)
    rate = float(at_equal_length.mean())
    moved = at_equal_length - rate + _pull(features, outcomes.ravel(), fitted, level)
    answers = rate + moved.reshape(outcomes.shape)
    estimate = bounded(two_way(answers), 0.0, 1.0)
    raw = float(outcomes.mean())
    warning = ""
    if lengths.min() > 0 or lengths.max() < 0:
        warning = "one side is always longer: equal length is outside the data"
    elif abs(rate - raw) > FAR_APART:
        warning = f"length moves it by {100 * abs(rate - raw):.0f} points"
    return LengthControlled(Interval(rate, estimate.low, estimate.high), raw, float(fitted[1]), warning, answers)


def _pull(features: Floats, outcomes: Floats, fitted: Floats, level: Floats) -> Floats:
    """(N,): how far each answer pulls the mean prediction at ``level`` through the coefficients, times N.

    The influence of an M-estimator, gradient · information⁻¹ · score; a flat likelihood pulls by its ridge alone.
    """
    chances, predicted = _sigmoid(features @ fitted), _sigmoid(level @ fitted)
    gradient = (level * (predicted * (1 - predicted))[:, None]).mean(axis=0)
    count = len(outcomes)
    information = (features.T * (chances * (1 - chances))) @ features / count + RIDGE / count * np.eye(len(fitted))
    return np.asarray((outcomes - chances) * (features @ np.linalg.solve(information, gradient)))


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -30, 30))))


def logistic_fit(features: Floats, outcomes: Floats, *, start: Floats | None = None) -> Floats:
    """Coefficients (F,) of a logistic regression of ``outcomes`` (N,) in [0, 1] on ``features`` (N, F), by Newton.

    Outcomes between 0 and 1 (ties, means) count in proportion, as in a quasi-binomial fit. ``start`` is where to begin.
    """
    coefficients = np.zeros(features.shape[1]) if start is None else start.copy()
    for _ in range(50):
        expected = _sigmoid(features @ coefficients)
        gradient = features.T @ (outcomes - expected) - RIDGE * coefficients
        information = (features.T * (expected * (1 - expected))) @ features + RIDGE * np.eye(len(coefficients))
        step = np.clip(np.linalg.solve(information, gradient), -2.0, 2.0)
        coefficients = coefficients + step
        if np.abs(step).max() < 1e-9:
            break
    return np.asarray(coefficients, dtype=float)
