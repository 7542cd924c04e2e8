"""Where in a completion the KL is spent: its mean at each token position, over the completions that get so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..records.tokens import TokenKL, token_kl
from ..statistics import Estimate, Floats, bounded, two_way

if TYPE_CHECKING:
    from .section import Section

POSITIONS = 64
"""Positions that stand alone; longer completions are cut into so many bands of equal width."""
REACHED = 0.1
"""Positions that fewer completions reach have no estimate: it would be of the longest answers alone."""


@dataclass(frozen=True)
class Band:
    """One token position, or a band of neighbouring ones."""

    first: int
    last: int
    """Positions from 1 on, both within."""
    kl: Estimate
    """Nats a token."""
    reached: float
    """Share of completions that have a token at ``first``."""


@dataclass(frozen=True)
class Profile:
    """One trained algorithm at the end of training."""

    bands: tuple[Band, ...]
    half: int
    """The position by which half of all its KL is spent; 0 where it spends none."""
    longest: int
    """Tokens of its longest completion."""


def profiles(section: Section) -> dict[str, Profile]:
    """By trained algorithm, where the KL of every token is known; empty for runs that did not keep it. Read once."""
    memo, key = section.results.memo, f"profiles {section.title}"
    if key not in memo:
        memo[key] = _profiles(section)
    found: dict[str, Profile] = memo[key]
    return found


def _profiles(section: Section) -> dict[str, Profile]:
    found = {}
    done = section.cells[section.cells["status"] == "ok"].sort_values("seed")
    for name in section.trained:
        ids = done.loc[done["algorithm"] == name, "id"]
        cells = [cell for cell in (token_kl(section.results, str(id_)) for id_ in ids) if cell is not None]
        if len(cells) == len(ids) and (sums := _aligned(cells)) is not None:
            found[name] = _profile(*sums)
    return found


def _aligned(cells: list[TokenKL]) -> tuple[Floats, Floats] | None:
    """KL and tokens, (K, P, T) each, on the prompts of all cells."""
    prompts = cells[0].prompts
    for cell in cells[1:]:
        prompts = prompts.intersection(cell.prompts)
    width = max(cell.kl.shape[1] for cell in cells)
    if not len(prompts) or not width:
        return None
    stacks = []
    for which in ("kl", "tokens"):
        parts = [getattr(cell, which)[cell.prompts.get_indexer(prompts)] for cell in cells]
        stacks.append(np.stack([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts]))
    return stacks[0], stacks[1]


def _profile(kl: Floats, tokens: Floats) -> Profile:
    width = kl.shape[2]
    spent = np.cumsum(kl.sum(axis=(0, 1)))
    half = int(np.searchsorted(spent, spent[-1] / 2)) + 1 if spent[-1] > 0 else 0
    reached = tokens.sum(axis=(0, 1)) / tokens[:, :, 0].sum()
    step = -(-width // POSITIONS)
    bands = []
    for first in range(0, width, step):
        if reached[first] < REACHED:
            break
        inside = slice(first, min(first + step, width))
        estimate = mean_of_ratio(kl[:, :, inside].sum(axis=2), tokens[:, :, inside].sum(axis=2))
        bands.append(Band(first + 1, inside.stop, bounded(estimate, 0.0, None), float(reached[first])))
    return Profile(tuple(bands), half, width)


def mean_of_ratio(total: Floats, count: Floats) -> Estimate:
    """sum(total) / sum(count) with the two-way interval of its linearisation; (K, P) each, ``count`` 0 in places.

    A cell moves the ratio by (total - ratio count) / mean count: the delta method, so that cells with many tokens weigh
    more and those with none weigh nothing.
    """
    ratio = total.sum() / count.sum()
    return two_way(ratio + (total - ratio * count) / count.mean())
