"""Pairs of algorithms on one metric: difference, win rate, and the verdict within a declared family.

A seed whose training diverged counts as having stayed where it started: to leave it out would reward an algorithm
for the runs that it lost. Other failures (no memory, no time) say nothing of the algorithm; they are named beside the
verdict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..resampling import sign_flip_test
from ..statistics import Estimate, holm, paired_difference, variance_components, win_rate
from ..verdicts import Verdict, judge
from .grids import align, means_by_seed

if TYPE_CHECKING:
    from .section import Section

EXPLORATORY = "exploratory"
"""The family of every comparison that was not declared (other metrics, equal amounts): p values are not adjusted."""
CONTROLS = "with a control"
"""The family of every pair with a control other than the baseline: controls cost the contenders no power."""


@dataclass(frozen=True)
class Comparison:
    """Algorithm ``a`` against ``b`` on ``metric``. ``difference`` is a - b on shared seeds and prompts."""

    a: str
    b: str
    metric: str
    difference: Estimate
    win_rate: Estimate
    """P(a sample of a scores better than one of b on the same prompt), ties half."""
    family: str
    """Over which Holm's adjustment goes, or ``EXPLORATORY``."""
    p_holm: float
    """The p value adjusted within the family; the plain one where exploratory."""
    verdict: Verdict
    margin: float | None
    """The largest difference that does not matter; None where none was declared and the metric has no range."""
    by_seed: dict[int, float]
    """The difference of each seed, mean over prompts; diverged seeds as they were counted."""

    @property
    def p(self) -> float:
        return self.difference.p

    @property
    def p_sign_flip(self) -> float:
        """Of the seeds' differences alone, without any assumption on how they are distributed; NaN for one seed."""
        values = np.array(list(self.by_seed.values()))
        return sign_flip_test(values, rng=np.random.default_rng(0)) if len(values) > 1 else float("nan")


def compare(section: Section, metric: str) -> list[Comparison]:
    """Every pair of a section on a metric: against the baseline, then trained ones.

    A contender stands before a control, whichever is better: what is said of them is said of the contender. Of two
    contenders, or of two controls, the better one is first.
    """
    sign = section.direction(metric)
    means = {name: sign * float(grid.to_numpy().mean()) for name in section.finished
             if (grid := section.grid(name, metric)).size}  # fmt: skip
    trained = [name for name in means if name != section.baseline]
    order = sorted(trained, key=lambda name: (name in section.controls, -means[name]))
    families: dict[str, list[tuple[str, str]]] = {}
    if section.baseline in means:
        families[f"against {section.baseline}"] = [(name, str(section.baseline)) for name in trained]
    families["among trained"] = [(a, b) for i, a in enumerate(order) for b in order[i + 1 :]]
    if metric != section.primary.name or section.currency:
        families = {EXPLORATORY: [pair for pairs in families.values() for pair in pairs]}
    else:
        apart = section.controls - {section.baseline}
        held = [pair for pairs in families.values() for pair in pairs if apart & set(pair)]
        families = {family: [pair for pair in pairs if not apart & set(pair)] for family, pairs in families.items()}
        if section.results.declaration["family"] == "all-pairs":
            families = {"all pairs": [pair for pairs in families.values() for pair in pairs]}
        families[CONTROLS] = held
    return [found for family, pairs in families.items() for found in _family(section, metric, family, pairs)]


def _family(section: Section, metric: str, family: str, pairs: list[tuple[str, str]]) -> Iterator[Comparison]:
    from ..flags import blocking  # flags are found on sections, whose comparisons these are

    margin, sign = section.margin(metric), section.direction(metric)
    matched = [(a, b, *found) for a, b in pairs if (found := _matched(section, metric, a, b)) is not None]
    differences = [paired_difference(left.to_numpy(), right.to_numpy()) for _, _, left, right in matched]
    plain = [difference.p for difference in differences]
    adjusted = plain if family == EXPLORATORY else holm(plain)
    for (a, b, left, right), difference, p in zip(matched, differences, adjusted, strict=True):
        values = (left - right).to_numpy()
        parts = variance_components(values) if min(values.shape) > 1 else None
        verdict = judge(
            difference,
            float(p),
            margin=margin,
            higher_is_better=sign > 0,
            components=parts,
            blocked=flag.text if (flag := blocking(section, a, b, metric)) else "",
        )
        verdict = _noted(verdict, section, a, b)
        rate = _win_rate(section, metric, a, b, left)
        by_seed = means_by_seed(left - right)
        yield Comparison(a, b, metric, difference, rate, family, float(p), verdict, margin, by_seed)


def _matched(section: Section, metric: str, a: str, b: str) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Grids of both on the seeds and prompts that they share; None when they share none."""
    left, right = align(*(_with_diverged(section, metric, name) for name in (a, b)))
    return (left, right) if left.size else None


def _with_diverged(section: Section, metric: str, name: str) -> pd.DataFrame:
    """The grid, with the baseline's row of the same seed for each seed that diverged."""
    grid = section.grid(name, metric)
    lost = section.cells.loc[(section.cells["algorithm"] == name) & (section.cells["status"] == "diverged"), "seed"]
    if lost.empty or section.baseline is None or name == section.baseline:
        return grid
    start = section.grid(section.baseline, metric)
    stayed = start.loc[start.index.intersection(pd.Index(lost))]
    if not grid.size:
        return stayed
    prompts = grid.columns.intersection(stayed.columns)
    return pd.concat([grid[prompts], stayed[prompts]]).sort_index()


def _win_rate(section: Section, metric: str, a: str, b: str, like: pd.DataFrame) -> Estimate:
    """How often a sample of a beats one of b; of seeds with samples of both, on the prompts of ``like``."""
    rates = section.outcomes(a, b, metric)
    rates = rates.loc[rates.index.intersection(like.index), rates.columns.intersection(like.columns)]
    if rates.size:
        return win_rate(rates.to_numpy())
    nan = float("nan")
    return Estimate(nan, nan, nan, nan, nan, nan, 0, like.shape[1])


def _noted(verdict: Verdict, section: Section, a: str, b: str) -> Verdict:
    """The verdict with what narrows it: seeds without a result, and a declaration that was changed."""
    cells = section.cells[section.cells["algorithm"].isin([a, b]) & (section.cells["status"] != "ok")]
    counts = cells["status"].value_counts()
    notes = [
        f"{count} diverged, counted as not having moved" if status == "diverged" else f"{count} {status} left out"
        for status, count in counts.items()
    ]
    if section.results.amendments:
        notes.append("sequential, unadjusted: the declaration was changed after results were there")
    reason = "; ".join([*filter(None, [verdict.reason]), *notes])
    return Verdict(verdict.word, reason, verdict.leaning, verdict.seeds_needed)
