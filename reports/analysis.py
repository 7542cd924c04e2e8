"""From scores to estimates: what tables and charts read, computed once a run.

A section is one (model, task, budget): the cells that can be compared. Every estimate is over the
seeds that ended well and the prompts that all of them answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from bakeoff.contracts import Metric

from .files import slug
from .frame import CURRENCIES, Primary, Results
from .statistics import Estimate, Floats, Verdict, bounded, holm, paired_difference, two_way, verdict, win_rate

BASELINE = "base"
"""The algorithm that trains nothing: what gains are measured from."""


@dataclass(frozen=True)
class Comparison:
    """Algorithm ``a`` against ``b`` on the primary metric. ``difference`` is a - b on shared seeds and prompts."""

    a: str
    b: str
    difference: Estimate
    win_rate: Estimate
    family: str
    p_holm: float
    verdict: Verdict


@dataclass(frozen=True)
class Point:
    """One algorithm at one evaluation along training, over its seeds."""

    fraction: float
    estimate: Estimate
    by_seed: dict[int, float]
    spent: dict[str, float]
    """Mean over seeds of each currency of the ledger."""
    spent_by_seed: dict[int, dict[str, float]] = field(default_factory=dict)


@dataclass(eq=False)
class Section:
    """The comparable cells of one model, task and budget, and what can be said about them."""

    results: Results
    model: str
    task: str
    budget: str
    slug: str
    """Prefix for file names; empty when the run has one section."""
    _grids: dict[tuple[str, str, int | None], pd.DataFrame] = field(default_factory=dict, repr=False)
    _curves: dict[tuple[str, str], list[Point]] = field(default_factory=dict, repr=False)

    @property
    def title(self) -> str:
        return f"{self.task} · {self.model} · {self.budget}"

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
    def metrics(self) -> dict[str, Metric]:
        """Declared metrics of this section's cells that were measured."""
        declared = self.results.declared(self.cells["id"])
        return {name: declared[name] for name in declared if name in set(self._scores["metric"])}

    @cached_property
    def primary(self) -> Primary:
        return self.results.primary_of(self._scores["metric"].unique())

    @property
    def higher_is_better(self) -> bool:
        metric = self.metrics.get(self.primary.name)
        return metric is None or metric.direction != "lower"

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
        sign = -1 if self.higher_is_better else 1
        return sorted(self.finished, key=lambda name: sign * self._mean(name))

    # ----------------------------------------------------------------------------- estimates

    def grid(self, algorithm: str, metric: str, probe: int | None = None) -> pd.DataFrame:
        """Scores (seeds, prompts), mean over samples, at the end or at the ``probe``-th evaluation.

        Prompts that any of the seeds has no finite score for are left out.
        """
        key = (algorithm, metric, probe)
        if key not in self._grids:
            rows = self._rows(algorithm, metric, probe)
            self._grids[key] = rows.groupby(["seed", "prompt_id"])["value"].mean().unstack().dropna(axis="columns")
        return self._grids[key]

    def estimate(self, algorithm: str, metric: str) -> Estimate | None:
        """Mean of a metric at the end of training, or None where it was not measured."""
        grid = self.grid(algorithm, metric)
        return self._two_way(grid, metric) if grid.size else None

    def _two_way(self, grid: pd.DataFrame, metric: str) -> Estimate:
        """The mean with its interval, which ends where the metric's declared range does."""
        declared = self.metrics.get(metric)
        estimate = two_way(grid.to_numpy())
        return bounded(estimate, declared.low, declared.high) if declared else estimate

    @cached_property
    def effects(self) -> dict[str, Comparison]:
        """Each trained algorithm against the baseline: the primary family, Holm-adjusted."""
        if self.baseline is None:
            return {}
        pairs = [(name, self.baseline) for name in self.trained]
        return {comparison.a: comparison for comparison in self._family(pairs, f"against {self.baseline}")}

    @cached_property
    def pairs(self) -> list[Comparison]:
        """Both Holm families: against the baseline, and trained algorithms against each other (better one first)."""
        names = [name for name in self.ranked if name != self.baseline]
        among = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        return [*self.effects.values(), *self._family(among, "among trained")]

    def by_seed(self, algorithm: str) -> dict[int, float]:
        """Mean gain over the baseline of each seed; the mean itself where there is no baseline."""
        if self.baseline is None:
            return _by_seed(self.grid(algorithm, self.primary.name))
        primary = self.primary.name
        a, b = _align(self.grid(algorithm, primary), self.grid(self.baseline, primary))
        return _by_seed(a - b)

    def curve(self, algorithm: str, metric: str) -> list[Point]:
        """A metric along training, every point of every algorithm on ``curve_prompts``.

        An algorithm without an evaluation at 0 starts where the baseline stands, for that is the policy it was given.
        """
        if (algorithm, metric) not in self._curves:
            self._curves[algorithm, metric] = self._curve(algorithm, metric)
        return self._curves[algorithm, metric]

    def _curve(self, algorithm: str, metric: str) -> list[Point]:
        grids = [self._on_curve(self.grid(algorithm, metric, probe)) for probe in range(self._probe_count(algorithm))]
        if not grids or any(not grid.size for grid in grids):
            return []
        points = [self._point(grid, metric, self._spent(algorithm, probe)) for probe, grid in enumerate(grids)]
        if algorithm != self.baseline and self.baseline and points[0].fraction > 0:
            start = self._on_curve(self.grid(self.baseline, metric))
            if start.size:
                points.insert(0, self._point(start, metric, None))
        return points

    @cached_property
    def curve_prompts(self) -> pd.Index:
        """Prompts with a primary score at every evaluation of every algorithm.

        Probes may ask fewer prompts than the end does; on shared prompts a curve's shape is not a change of prompts.
        """
        shared: pd.Index | None = None
        for name in self.finished:
            for probe in range(self._probe_count(name)):
                prompts = self.grid(name, self.primary.name, probe).columns
                shared = prompts if shared is None else shared.intersection(prompts)
        return shared if shared is not None else pd.Index([])

    def _on_curve(self, grid: pd.DataFrame) -> pd.DataFrame:
        return grid[grid.columns.intersection(self.curve_prompts)]

    def final_scores(self, algorithm: str, seed: int) -> pd.DataFrame:
        """Scores of the first samples of one cell at the end: one row a prompt, one column a metric."""
        rows = self._scores
        rows = rows[(rows["algorithm"] == algorithm) & (rows["seed"] == seed) & (rows["fraction"] == 1.0)]
        rows = rows[rows["sample"] == rows["sample"].min()]
        return rows.pivot(index="prompt_id", columns="metric", values="value")

    def values(self, algorithm: str, metric: str) -> pd.Series[float]:
        """Every score of a metric at the end of training, one a sample."""
        return self._rows(algorithm, metric, None)["value"]

    # ------------------------------------------------------------------------------- plumbing

    @cached_property
    def _scores(self) -> pd.DataFrame:
        """Scores of cells that ended well, with ``probe``: the rank of the evaluation within its cell, from 0."""
        scores = self._mine(self.results.scores)
        scores = scores[scores["status"] == "ok"]
        return scores.assign(probe=_rank(scores))

    @cached_property
    def _tables(self) -> dict[tuple[str, str], pd.DataFrame]:
        groups = self._scores.groupby(["algorithm", "metric"], sort=False)
        return {(str(algorithm), str(metric)): rows for (algorithm, metric), rows in groups}

    @cached_property
    def _ledger(self) -> pd.DataFrame:
        probes = self._mine(self.results.probes())
        return probes.assign(probe=_rank(probes))

    def _mine(self, frame: pd.DataFrame) -> pd.DataFrame:
        mine = (frame["model"] == self.model) & (frame["task"] == self.task) & (frame["budget"] == self.budget)
        return frame[mine]

    def _rows(self, algorithm: str, metric: str, probe: int | None) -> pd.DataFrame:
        """Scores of one metric at the ``probe``-th evaluation, at the end when None."""
        rows = self._tables.get((algorithm, metric))
        if rows is None:
            return self._scores.head(0)
        last = rows["fraction"] == 1.0
        at_end = probe is None or probe == self._probe_count(algorithm) - 1
        return rows[last] if at_end else rows[~last & (rows["probe"] == probe)]

    def _probe_count(self, algorithm: str) -> int:
        """Evaluations that every seed of an algorithm has; seeds may have stopped at slightly different shares."""
        return self._probe_counts.get(algorithm, 0)

    @cached_property
    def _probe_counts(self) -> dict[str, int]:
        last = self._scores.groupby(["algorithm", "seed"])["probe"].max().groupby(level="algorithm").min()
        return {str(name): int(probe) + 1 for name, probe in last.items()}

    def _spent(self, algorithm: str, probe: int) -> pd.DataFrame:
        rows = self._ledger[(self._ledger["algorithm"] == algorithm) & (self._ledger["status"] == "ok")]
        last = rows["fraction"] == 1.0
        final = probe == self._probe_count(algorithm) - 1
        return rows[last if final else ~last & (rows["probe"] == probe)].set_index("seed")

    def _point(self, grid: pd.DataFrame, metric: str, spent: pd.DataFrame | None) -> Point:
        by_seed = _by_seed(grid)
        if spent is None:
            nothing = dict.fromkeys(CURRENCIES, 0.0)
            return Point(0.0, self._two_way(grid, metric), by_seed, nothing, {seed: nothing for seed in by_seed})
        costs = spent[list(CURRENCIES)].astype(float)
        spent_by_seed = {int(seed): dict(zip(CURRENCIES, row, strict=True)) for seed, *row in costs.itertuples()}
        mean = {name: float(costs[name].mean()) for name in CURRENCIES}
        return Point(float(spent["fraction"].mean()), self._two_way(grid, metric), by_seed, mean, spent_by_seed)

    def _mean(self, algorithm: str) -> float:
        return float(self.grid(algorithm, self.primary.name).to_numpy().mean())

    def _family(self, pairs: list[tuple[str, str]], family: str) -> list[Comparison]:
        measured = [(a, b, *found) for a, b in pairs if (found := self._compare(a, b)) is not None]
        adjusted = holm([difference.p for _, _, difference, _ in measured])
        return [
            Comparison(a, b, difference, rate, family, float(p), self._verdict(difference, float(p)))
            for (a, b, difference, rate), p in zip(measured, adjusted, strict=True)
        ]

    def _verdict(self, difference: Estimate, p: float) -> Verdict:
        return verdict(difference, p, higher_is_better=self.higher_is_better)

    def _compare(self, a: str, b: str) -> tuple[Estimate, Estimate] | None:
        """(difference, win rate) on the seeds and prompts that both have; None when they share none."""
        left, right = _align(self.grid(a, self.primary.name), self.grid(b, self.primary.name))
        if not left.size:
            return None
        sign = 1.0 if self.higher_is_better else -1.0
        cubes = [sign * self._cube(name, left) for name in (a, b)]
        return paired_difference(left.to_numpy(), right.to_numpy()), win_rate(*cubes)

    def _cube(self, algorithm: str, like: pd.DataFrame) -> Floats:
        """Primary scores (seeds, prompts, samples) in the order of ``like``; NaN where a sample is missing."""
        rows = self._rows(algorithm, self.primary.name, None)
        wide = rows.pivot(index="seed", columns=["prompt_id", "sample"], values="value")
        samples = wide.columns.get_level_values("sample").unique()
        columns = pd.MultiIndex.from_product([like.columns, samples], names=wide.columns.names)
        return wide.reindex(index=like.index, columns=columns).to_numpy(float).reshape(*like.shape, len(samples))


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


def _by_seed(grid: pd.DataFrame) -> dict[int, float]:
    return {int(seed): float(mean) for seed, mean in zip(grid.index, grid.mean(axis=1), strict=True)}


def _align(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both on the seeds and prompts that they share, in one order."""
    seeds, prompts = a.index.intersection(b.index), a.columns.intersection(b.columns)
    return a.loc[seeds, prompts], b.loc[seeds, prompts]


def _rank(rows: pd.DataFrame) -> pd.Series[int]:
    """Each row's evaluation within its cell, from 0 in the order of the budget spent."""
    return (rows.groupby("id")["fraction"].rank(method="dense") - 1).fillna(0).astype(int)
