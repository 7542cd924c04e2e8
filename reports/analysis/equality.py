"""Equal by what? A section once more, as it stood where all algorithms had spent the same of one currency.

The amount is the largest that every seed of every contender reached. An algorithm between two of its evaluations counts
as a mixture of the two: each of its scores is that of the earlier one or of the later one, as likely as the amount is
near to it. So every mean lies on the straight line between theirs, seed by seed and prompt by prompt, and a win rate
is one of such a mixture. Nothing is extrapolated. By what an algorithm spends none of, it cannot be set equal: it has
no scores there, and ``EqualSection.note`` says why.

All that a section says, its estimates, verdicts, ranking and charts, is said by the same code of these scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise

import numpy as np
import pandas as pd

from .. import formats
from ..frame import CURRENCIES as LEDGER
from ..records.scores import CellScores
from ..statistics import Floats
from . import grids
from .grids import Cube
from .section import Bools, Section

CURRENCIES = ("steps", "tokens_trained", "tokens_generated", "flops", "seconds")
"""What "equal" can mean, in the order in which it is offered."""


START = -1
"""The evaluation before the first one along training: the baseline's."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where one algorithm was when it had spent the amount: between which evaluations, seed by seed."""

    seeds: pd.Index
    evaluations: tuple[int, ...]
    """Those along training, in order, from 0; ``START`` first where that was none of them."""
    weights: Floats
    """(seeds, evaluations): how much each one counts; rows sum to 1."""
    spent: dict[str, float]
    """By currency of the ledger: spent there, mean over seeds."""
    share: float
    """Of its own training that was done by then, mean over seeds, in [0, 1]."""
    note: str
    """Measured, or between which evaluations."""


@dataclass(eq=False, kw_only=True)
class EqualSection(Section):
    """``whole``, a section as run, where all had spent ``amount`` of ``currency``. Exploratory: nothing is adjusted."""

    whole: Section
    amount: float
    """In the currency's unit, a seed."""
    places: dict[str, Place]
    """By algorithm that trained and can be set equal."""
    notes: dict[str, str]
    """By algorithm that trained and cannot: why."""

    @property
    def each(self) -> str:
        """The amount as people read it: "31.0 s", "6.06 T"."""
        return formats.duration(self.amount) if self.currency == "seconds" else formats.si(self.amount)

    @property
    def preface(self) -> str:
        return f"Equal {formats.phrase(self.currency)}: {self.each} a seed. "

    def note(self, algorithm: str) -> str:
        """How an algorithm's scores came about, or why there are none; empty for what has none as run either."""
        place = self.places.get(algorithm)
        untrained = "trains nothing" if algorithm in self.whole.finished else ""
        return place.note if place else self.notes.get(algorithm, untrained)

    def reached(self, algorithm: str) -> float:
        """The share of its own training after which it had spent the amount, in [0, 1]; NaN for what trains nothing."""
        place = self.places.get(algorithm)
        return place.share if place else float("nan")

    @property
    def winner(self) -> str:
        """The best contender there; empty where nothing tells them apart."""
        return "" if self.is_level else self._best_first[0]

    @cached_property
    def leader(self) -> str:
        """The best contender at the end of the run, on the same prompts."""
        primary = self.primary.name
        ends = {name: self.whole.on_curve(self.whole.grid(name, primary)) for name in self.whole.contenders}
        sign = self.direction(primary)
        return max(ends, key=lambda name: sign * float(ends[name].to_numpy().mean()) if ends[name].size else -np.inf)

    @property
    def winner_changes(self) -> bool:
        """Another contender leads than at the end of the run."""
        return bool(self.winner) and self.winner != self.leader

    @cached_property
    def is_level(self) -> bool:
        """Whether all contenders have one and the same mean."""
        return len({self._mean(name) for name in self._best_first}) == 1

    @property
    def order(self) -> str:
        """Contenders and the baseline, best first: "grpo > ppo = base"."""
        names = [name for name in self.ranked if name not in self.controls or name == self.baseline]
        signs = [" = " if self._mean(a) == self._mean(b) else " > " for a, b in pairwise(names)]
        return "".join(part for pair in zip(names, [*signs, ""], strict=True) for part in pair)

    @property
    def _best_first(self) -> list[str]:
        return [name for name in self.ranked if name in self.contenders]

    @cached_property
    def sentence(self) -> str:
        """Whether the winner changes, in words."""
        first, second = self._best_first[:2]
        text, primary = f"Under equal {formats.phrase(self.currency)} ({self.each})", formats.phrase(self.primary.name)
        if self.is_level:
            return f"{text} nothing tells the algorithms apart: all have {formats.fixed(self._mean(first))} {primary}."
        if self.leader not in self.places:
            text += f" {first} leads ({self.leader} is not ranked: {self.note(self.leader)})"
        elif self.winner_changes:
            text += f" the winner changes from {self.leader} to {first}"
        else:
            text += f" the winner stays {first}"
        pair = next((pair for pair in self.pairs if (pair.a, pair.b) == (first, second)), None)
        if pair is not None:
            gap = pair.difference
            places = formats.decimals([gap.mean])
            told = f"{formats.fixed(gap.mean, places, sign=True)} {primary}"
            told += f" {formats.span(gap.low, gap.high, places, sign=True)}"
            text += f", {told} over {second}: {pair.verdict.label}"
        best = next(name for name in self.whole.ranked if name in self.whole.contenders)
        return f"{text}." + (f" On all prompts {best} leads at the end." if best != self.leader else "")

    def seeds(self, algorithm: str) -> tuple[int, int]:
        """(seeds that are read here, seeds planned) of an algorithm."""
        ok, planned = self.whole.seeds(algorithm)
        place = self.places.get(algorithm)
        return len(place.seeds) if place else ok, planned

    # ---------------------------------------------------------------- what a section reads, at the amount

    def grid(self, algorithm: str, metric: str, probe: int | None = None) -> pd.DataFrame:
        """Scores (seeds, prompts) at the amount, on ``curve_prompts``; of a ``probe`` as in the whole section."""
        if probe is not None:
            return self.whole.grid(algorithm, metric, probe)
        key = (algorithm, metric, None)
        if key not in self._grids:
            parts = [(grids.grid(cube), weight) for cube, weight in self._parts(algorithm, metric)]
            self._grids[key] = self.whole.on_curve(_mixed(parts))
        return self._grids[key]

    def cube(self, algorithm: str, metric: str, probe: int | None = None) -> Cube:
        """``grid`` as a cube with one value a prompt: a mixture's mean, for it has no samples of its own."""
        if probe is not None:
            return self.whole.cube(algorithm, metric, probe)
        grid = self.grid(algorithm, metric)
        return Cube(grid.index, grid.columns, grid.to_numpy(float)[..., None])

    def outcomes(self, a: str, b: str, metric: str) -> pd.DataFrame:
        """P(a sample of ``a`` scores better than one of ``b``), ties half, each drawn from its mixture."""
        parts = [
            (grids.outcomes(mine, other, self.direction(metric)), (weight * against).dropna())
            for mine, weight in self._parts(a, metric)
            for other, against in self._parts(b, metric)
        ]
        return self.whole.on_curve(_mixed(parts))

    def share(self, algorithm: str, metric: str, test: Callable[[Floats], Bools]) -> float:
        """The share of a mixture's samples whose score passes ``test``; NaN where there is none."""
        parts = []
        for cube, weight in self._parts(algorithm, metric):
            passed = np.where(np.isfinite(cube.values), test(cube.values), np.nan)
            parts.append((grids.grid(Cube(cube.seeds, cube.prompts, passed)), weight))
        mixed = self.whole.on_curve(_mixed(parts))
        return float(mixed.to_numpy().mean()) if mixed.size else float("nan")

    def cost(self, algorithm: str) -> dict[str, float]:
        """What had been spent of each currency at the amount, mean over seeds; NaN for what has no place there."""
        if algorithm in self.notes:
            return dict.fromkeys(LEDGER, float("nan"))
        place = self.places.get(algorithm)
        return self.whole.cost(algorithm) if place is None else place.spent

    @cached_property
    def curve_prompts(self) -> pd.Index:
        return self.whole.curve_prompts

    @cached_property
    def _scores(self) -> dict[str, dict[int, CellScores]]:
        return self.whole._scores

    def _parts(self, algorithm: str, metric: str) -> list[tuple[Cube, pd.Series[float]]]:
        """The evaluations that an algorithm is a mixture of, each with its weight by seed; none where it has no place.

        What trains nothing is its one evaluation.
        """
        if algorithm in self.notes:
            return []
        place = self.places.get(algorithm)
        if place is None:
            cube = self.whole.cube(algorithm, metric)
            return [(cube, pd.Series(1.0, index=cube.seeds))]
        return [
            (_evaluated(self.whole, algorithm, metric, evaluation), pd.Series(weights, index=place.seeds))
            for evaluation, weights in zip(place.evaluations, place.weights.T, strict=True)
            if weights.any()
        ]


def _mixed(parts: list[tuple[pd.DataFrame, pd.Series[float]]]) -> pd.DataFrame:
    """The weighted sum of grids, on the seeds and prompts of all: empty where one of them is."""
    if not parts:
        return pd.DataFrame()
    seeds = reduce(pd.Index.intersection, [index for grid, weight in parts for index in (grid.index, weight.index)])
    prompts = reduce(pd.Index.intersection, [grid.columns for grid, _ in parts])
    weighted = [grid.loc[seeds, prompts].to_numpy(float) * weight[seeds].to_numpy()[:, None] for grid, weight in parts]
    return pd.DataFrame(np.sum(weighted, axis=0), index=seeds, columns=prompts)


def _evaluated(section: Section, algorithm: str, metric: str, evaluation: int) -> Cube:
    """The scores at an evaluation along training, or at ``START``."""
    if evaluation == START:
        return section.cube(str(section.baseline), metric)
    return section.cube(algorithm, metric, evaluation)


def by_currency(section: Section) -> dict[str, EqualSection]:
    """The currencies in which at least two contenders can be set equal."""
    trained = [name for name in section.finished if name != section.baseline and name not in section.idle]
    paths = {name: path for name in trained if (path := _path(section, name)) is not None}
    found = {currency: _equal(section, currency, trained, paths) for currency in CURRENCIES}
    return {currency: equal for currency, equal in found.items() if equal is not None}


def _equal(section: Section, currency: str, trained: list[str], paths: dict[str, _Path]) -> EqualSection | None:
    spend = {name: path for name, path in paths.items() if (path.spent[currency][:, -1] > 0).all()}
    ends = [float(path.spent[currency][:, -1].min()) for name, path in spend.items() if name in section.contenders]
    if len(ends) < 2:
        return None
    amount = min(ends)
    places, notes = {}, {}
    for name in trained:
        path = spend.get(name)
        if path is None:
            notes[name] = "spends none" if name in paths else "has no scores on the prompts of the learning curves"
        elif path.spent[currency][:, -1].min() < amount:
            notes[name] = "spent less than this amount"
        elif (reaching := path if path.spent[currency][:, 0].max() <= amount else path.from_start()) is None:
            notes[name] = "first measured beyond this amount"
        else:
            places[name] = reaching.at(currency, amount)
    if len([name for name in places if name in section.contenders]) < 2:
        return None
    return EqualSection(
        section.results, section.model, section.task, section.budget, section.slug, currency,
        whole=section, amount=amount, places=places, notes=notes,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Path:
    """One algorithm along training: its seeds, its evaluations, and by currency what it had spent, (K, E)."""

    seeds: pd.Index
    evaluations: tuple[int, ...]
    spent: dict[str, Floats]
    starts: pd.Index
    """The seeds whose baseline stands for ``START``; empty where an evaluation is there already, or none can be."""

    def from_start(self) -> _Path | None:
        """The same from ``START`` on, of the seeds that have one; None where none has."""
        kept = self.seeds.isin(self.starts)
        if not kept.any():
            return None
        spent = {name: np.insert(amounts[kept], 0, 0.0, axis=1) for name, amounts in self.spent.items()}
        return _Path(self.seeds[kept], (START, *self.evaluations), spent, self.starts)

    def at(self, currency: str, amount: float) -> Place:
        weights = np.zeros((len(self.seeds), len(self.evaluations)))
        for row, amounts in zip(weights, self.spent[currency], strict=True):
            right = min(int(np.searchsorted(amounts, amount)), len(amounts) - 1)
            left = max(0, right - 1)
            width = amounts[right] - amounts[left]
            weight = min(1.0, max(0.0, (amount - amounts[left]) / width)) if width > 0 else 1.0
            row[right] += weight
            row[left] += 1 - weight
        there = {name: float((amounts * weights).sum(axis=1).mean()) for name, amounts in self.spent.items()}
        share = float(np.minimum(1.0, amount / self.spent[currency][:, -1]).mean())
        return Place(self.seeds, self.evaluations, weights, there, share, self._how(weights))

    def _how(self, weights: Floats) -> str:
        """Between which evaluations the seeds were, in words."""
        from_start = not any(amounts[:, 0].any() for amounts in self.spent.values())
        last = len(self.evaluations) - 1
        names = [f"evaluation {i + (not from_start)}" for i in range(last)] + ["the end"]
        names[0] = "the start" if from_start and last else names[0]
        used = [name for name, column in zip(names, weights.T, strict=True) if column.any()]
        return f"measured at {used[0]}" if len(used) == 1 else f"between {used[0]} and {used[-1]}"


def _path(section: Section, name: str) -> _Path | None:
    """None for what has no scores on the prompts of the learning curves."""
    primary, count = section.primary.name, section.probe_count(name)
    spent = {evaluation: section.spent(name, evaluation) for evaluation in range(count)}
    seeds = section.grid(name, primary).index
    for evaluation, costs in spent.items():
        seeds = seeds.intersection(costs.index).intersection(_evaluated(section, name, primary, evaluation).seeds)
    if not len(seeds) or not len(section.curve_prompts):
        return None
    starts = pd.Index([], dtype=int)
    if section.baseline is not None and float(spent[0]["fraction"].min()) > 0:
        starts = section.grid(section.baseline, primary).index
    amounts = {k: np.stack([costs.loc[seeds, k].to_numpy(float) for costs in spent.values()], axis=1) for k in LEDGER}
    return _Path(seeds, tuple(spent), amounts, starts)
