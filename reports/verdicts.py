"""From an estimated difference to a word: WIN, LOSS, EQUIVALENT or INCONCLUSIVE, why not more, and what would decide.

EQUIVALENT is two one-sided tests (Schuirmann 1987): the 90 % interval lies within the margin that was declared. It
goes before WIN and LOSS: what is smaller than the margin was declared not to matter. "Not significant" alone is
INCONCLUSIVE, never "equal".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scipy import stats

from .statistics import ALPHA, POWER, Components, Estimate, detectable_effect, expected_error

Word = Literal["WIN", "LOSS", "EQUIVALENT", "INCONCLUSIVE"]

ENOUGH_SEEDS = 5
"""Fewer seeds are descriptive only: by permutation, 3 against 3 reach p = 0.10 at best, 5 against 5 0.008."""
MOST_SEEDS = 100
"""Where more than this would be needed, a number of seeds is no advice any more."""


@dataclass(frozen=True)
class Verdict:
    """What can be said of the first of two algorithms against the second, on one metric."""

    word: Word
    reason: str = ""
    """What stands in the way of a verdict, or narrows it; empty where nothing does."""
    leaning: Literal["ahead", "behind", "level", ""] = ""
    """Of an INCONCLUSIVE one with too few seeds: what the same numbers would say if there were enough."""
    seeds_needed: int | None = None
    """Seeds that would decide an INCONCLUSIVE one with 80 % power if the estimates are right; None where no number
    up to 100 would, at these prompts."""

    @property
    def label(self) -> str:
        """The verdict as tables and charts print it, e.g. "INCONCLUSIVE" or "descriptive: ahead"."""
        return f"descriptive: {self.leaning}" if self.leaning else self.word

    @property
    def decides(self) -> bool:
        return self.word != "INCONCLUSIVE"

    def turned(self) -> Verdict:
        """The same verdict seen from the second algorithm."""
        words: dict[Word, Word] = {"WIN": "LOSS", "LOSS": "WIN"}
        leanings: dict[str, Literal["ahead", "behind"]] = {"ahead": "behind", "behind": "ahead"}
        return Verdict(
            words.get(self.word, self.word), self.reason, leanings.get(self.leaning, self.leaning), self.seeds_needed
        )


def judge(
    difference: Estimate,
    p_adjusted: float,
    *,
    margin: float | None = None,
    higher_is_better: bool = True,
    components: Components | None = None,
    blocked: str = "",
) -> Verdict:
    """The verdict on ``difference`` = first - second.

    ``p_adjusted`` is its p value within its family (Holm). ``margin`` is the largest difference that does not matter,
    None where none was declared. ``components`` are the variances of the paired difference, for the number of seeds.
    ``blocked`` names a flaw of the comparison itself (unequal budgets, say), which no number of seeds would mend.
    """
    word = _word(difference, p_adjusted, margin, higher_is_better)
    seeds = difference.n_seeds
    if blocked:
        return Verdict("INCONCLUSIVE", blocked)
    if seeds < 2:
        return Verdict("INCONCLUSIVE", "conditional on this run: 1 seed stands for no other", "", ENOUGH_SEEDS)
    needed = None
    if components is not None and word == "INCONCLUSIVE":
        factor = p_adjusted / difference.p if difference.p > 0 and p_adjusted >= difference.p else 1.0
        needed = seeds_to_decide(
            components, difference.mean, prompts=difference.n_prompts, at_least=seeds + 1, margin=margin, family=factor
        )
    if seeds < ENOUGH_SEEDS:
        leanings: dict[Word, Literal["ahead", "behind", "level", ""]] = {"WIN": "ahead", "LOSS": "behind"}
        leaning = leanings.get(word, "level" if word == "EQUIVALENT" else "")
        reason = f"descriptive only: {seeds} seeds, and a verdict needs {ENOUGH_SEEDS}"
        # What is clear with few seeds needs no more than the fewest that make a verdict.
        seeds_needed = ENOUGH_SEEDS if leaning else needed and max(needed, ENOUGH_SEEDS)
        return Verdict("INCONCLUSIVE", reason, leaning, seeds_needed)
    if word != "INCONCLUSIVE":
        return Verdict(word)
    why = "the interval holds 0" if difference.p >= ALPHA else "not after Holm's adjustment for its family"
    beyond = ", and is not within the margin either" if margin is not None else ", and no margin was declared"
    if needed is None and components is not None:
        beyond += "; more seeds alone would not decide it: it takes more prompts, or a larger difference"
    return Verdict("INCONCLUSIVE", why + beyond, "", needed)


def _word(difference: Estimate, p_adjusted: float, margin: float | None, higher_is_better: bool) -> Word:
    if margin is not None:
        low, high = difference.interval(1 - 2 * ALPHA)
        if -margin <= low and high <= margin:
            return "EQUIVALENT"
    if not p_adjusted < ALPHA:
        return "INCONCLUSIVE"
    return "WIN" if (difference.mean > 0) == higher_is_better else "LOSS"


def seeds_to_decide(
    components: Components,
    effect: float,
    *,
    prompts: int,
    at_least: int = 2,
    margin: float | None = None,
    family: float = 1.0,
) -> int | None:
    """The fewest seeds that would give a verdict with 80 % power, were ``effect`` and ``components`` the true ones.

    Either the effect is found by a test at alpha / ``family``, or it lies far enough within ``margin`` to be shown to.
    Optimistic where the estimates happen to be: an effect that was seen is often larger than the true one.
    """
    for seeds in range(max(2, at_least), MOST_SEEDS + 1):
        se, df = expected_error(components, seeds, prompts)
        if abs(effect) >= detectable_effect(se, df, alpha=ALPHA / family):
            return seeds
        # Two one-sided tests both have to hold; at an effect of 0 each needs a power of 1 - (1 - POWER) / 2.
        room = float(stats.t.ppf(1 - ALPHA, df) + stats.t.ppf((1 + POWER) / 2, df)) * se
        if margin is not None and margin - abs(effect) >= room:
            return seeds
    return None
