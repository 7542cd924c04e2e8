"""Equal by what? The leaderboard again where all algorithms have spent the same of one currency.

The amount is the largest that every algorithm's every seed reached. What an algorithm scored there is read off between
its two nearest evaluations along training, on a straight line, seed by seed and prompt by prompt; nothing is
extrapolated. An algorithm that spends none of a currency cannot be set equal by it, and is listed without a rank.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .. import formats
from ..statistics import Estimate, paired_difference, variance_components
from ..verdicts import Verdict, judge
from .grids import align

if TYPE_CHECKING:
    from .section import Section

CURRENCIES = ("steps", "tokens_trained", "tokens_generated", "flops", "seconds")
"""What "equal" can mean, in the order in which it is offered."""


@dataclass(frozen=True)
class Standing:
    """One algorithm at the common amount."""

    algorithm: str
    rank: int | None
    """1 is best; None where it cannot be ranked, as ``note`` says. The untrained baseline is ranked too."""
    estimate: Estimate | None
    """The primary metric there, over seeds and ``Section.curve_prompts``."""
    gain: Estimate | None
    """Over the baseline on the same seeds and prompts; None without one, and for the baseline."""
    reached: float
    """The share of its own training after which it had spent the amount, mean over seeds, in [0, 1]."""
    note: str
    """How the number came about: measured, or between which evaluations; or why there is none."""


@dataclass(frozen=True)
class Pair:
    """Two algorithms at the common amount, the better one first. Exploratory: the verdict is not adjusted."""

    a: str
    b: str
    difference: Estimate
    verdict: Verdict


@dataclass(frozen=True)
class EqualBy:
    """The ranking under an equal amount of one currency."""

    currency: str
    amount: float
    """In the currency's unit, a seed."""
    standings: tuple[Standing, ...]
    """Ranked ones first, best first."""
    pairs: tuple[Pair, ...]
    """Every two that are ranked and share seeds and prompts."""
    winner_changes: bool
    """Another trained algorithm leads than at the end of the run."""
    sentence: str
    """Whether the winner changes, in words."""

    @property
    def ranked(self) -> list[str]:
        """Who can be ranked, best first."""
        return [standing.algorithm for standing in self.standings if standing.rank is not None]

    @property
    def winner(self) -> str | None:
        return next(iter(self.ranked), None)


def by_currency(section: Section) -> dict[str, EqualBy]:
    """The currencies in which at least two contenders can be set equal."""
    found = {currency: _equal(section, currency) for currency in CURRENCIES}
    return {currency: equal for currency, equal in found.items() if equal is not None}


def _equal(section: Section, currency: str) -> EqualBy | None:
    paths = {name: _path(section, name, currency) for name in section.contenders}
    usable = {name: path for name, path in paths.items() if path is not None}
    if len(usable) < 2:
        return None
    amount = min(float(path.spent[:, -1].min()) for path in usable.values())
    primary = section.primary.name
    grids, standings = {}, []
    start = section.on_curve(section.grid(section.baseline, primary)) if section.baseline else None
    for name in section.finished:
        if name in section.controls and name != section.baseline:
            continue
        path = usable.get(name)
        if name == section.baseline and start is not None:
            grids[name], reached, note = start, 0.0, "spends nothing"
        elif path is not None and float(path.spent[:, 0].max()) <= amount:
            grids[name], reached, note = path.at(amount)
        else:
            why = "first measured beyond this amount" if path is not None else "spends none"
            standings.append(Standing(name, None, None, None, float("nan"), why))
            continue
        gain = None
        if start is not None and name != section.baseline:
            pair = align(grids[name], start)
            gain = paired_difference(*(grid.to_numpy() for grid in pair)) if pair[0].size else None
        standings.append(Standing(name, 0, section.two_way(grids[name], primary), gain, reached, note))
    sign = section.direction(primary)
    ranked = sorted((s for s in standings if s.estimate), key=lambda s: -sign * s.estimate.mean if s.estimate else 0.0)
    ranked = [replace(standing, rank=place) for place, standing in enumerate(ranked, start=1)]
    order = [standing.algorithm for standing in ranked if standing.algorithm != section.baseline]
    if len(order) < 2:
        return None
    couples = combinations([standing.algorithm for standing in ranked], 2)
    pairs = tuple(met for a, b in couples if (met := _between(section, a, b, grids)) is not None)
    first = next((met for met in pairs if [met.a, met.b] == order[:2]), None)
    sentence = _sentence(section, currency, amount, order, first)
    unranked = [standing for standing in standings if standing.rank is None]
    return EqualBy(currency, amount, (*ranked, *unranked), pairs, order[0] != _leader(section), sentence)


def _leader(section: Section) -> str:
    """The best contender at the end of the run."""
    return next(name for name in section.ranked if name in section.contenders)


@dataclass(frozen=True, eq=False)
class _Path:
    """One algorithm along training: what each seed had spent, (K, E), and its scores at each evaluation."""

    spent: np.ndarray
    grids: list[pd.DataFrame]

    def at(self, amount: float) -> tuple[pd.DataFrame, float, str]:
        """(scores at ``amount``, mean share of training by then, how they came about)."""
        values = np.stack([grid.to_numpy() for grid in self.grids], axis=1)  # (K, E, P)
        rows, shares, ends = [], [], set()
        for spent, scores in zip(self.spent, values, strict=True):
            right = min(int(np.searchsorted(spent, amount)), len(spent) - 1)
            left = max(0, right - 1)
            width = spent[right] - spent[left]
            weight = (amount - spent[left]) / width if width > 0 else 1.0
            weight = min(1.0, max(0.0, float(weight)))
            rows.append((1 - weight) * scores[left] + weight * scores[right])
            shares.append(min(1.0, amount / spent[-1]))
            ends.add((left, right, 0.0 < weight < 1.0))
        first = min(left for left, _, _ in ends)
        last = max(right for _, right, _ in ends)
        between = any(inside for _, _, inside in ends)
        names = ["the start", *(f"evaluation {i}" for i in range(1, len(self.grids) - 1)), "the end"]
        note = f"between {names[first]} and {names[last]}" if between else f"measured at {names[last]}"
        return (
            pd.DataFrame(rows, index=self.grids[0].index, columns=self.grids[0].columns),
            float(np.mean(shares)),
            note,
        )


def _path(section: Section, name: str, currency: str) -> _Path | None:
    """None where the algorithm spends none of the currency, or was not measured on the curve's prompts."""
    primary, count = section.primary.name, section.probe_count(name)
    grids = [section.on_curve(section.grid(name, primary, probe)) for probe in range(count)]
    spent = [section.spent(name, probe)[currency] for probe in range(count)]
    if section.baseline is not None and count and float(section.spent(name, 0)["fraction"].min()) > 0:
        start = section.on_curve(section.grid(section.baseline, primary))
        grids.insert(0, start)
        spent.insert(0, pd.Series(0.0, index=start.index))
    seeds, prompts = section.grid(name, primary).index, section.curve_prompts
    for grid, costs in zip(grids, spent, strict=True):
        seeds, prompts = seeds.intersection(grid.index).intersection(costs.index), prompts.intersection(grid.columns)
    if not len(seeds) or not len(prompts):
        return None
    amounts = np.array([column.loc[seeds].to_numpy(float) for column in spent]).T
    if not (amounts[:, -1] > 0).all():
        return None
    return _Path(amounts, [grid.loc[seeds, prompts] for grid in grids])


def _between(section: Section, a: str, b: str, grids: dict[str, pd.DataFrame]) -> Pair | None:
    left, right = align(grids[a], grids[b])
    if not left.size:
        return None
    difference = paired_difference(left.to_numpy(), right.to_numpy())
    values = (left - right).to_numpy()
    primary = section.primary.name
    verdict = judge(
        difference,
        difference.p,
        margin=section.margin(primary),
        higher_is_better=section.direction(primary) > 0,
        components=variance_components(values) if min(values.shape) > 1 else None,
    )
    return Pair(a, b, difference, verdict)


def amount_text(currency: str, amount: float) -> str:
    """An amount as people read it: "31.0 s", "6.06 T"."""
    return formats.duration(amount) if currency == "seconds" else formats.si(amount)


def _sentence(section: Section, currency: str, amount: float, order: list[str], first: Pair | None) -> str:
    leader = _leader(section)
    each = amount_text(currency, amount)
    if leader not in order:
        text = (
            f"Under equal {formats.phrase(currency)} ({each}) {order[0]} leads ({leader} spends none and is not ranked)"
        )
    elif order[0] == leader:
        text = f"Under equal {formats.phrase(currency)} ({each}) the winner stays {leader}"
    else:
        text = f"Under equal {formats.phrase(currency)} ({each}) the winner changes from {leader} to {order[0]}"
    if first is None:
        return f"{text}."
    difference = first.difference
    places = formats.decimals([difference.mean])
    gap = f"{formats.fixed(difference.mean, places, sign=True)} {formats.phrase(section.primary.name)}"
    span = formats.span(difference.low, difference.high, places, sign=True)
    return f"{text}, {gap} {span} over {order[1]}: {first.verdict.label}."
