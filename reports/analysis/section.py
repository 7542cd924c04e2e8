"""From scores to estimates: what tables and charts read, computed once a run.

A section is one (model, task, budget): the cells that can be compared. Every estimate is over the
seeds that ended well and the prompts that all of them answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from bakeoff.contracts import Metric

from .. import formats
from ..files import slug
from ..frame import CURRENCIES, Primary, Results
from ..preferences import LengthControlled
from ..records.scores import CellScores
from ..statistics import Components, Estimate, Floats, bounded, two_way, variance_components
from . import comparisons, curves, frontier, grids, standings
from .comparisons import Comparison
from .curves import Point
from .frontier import Frontier, Overoptimised
from .grids import Cube, align, means_by_seed
from .standings import Ranking

if TYPE_CHECKING:
    from .equality import EqualSection

Bools = npt.NDArray[np.bool_]
BASELINE = "base"
"""The algorithm that trains nothing: what gains are measured from."""
RANGE_SHARE = 0.02
"""The margin of a metric for which none is declared, as a share of its declared range."""


@dataclass(eq=False)
class Section:
    """The comparable cells of one model, task and budget, and what can be said about them."""

    results: Results
    model: str
    task: str
    budget: str
    slug: str
    """Prefix for file names; empty when the run has one section."""
    currency: str = ""
    """What all have spent the same of: empty for a section as run, to the end of its budget; see ``equality``."""
    _cubes: dict[tuple[str, str, int | None], Cube] = field(default_factory=dict, repr=False)
    _grids: dict[tuple[str, str, int | None], pd.DataFrame] = field(default_factory=dict, repr=False)
    _curves: dict[tuple[str, str], list[Point]] = field(default_factory=dict, repr=False)
    _comparisons: dict[str, list[Comparison]] = field(default_factory=dict, repr=False)

    @property
    def title(self) -> str:
        return f"{self.task} · {self.model} · {self.budget}"

    @property
    def suffix(self) -> str:
        """What the names of this section's tables and charts end with: "-flops" under equal FLOPs."""
        return f"-{self.currency}" if self.currency else ""

    @property
    def under(self) -> str:
        """The same for their titles: ", equal FLOPs"."""
        return f", equal {formats.phrase(self.currency)}" if self.currency else ""

    @property
    def preface(self) -> str:
        """What captions begin with: the amount that all have spent the same of; empty for a section as run."""
        return ""

    @cached_property
    def cells(self) -> pd.DataFrame:
        """``Results.cells`` of this section."""
        return self._mine(self.results.cells)

    @cached_property
    def algorithms(self) -> list[str]:
        """Labels in the plan's order, whatever became of their cells."""
        return list(dict.fromkeys(self.cells["algorithm"]))

    @cached_property
    def finished(self) -> list[str]:
        """Labels with at least one cell that ended well and has the primary metric."""
        return [name for name in self.algorithms if self.grid(name, self.primary.name).size]

    @cached_property
    def baseline(self) -> str | None:
        """The label of the untrained row, where it was measured."""
        rows = self.cells[self.cells["algorithm_name"] == BASELINE]
        return next((name for name in rows["algorithm"] if name in self.finished), None)

    @property
    def trained(self) -> list[str]:
        return [name for name in self.finished if name != self.baseline]

    @cached_property
    def controls(self) -> frozenset[str]:
        """Labels of rows that others are held against and that win nothing; the baseline is one."""
        return frozenset(self.cells.loc[self.cells["is_control"].astype(bool), "algorithm"])

    @cached_property
    def idle(self) -> frozenset[str]:
        """Controls that took no optimizer step: they work at inference, or not at all."""
        stepped = self.cells.loc[self.cells["spent_steps"] > 0, "algorithm"]
        return self.controls - set(stepped)

    @property
    def contenders(self) -> list[str]:
        """Finished labels that are no controls."""
        return [name for name in self.trained if name not in self.controls]

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Declared metrics of this section's cells that were measured."""
        declared = self.results.declared(self.cells["id"])
        return {name: declared[name] for name in declared if name in self._measured}

    @cached_property
    def primary(self) -> Primary:
        return self.results.primary_of(self._measured)

    @property
    def higher_is_better(self) -> bool:
        return self.direction(self.primary.name) > 0

    def direction(self, metric: str) -> float:
        """-1 for a metric that is better when lower, else 1."""
        declared = self.metrics.get(metric)
        return -1.0 if declared is not None and declared.direction == "lower" else 1.0

    def margin(self, metric: str) -> float | None:
        """The largest difference that does not matter: as declared, or 2 % of the range; None without a range."""
        declaration = self.results.declaration
        if metric == declaration["primary_metric"] and declaration["margin"] is not None:
            return float(declaration["margin"])
        declared = self.metrics.get(metric)
        if declared is None or declared.low is None or declared.high is None:
            return None
        return RANGE_SHARE * (declared.high - declared.low)

    @cached_property
    def limits(self) -> dict[str, float]:
        """What the budget of this section limits, by currency."""
        budgets = self.results.plan.get("matrix", {}).get("budgets", ())
        named: dict[str, float] = next((budget for budget in budgets if budget.get("name") == self.budget), {})
        return {name: named[name] for name in CURRENCIES if named.get(name) is not None}

    def seeds(self, algorithm: str) -> tuple[int, int]:
        """(seeds that ended well, seeds planned) of an algorithm."""
        rows = self.cells[self.cells["algorithm"] == algorithm]
        return int((rows["status"] == "ok").sum()), len(rows)

    @cached_property
    def ranked(self) -> list[str]:
        """Finished algorithms, best primary metric first."""
        sign = -self.direction(self.primary.name)
        return sorted(self.finished, key=lambda name: sign * self._mean(name))

    @cached_property
    def unranked(self) -> list[str]:
        """Labels that are never sampled (encoders, reward models) and so have no score by the primary metric: they are
        measured, not ranked."""
        rows = self.cells[(self.cells["status"] == "ok") & ~self.cells["algorithm"].isin(self.finished)]
        pairs = zip(rows["id"], rows["algorithm"], strict=True)
        return list(
            dict.fromkeys(name for cell, name in pairs if not self.results.record(cell).get("is_sampled", True))
        )

    @cached_property
    def stages(self) -> pd.DataFrame:
        """``Results.stages`` of this section."""
        return self._mine(self.results.stages())

    # ----------------------------------------------------------------------------- estimates

    def cube(self, algorithm: str, metric: str, probe: int | None = None) -> Cube:
        """Scores (seeds, prompts, samples) at the end, or at the ``probe``-th evaluation along training.

        Prompts and samples that any of the seeds lacks are left out.
        """
        key = (algorithm, metric, probe)
        if key not in self._cubes:
            last = probe is None or probe == self.probe_count(algorithm) - 1
            self._cubes[key] = grids.cube(self._cells_of(algorithm), metric, -1 if last else int(probe or 0))
        return self._cubes[key]

    def grid(self, algorithm: str, metric: str, probe: int | None = None) -> pd.DataFrame:
        """Scores (seeds, prompts), mean over samples, at the end or at the ``probe``-th evaluation.

        Prompts that any of the seeds has no finite score for are left out.
        """
        key = (algorithm, metric, probe)
        if key not in self._grids:
            self._grids[key] = grids.grid(self.cube(algorithm, metric, probe))
        return self._grids[key]

    def outcomes(self, a: str, b: str, metric: str) -> pd.DataFrame:
        """P(a sample of ``a`` scores better than one of ``b``), ties half: (seeds, prompts) that both have."""
        return grids.outcomes(self.cube(a, metric), self.cube(b, metric), self.direction(metric))

    def share(self, algorithm: str, metric: str, test: Callable[[Floats], Bools]) -> float:
        """The share of an algorithm's samples whose score passes ``test``; NaN where there is none."""
        values = np.asarray(self.values(algorithm, metric), dtype=np.float64)
        return float(test(values).mean()) if len(values) else float("nan")

    def cost(self, algorithm: str) -> dict[str, float]:
        """What training spent of each currency, mean over the seeds that ended well."""
        done = self.cells[(self.cells["algorithm"] == algorithm) & (self.cells["status"] == "ok")]
        return {currency: float(done[f"spent_{currency}"].mean()) for currency in CURRENCIES}

    def estimate(self, algorithm: str, metric: str) -> Estimate | None:
        """Mean of a metric at the end of training, or None where it was not measured."""
        grid = self.grid(algorithm, metric)
        return self.two_way(grid, metric) if grid.size else None

    def two_way(self, grid: pd.DataFrame, metric: str) -> Estimate:
        """The mean with its interval, which ends where the metric's declared range does."""
        declared = self.metrics.get(metric)
        estimate = two_way(grid.to_numpy())
        return bounded(estimate, declared.low, declared.high) if declared else estimate

    def components(self, algorithm: str) -> Components | None:
        """Where the variance of the primary metric comes from; None with one seed, one prompt, or a gap."""
        cube = self.cube(algorithm, self.primary.name)
        values = cube.values[:, np.isfinite(cube.values).all(axis=(0, 2))]
        return variance_components(values) if min(values.shape[:2], default=0) > 1 and values.size else None

    @cached_property
    def effects(self) -> dict[str, Comparison]:
        """Each trained algorithm against the baseline, by its label."""
        return {pair.a: pair for pair in self.pairs if pair.b == self.baseline}

    @cached_property
    def pairs(self) -> list[Comparison]:
        """Every pair on the primary metric: see ``comparisons.compare`` for their order."""
        return self.comparisons(self.primary.name)

    def comparisons(self, metric: str) -> list[Comparison]:
        """Every pair on any metric; those of all but the primary one are exploratory and not adjusted."""
        if metric not in self._comparisons:
            self._comparisons[metric] = comparisons.compare(self, metric)
        return self._comparisons[metric]

    @cached_property
    def length_controlled(self) -> dict[str, LengthControlled]:
        """By trained algorithm: the win rate over where training started as it would be at equal length."""
        return standings.length_controlled(self)

    @cached_property
    def ranking(self) -> Ranking | None:
        """Bradley-Terry strengths of the finished algorithms by the primary metric; None with fewer than three."""
        return standings.ranking(self)

    @cached_property
    def tiers(self) -> dict[str, str]:
        """Letters of each finished algorithm: two that share one are not separated by a verdict."""
        return standings.tiers(self)

    @cached_property
    def frontier(self) -> Frontier | None:
        """What KL buys at best, and what each algorithm made of it; None without a pool of reference samples."""
        return frontier.of(self)

    @cached_property
    def overoptimised(self) -> dict[str, Overoptimised]:
        """By trained algorithm: training reward and gold reward against KL; empty where they are one and the same."""
        return frontier.overoptimised(self)

    @cached_property
    def equal_by(self) -> dict[str, EqualSection]:
        """By currency: this section where all had spent the same of it, the currencies in which that can be said."""
        from .equality import by_currency  # whose sections are made of this one

        return by_currency(self)

    def by_seed(self, algorithm: str) -> dict[int, float]:
        """Mean gain over the baseline of each seed; the mean itself where there is no baseline."""
        if self.baseline is None:
            return means_by_seed(self.grid(algorithm, self.primary.name))
        primary = self.primary.name
        a, b = align(self.grid(algorithm, primary), self.grid(self.baseline, primary))
        return means_by_seed(a - b)

    def curve(self, algorithm: str, metric: str) -> list[Point]:
        """A metric along training, every point of every algorithm on ``curve_prompts``.

        What trains and has no evaluation at 0 starts where the baseline stands, for that is the policy it was given.
        """
        if (algorithm, metric) not in self._curves:
            self._curves[algorithm, metric] = curves.of(self, algorithm, metric)
        return self._curves[algorithm, metric]

    @cached_property
    def curve_prompts(self) -> pd.Index:
        """Prompts with a primary score at every evaluation of every algorithm.

        Probes may ask fewer prompts than the end does; on shared prompts a curve's shape is not a change of prompts.
        """
        shared: pd.Index | None = None
        for name in self.finished:
            for probe in range(self.probe_count(name)):
                prompts = self.grid(name, self.primary.name, probe).columns
                shared = prompts if shared is None else shared.intersection(prompts)
        return shared if shared is not None else pd.Index([])

    def on_curve(self, grid: pd.DataFrame) -> pd.DataFrame:
        """The columns of a grid that are among ``curve_prompts``."""
        return grid[grid.columns.intersection(self.curve_prompts)]

    def final_scores(self, algorithm: str, seed: int) -> pd.DataFrame:
        """Scores of the first samples of one cell at the end: one row a prompt, one column a metric."""
        scores = self._cells_of(algorithm)[seed]
        first = {metric: scores.at(metric, -1)[:, 0] for metric in scores.metrics}
        return pd.DataFrame(first, index=scores.prompts).dropna(how="all")

    def values(self, algorithm: str, metric: str) -> pd.Series[float]:
        """Every score of a metric at the end of training, one a sample."""
        values = self.cube(algorithm, metric).values.ravel()
        return pd.Series(values[np.isfinite(values)])

    def probe_count(self, algorithm: str) -> int:
        """Evaluations that every seed of an algorithm has; seeds may have stopped at slightly different shares."""
        return min((len(scores.fractions) for scores in self._cells_of(algorithm).values()), default=0)

    def spent(self, algorithm: str, probe: int) -> pd.DataFrame:
        """What each seed, the index, had spent of each currency at an evaluation, and ``fraction``."""
        rows = self._ledger[(self._ledger["algorithm"] == algorithm) & (self._ledger["status"] == "ok")]
        last = rows["fraction"] == 1.0
        final = probe == self.probe_count(algorithm) - 1
        columns = ["fraction", *CURRENCIES]
        return rows[last if final else ~last & (rows["probe"] == probe)].set_index("seed")[columns].astype(float)

    # ------------------------------------------------------------------------------- plumbing

    @cached_property
    def _measured(self) -> list[str]:
        """Metrics that any cell that ended well has scores of, sorted."""
        return sorted({name for scores in self._scores.values() for cell in scores.values() for name in cell.metrics})

    @cached_property
    def _scores(self) -> dict[str, dict[int, CellScores]]:
        """Scores of the cells that ended well, by algorithm and seed."""
        found: dict[str, dict[int, CellScores]] = {name: {} for name in self.algorithms}
        for cell in self.cells[self.cells["status"] == "ok"].sort_values("seed").itertuples():
            found[str(cell.algorithm)][int(str(cell.seed))] = self.results.scores(str(cell.id))
        return found

    def _cells_of(self, algorithm: str) -> dict[int, CellScores]:
        return self._scores.get(algorithm, {})

    @cached_property
    def _ledger(self) -> pd.DataFrame:
        probes = self._mine(self.results.probes())
        rank = probes.groupby("id", observed=True)["fraction"].rank(method="dense") - 1
        return probes.assign(probe=rank.fillna(0).astype(int))

    def _mine(self, frame: pd.DataFrame) -> pd.DataFrame:
        mine = (frame["model"] == self.model) & (frame["task"] == self.task) & (frame["budget"] == self.budget)
        return frame[mine]

    def _mean(self, algorithm: str) -> float:
        return float(self.grid(algorithm, self.primary.name).to_numpy().mean())


def sections(results: Results) -> tuple[Section, ...]:
    """The sections of a run in the plan's order; made once, so that every writer reads the same estimates."""
    if "sections" not in results.memo:
        results.memo["sections"] = _sections(results)
    made: tuple[Section, ...] = results.memo["sections"]
    return made


def _sections(results: Results) -> tuple[Section, ...]:
    keys = list(dict.fromkeys(_keys(results)))
    names: dict[str, int] = {}
    made = []
    for model, task, budget in keys:
        name = slug(task, model, budget) if len(keys) > 1 else ""
        names[name] = names.get(name, 0) + 1
        made.append(Section(results, model, task, budget, name if names[name] == 1 else f"{name}-{names[name]}"))
    return tuple(made)


def _keys(results: Results) -> Iterator[tuple[str, str, str]]:
    for cell in results.plan["cells"]:
        yield cell["model"], cell["task"], cell["budget"]
