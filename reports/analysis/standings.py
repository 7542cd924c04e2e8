"""Where each algorithm of a section stands among all: tiers, a Bradley-Terry ranking, win rates at equal length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .. import preferences
from ..preferences import LengthControlled, bradley_terry_ranking
from .grids import align

if TYPE_CHECKING:
    from .section import Section

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SEED = 0
"""Of the generator that draws the resamples."""
RANKING_DRAWS = 500
WIN_RATE, LENGTH = "win_rate", "length_tokens"


@dataclass(frozen=True)
class Ranking:
    """Strengths by Bradley and Terry, from who scores higher on the same prompt and seed."""

    algorithms: tuple[str, ...]
    seeds: int
    prompts: int
    fit: preferences.Ranking
    """Its arrays are in the order of ``algorithms``."""


def ranking(section: Section) -> Ranking | None:
    """Of the contenders and the baseline, on the seeds and prompts that all of them have: controls are not ranked."""
    names, metric = _ranked(section, section.finished), section.primary.name
    if len(names) < 3:
        return None
    met = {(a, b): section.outcomes(a, b, metric) for a, b in combinations(names, 2)}
    seeds = reduce(pd.Index.intersection, [each.index for each in met.values()])
    prompts = reduce(pd.Index.intersection, [each.columns for each in met.values()])
    if not len(seeds) or not len(prompts):
        return None
    outcomes = np.full((len(seeds), len(prompts), len(names), len(names)), np.nan)
    for (a, b), each in met.items():
        i, j = names.index(a), names.index(b)
        outcomes[:, :, i, j] = each.loc[seeds, prompts]
        outcomes[:, :, j, i] = 1 - outcomes[:, :, i, j]
    fit = bradley_terry_ranking(outcomes, rng=np.random.default_rng(SEED), draws=RANKING_DRAWS)
    return Ranking(tuple(names), len(seeds), len(prompts), fit)


def _ranked(section: Section, names: Sequence[str]) -> list[str]:
    """Of ``names`` the contenders and the baseline: other controls take no place among them."""
    return [name for name in names if name not in section.controls - {section.baseline}]


def length_controlled(section: Section) -> dict[str, LengthControlled]:
    """The judge's win rate over the start at equal length, by trained algorithm.

    The start's lengths are the untrained base's, so there is none after a warm start. A prompt's difficulty is the
    logit of what the other trained algorithms win on it.
    """
    warm = section.results.plan.get("matrix", {}).get("warm_start")
    if section.baseline is None or warm or not {WIN_RATE, LENGTH} <= set(section.metrics):
        return {}
    found = {}
    for name in section.trained:
        outcomes, lengths = _against_start(section, name)
        if outcomes.size:
            difficulty = _difficulty(section, name, outcomes.columns)
            found[name] = preferences.length_controlled(outcomes.to_numpy(), lengths.to_numpy(), difficulty=difficulty)
    return found


def at_equal_length(section: Section, name: str) -> pd.DataFrame:
    """``LengthControlled.answers`` of an algorithm as a grid, (seeds, prompts); empty where there is none."""
    found = section.length_controlled.get(name)
    if found is None:
        return pd.DataFrame()
    outcomes, _ = _against_start(section, name)
    return pd.DataFrame(found.answers, index=outcomes.index, columns=outcomes.columns)


def _against_start(section: Section, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Win rates over the start and lengths less the start's, on the seeds and prompts of all."""
    lengths, reference = align(section.grid(name, LENGTH), section.grid(str(section.baseline), LENGTH))
    return align(section.grid(name, WIN_RATE), lengths - reference)


def _difficulty(section: Section, name: str, prompts: pd.Index) -> np.ndarray | None:
    others = [section.grid(other, WIN_RATE).reindex(columns=prompts) for other in section.trained if other != name]
    rows = pd.concat(others) if others else pd.DataFrame()
    if rows.empty or rows.isna().to_numpy().any():
        return None
    # Half a win and half a loss more than there were: a prompt that all won has a finite logit.
    share = (rows.to_numpy().sum(axis=0) + 0.5) / (len(rows) + 1)
    return np.asarray(np.log(share / (1 - share)))


def tiers(section: Section) -> dict[str, str]:
    """Letters of contenders and baseline: two share one exactly where no WIN or LOSS separates them. The best have "a".

    A letter is a maximal group of algorithms of which none is separated from another.
    """
    apart = {frozenset((pair.a, pair.b)) for pair in section.pairs if pair.verdict.word in ("WIN", "LOSS")}
    order = _ranked(section, section.ranked)
    together = {a: {b for b in order if b != a and frozenset((a, b)) not in apart} for a in order}
    groups = sorted(_maximal(set(), set(order), set(), together), key=lambda group: sorted(map(order.index, group)))
    return {
        name: "".join(LETTERS[i % len(LETTERS)] for i, group in enumerate(groups) if name in group) for name in order
    }


def _maximal(group: set[str], others: set[str], done: set[str], together: dict[str, set[str]]) -> Iterator[set[str]]:
    """The maximal sets of names that are all together (Bron & Kerbosch 1973)."""
    if not others and not done and group:
        yield group
    for name in sorted(others):
        yield from _maximal(group | {name}, others & together[name], done & together[name], together)
        others, done = others - {name}, done | {name}
