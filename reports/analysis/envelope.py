"""What a KL budget buys with each algorithm: the best of its evaluations along training that stay within it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..optimum import best_within, hypervolume
from ..resampling import Interval, two_way_bootstrap
from ..statistics import Floats

if TYPE_CHECKING:
    from .section import Section

CAPS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Nats a sequence. A section's budgets end at the first that holds all its evaluations."""
DRAWS = 500
SEED = 0
"""Of the generator that draws the resamples."""


@dataclass(frozen=True)
class Envelope:
    """One trained algorithm's gains over the baseline on the prompts of the learning curves."""

    hypervolume: Interval
    """The mean over all budgets from 0 to the cap, in the metric's unit."""
    within: dict[float, Interval]
    """By budget, in nats."""
    evaluations: int


def envelopes(section: Section) -> tuple[float, dict[str, Envelope]]:
    """(cap, by algorithm); empty without a baseline, or without a KL along training."""
    paths = {name: path for name in section.trained if (path := _path(section, name)) is not None}
    if not paths:
        return CAPS[0], {}
    furthest = max(float(kl.mean(axis=(0, 1)).max()) for kl, _ in paths.values())
    place = min(int(np.searchsorted(CAPS, furthest)), len(CAPS) - 1)
    budgets = CAPS[max(0, place - 2) : place + 1]
    return CAPS[place], {name: _envelope(*path, budgets) for name, path in paths.items()}


def _path(section: Section, name: str) -> tuple[Floats, Floats] | None:
    """KL and gain of each seed and prompt at each evaluation, (K, P, E) both, larger gains better."""
    primary = section.primary.name
    if section.baseline is None or primary == "kl":
        return None
    probes = range(section.probe_count(name))
    start = section.on_curve(section.grid(section.baseline, primary))
    kls, scores = ([section.on_curve(section.grid(name, m, probe)) for probe in probes] for m in ("kl", primary))
    grids = [start, *kls, *scores]
    seeds = reduce(pd.Index.intersection, [grid.index for grid in grids])
    prompts = reduce(pd.Index.intersection, [grid.columns for grid in grids])
    if not kls or not len(seeds) or not len(prompts):
        return None
    first, *rest = (grid.loc[seeds, prompts].to_numpy(float) for grid in grids)
    kl, score = np.stack(rest[: len(kls)], axis=-1), np.stack(rest[len(kls) :], axis=-1)
    return kl, section.direction(primary) * (score - first[..., None])


def _envelope(kl: Floats, gain: Floats, budgets: tuple[float, ...]) -> Envelope:
    cap = budgets[-1]

    def bought(kl: Floats, gain: Floats) -> Floats:
        kls, gains = (values.mean(axis=(0, 1)) for values in (kl, gain))
        return np.array([hypervolume(kls, gains, cap) / cap, *(best_within(kls, gains, k) for k in budgets)])

    area, *within = two_way_bootstrap(bought, kl, gain, rng=np.random.default_rng(SEED), draws=DRAWS)
    return Envelope(area, dict(zip(budgets, within, strict=True)), kl.shape[2])
