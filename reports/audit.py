"""Can a judge be believed? What its verdicts say of it: pure functions on the frames that ``bakeoff score`` leaves.

A verdict frame has one row a comparison: ``forward`` is the verdict where ``a`` was read first, ``backward`` the one
where ``b`` was; in both, "a" is for the text that was read first. ``value`` is what they mean together, for ``a``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from bakeoff.judging import CANARIES

CAUGHT = 0.05
"""A canary is caught winning when so many wins or more had at most this probability for a judge without preference."""
SAME = 0.05
"""Share of texts against themselves that a judge may decide: it sees the same text twice."""
ENOUGH = 20
"""Decided comparisons below which agreement with the gold reward is not judged."""


class Canary(NamedTuple):
    """How often a trick won, tied and lost; ``failed`` when the judge fell for it, in words, else empty."""

    name: str
    wins: int
    ties: int
    losses: int
    failed: str


@dataclass(frozen=True)
class Audit:
    """One judge on one section. Shares are NaN where nothing can be said."""

    comparisons: int
    invalid: float
    """Share of comparisons without a valid verdict in both orders."""
    ties: float
    """Share of valid comparisons that are ties, disagreement between the orders included."""
    consistency: float
    """Share of valid comparisons with the same verdict in both orders."""
    first_log_odds: float
    """Log-odds of the text that is read first among verdicts that chose one; 0 is no preference."""
    longer: float
    """Share of decided comparisons of different length that the longer text won."""
    gold_longer: float
    """The same share for the gold reward: what a judge that agrees with it would show."""
    agreement: float
    """Share of decided comparisons in which the gold reward prefers the same text, where it prefers one."""
    compared_with_gold: int
    canaries: tuple[Canary, ...]

    @property
    def failures(self) -> list[str]:
        """Why the judge cannot be believed, in words; empty when nothing speaks against it."""
        found = [canary.failed for canary in self.canaries if canary.failed]
        if self.compared_with_gold >= ENOUGH:
            agreed = round(self.agreement * self.compared_with_gold)
            if stats.binomtest(agreed, self.compared_with_gold, 0.5, alternative="less").pvalue < CAUGHT:
                found.append(f"it agrees with the gold reward on {self.agreement:.0%} of comparisons, less than a coin")
        return found


def audit(verdicts: pd.DataFrame, canaries: pd.DataFrame, samples: pd.DataFrame) -> Audit:
    """The audit of the verdicts of one section.

    ``samples`` has one row a final sample: ``id`` (of the cell), ``prompt_id``, ``sample``, ``n_tokens`` and
    ``gold_reward`` (NaN where the task has none).
    """
    valid = verdicts[verdicts["value"].notna()]
    orders = pd.Series([*valid["forward"], *valid["backward"]], dtype=object)
    first, second = int((orders == "a").sum()), int((orders == "b").sum())
    turned = valid["backward"].map({"a": "b", "b": "a", "tie": "tie"})
    decided = valid[valid["value"] != 0.5]
    keys = ["prompt_id", "sample"]
    sides = decided
    for side in ("a", "b"):
        renamed = samples.rename(columns={"id": side, "n_tokens": f"n_{side}", "gold_reward": f"gold_{side}"})
        sides = sides.merge(renamed, on=[side, *keys])
    won, gap = sides["value"] == 1.0, (sides["gold_a"] - sides["gold_b"]).astype(float)
    length = (sides["n_a"] - sides["n_b"]).astype(float)
    ranked = gap.abs() > 1e-9
    return Audit(
        comparisons=len(verdicts),
        invalid=_mean(verdicts["value"].isna()),
        ties=_mean(valid["value"] == 0.5),
        consistency=_mean(valid["forward"] == turned),
        first_log_odds=float(np.log((first + 0.5) / (second + 0.5))) if first + second else float("nan"),
        longer=_mean((won == (length > 0))[length != 0]),
        gold_longer=_mean(((gap > 0) == (length > 0))[(length != 0) & ranked]),
        agreement=_mean((won == (gap > 0))[ranked]),
        compared_with_gold=int(ranked.sum()),
        canaries=tuple(_canary(name, canaries[canaries["canary"] == name]["value"].dropna()) for name in CANARIES
                       if (canaries["canary"] == name).any()),
    )  # fmt: skip


def _canary(name: str, values: pd.Series[float]) -> Canary:
    wins, ties, losses = (int((values == value).sum()) for value in (1.0, 0.5, 0.0))
    failed = ""
    if name == "identical":
        if len(values) and (wins + losses) / len(values) > SAME:
            failed = f"it prefers one of two identical texts in {(wins + losses) / len(values):.0%} of cases"
    elif wins and stats.binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue < CAUGHT:
        failed = f"canary {name} ({CANARIES[name].split(';')[0]}) wins {wins} to {losses}"
    return Canary(name, wins, ties, losses, failed)


def _mean(values: pd.Series[bool]) -> float:
    return float(values.mean()) if len(values) else float("nan")
