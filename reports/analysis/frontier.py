"""Reward against KL for one section: the frontier that any policy could reach, and how far each algorithm got.

The pool is of samples of the reference, the policy that all algorithms of the section start from, on the held-out
prompts, scored by the task. KL is the exact one that the evaluator ``kl`` measured, never what a trainer logged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..optimum import (
    BestOfN,
    Curve,
    Overoptimisation,
    best_of_n,
    efficiency,
    fit_overoptimisation,
    mean_curve,
    tilted,
    worth_best_of,
)
from ..resampling import Interval, two_way_bootstrap
from ..statistics import Estimate, Floats

if TYPE_CHECKING:
    from .section import Section

KL, GOLD, PROXY = "kl", "gold_reward", "train_reward"
SEED = 0
"""Of the generator that draws the resamples."""
DRAWS = 500


@dataclass(frozen=True)
class OnFrontier:
    """Where one trained algorithm ends, over its seeds and the prompts of the pool."""

    kl: Estimate
    reward: Estimate
    efficiency: Interval
    """Gain over the reference as a share of the largest that this KL can buy, with a two-way bootstrap interval."""
    is_bound: bool
    """The KL is beyond the frontier: ``efficiency`` is "at most", NaN where not even that can be said."""
    worth: Interval
    """The n whose best-of-n is as good, at the reward and at the ends of its interval; infinite beyond the pool."""

    @property
    def claim(self) -> str:
        """ "worth best-of-6.3", "worth more than best-of-16" or "worth one sample"."""
        if not np.isfinite(self.worth.value):
            return "worth more than the best of all samples that were drawn"
        return "worth one sample" if self.worth.value <= 1 else f"worth best-of-{self.worth.value:.2g}"


@dataclass(frozen=True)
class Frontier:
    """What KL from the reference can buy, estimated from the reference's samples alone."""

    metric: str
    """The primary metric, which the pool is scored by."""
    attainable: Curve
    """The highest mean reward at each KL; one point, the reference's own, where the pool is too small."""
    best_of_n: BestOfN
    prompts: int
    samples: int
    """Of the pool, a prompt."""
    policies: dict[str, OnFrontier]
    """By trained algorithm; empty where no KL was measured."""

    @property
    def reference(self) -> float:
        """The reference's own mean reward."""
        return float(self.best_of_n.reward[0])


@dataclass(frozen=True)
class Overoptimised:
    """Training reward (the proxy) and gold reward of one algorithm along training, means over seeds."""

    kl: Floats
    proxy: Floats
    gold: Floats
    """(E,) each, one number an evaluation, the start first."""
    fit: Overoptimisation | None
    """Of the gold gain, Gao's form; None with fewer than three evaluations away from the start."""

    @property
    def peak(self) -> int:
        """Which evaluation had the best gold reward."""
        return int(self.gold.argmax())

    @property
    def drop(self) -> float:
        """Gold reward lost from its peak to the end; 0 where the end is the peak."""
        return float(self.gold.max() - self.gold[-1])


def of(section: Section) -> Frontier | None:
    """The frontier of a section by its primary metric; None where no pool was drawn or scored by that metric.

    Under an equal amount it is of the prompts that scores are read on there.
    """
    metric, wide = section.primary.name, _pool(section)
    if wide is not None and section.currency:
        wide = wide.loc[wide.index.intersection(section.curve_prompts)]
    if wide is None or wide.empty:
        return None
    rewards, sign = wide.to_numpy(float), section.direction(metric)
    kls, tilts = tilted(rewards, sign=sign)
    curve = mean_curve(kls, tilts, samples=rewards.shape[1])
    best = best_of_n(rewards, sign=sign)
    policies = {}
    for name in section.trained:
        grids = [section.grid(name, which) for which in (metric, KL)]
        prompts = grids[0].columns.intersection(grids[1].columns).intersection(wide.index)
        if not grids[1].size or not len(prompts):
            continue
        reward, kl = (grid.loc[grids[0].index.intersection(grids[1].index), prompts] for grid in grids)
        rows = wide.index.get_indexer(prompts)
        by_prompt = kls[:, rows], tilts[:, rows]
        policies[name] = _placed(section, reward, kl, Frontier(metric, curve, best, *rewards.shape, {}), by_prompt)
    return Frontier(metric, curve, best, *rewards.shape, policies)


def on_prompts(section: Section, prompts: pd.Index) -> tuple[Curve, BestOfN, int] | None:
    """What KL buys on ``prompts`` alone, (frontier, best-of-n, prompts): to draw beside curves over these prompts."""
    wide = _pool(section)
    kept = wide.loc[wide.index.intersection(prompts)] if wide is not None else None
    if kept is None or kept.empty:
        return None
    rewards, sign = kept.to_numpy(float), section.direction(section.primary.name)
    curve = mean_curve(*tilted(rewards, sign=sign), samples=rewards.shape[1])
    return curve, best_of_n(rewards, sign=sign), len(kept)


def _pool(section: Section) -> pd.DataFrame | None:
    """The primary metric of the reference's samples, (prompts, samples); None where there is none."""
    metric = section.primary.name
    pool = section.results.reference_pool(section.cells["id"])
    if pool is None or metric not in pool.columns:
        return None
    return pool.pivot(index="prompt_id", columns="sample", values=metric).dropna(axis="index")


def _placed(
    section: Section, reward: pd.DataFrame, kl: pd.DataFrame, pool: Frontier, by_prompt: tuple[Floats, Floats]
) -> OnFrontier:
    """Where an algorithm ends; ``by_prompt`` are the pool's KL and reward, (T, P), of the prompts of its grids."""
    metric, sign = pool.metric, section.direction(pool.metric)
    at_end = section.two_way(reward, metric)
    kl_at_end = section.two_way(kl, KL)

    def share(rewards: Floats, kls: Floats, prompts: Floats) -> float:
        drawn = prompts[0].astype(int)
        frontier = mean_curve(by_prompt[0][:, drawn], by_prompt[1][:, drawn], samples=pool.samples)
        return efficiency(float(rewards.mean()), float(kls.mean()), frontier).value

    place = np.broadcast_to(np.arange(reward.shape[1], dtype=float), reward.shape)
    # Resamples in which the KL buys nothing have no efficiency; they are left out of the quantiles.
    whole = efficiency(at_end.mean, kl_at_end.mean, pool.attainable)
    found = Interval(np.nan, np.nan, np.nan)
    if np.isfinite(whole.value):
        rng = np.random.default_rng(SEED)
        (found,) = two_way_bootstrap(share, reward.to_numpy(), kl.to_numpy(), place, rng=rng, draws=DRAWS)
    ends = sorted((at_end.low, at_end.high), key=lambda end: sign * end)
    worth = Interval(*(worth_best_of(value, pool.best_of_n, sign=sign) for value in (at_end.mean, *ends)))
    return OnFrontier(kl_at_end, at_end, found, whole.is_bound, worth)


def overoptimised(section: Section) -> dict[str, Overoptimised]:
    """By trained algorithm, where KL and both rewards were measured and these are not one and the same for all."""
    if not {KL, GOLD, PROXY} <= set(section.metrics):
        return {}
    found = {}
    for name in section.trained:
        curves = [section.curve(name, metric) for metric in (KL, PROXY, GOLD)]
        if not curves[0] or len({len(curve) for curve in curves}) > 1:
            continue
        kl, proxy, gold = (np.array([point.estimate.mean for point in curve]) for curve in curves)
        away = kl > 0
        fit = fit_overoptimisation(kl[away], gold[away] - gold[0]) if away.sum() >= 3 and not away[0] else None
        found[name] = Overoptimised(kl, proxy, gold, fit)
    return found if any(not np.allclose(each.proxy, each.gold) for each in found.values()) else {}


def kl_floor(section: Section) -> Estimate | None:
    """The KL that the same measurement gives to the untrained policy: anything below it is noise of the arithmetic."""
    return section.estimate(section.baseline, KL) if section.baseline is not None else None
