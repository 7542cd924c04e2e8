"""Best-of-n: of n samples of the untrained policy, the one that the training reward likes best (arXiv:2009.01325).

The control that works at inference: no weight moves, and each completion costs n samples and their scoring. Where the
training reward is the gold one, it is an upper line that no policy has: it sees the reward of held-out prompts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from bakeoff.contracts import Algorithm, CompletionContext, PluginSettings, TrainContext

if TYPE_CHECKING:
    import pandas as pd


class BestOfNSettings(PluginSettings):
    """Settings of ``best-of-n``."""

    n: int = Field(default=16, ge=1)
    """Samples that each completion is the best of; 1 is the untrained policy. 4 to 512. This project's
    choice; WebGPT has 4, 16 and 64 (arXiv:2112.09332)."""


class BestOfN(Algorithm):
    """Samples n completions of the untrained policy and gives the one with the highest training reward."""

    title = "Best of n"
    paper = "Stiennon et al. 2020, arXiv:2009.01325"
    Settings = BestOfNSettings
    consumes = frozenset({"reward"})
    is_control = True
    trains = False

    def train(self, context: TrainContext) -> None:
        """Nothing to do."""

    def complete(self, context: CompletionContext) -> pd.DataFrame:
        """Each the best of n samples, the first of equals; the first candidates are the base's own completions."""
        drawn = context.sample(context.samples * self.settings.n)
        rows = {row["id"]: row for row in context.rows}
        rewards = context.reward([rows[name] for name in drawn["prompt_id"]], drawn["completion"].tolist())
        candidates = drawn.assign(sample=drawn["sample"] % context.samples, reward=rewards)
        best = candidates.groupby(["sample", "prompt_id"], sort=False)["reward"].idxmax()
        return candidates.loc[best].drop(columns="reward").reset_index(drop=True)

    def kl_bound(self) -> float:
        """log n - (n - 1)/n: Stiennon et al. 2020, appendix G.3, for rewards without ties; in general an upper bound
        (Beirami et al. 2024, arXiv:2401.01879, Theorem 3.1)."""
        n = self.settings.n
        return math.log(n) - (n - 1) / n
