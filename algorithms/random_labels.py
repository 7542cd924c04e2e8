"""A reward model whose labels are taken away: the scores of each prompt's completions are dealt to them at random.

What it gets right on held-out pairs was not learned from the labels (Zhang et al. 2017, arXiv:1611.03530, fit such
labels to show what a network can learn by heart). All else is ``reward-model``'s, with its settings.
"""

from __future__ import annotations

import random
from dataclasses import replace
from types import MappingProxyType

from bakeoff.contracts import TrainContext
from bakeoff.rankings import Rankings
from bakeoff.seeds import derive_seed

from .reward_model import RewardModelRow


class RandomLabels(RewardModelRow):
    """Trains ``context.reward_model`` on rankings in an order drawn by lot."""

    title = "Reward model on random labels"
    paper = "Zhang et al. 2017, arXiv:1611.03530"
    presets = MappingProxyType({})
    is_control = True

    def train(self, context: TrainContext) -> None:
        """Train until the budget is spent. The labels depend on the seed alone."""
        super().train(replace(context, rankings=dealt_anew(context.rankings, seed=context.seed)))


def dealt_anew(rankings: Rankings, *, seed: int) -> Rankings:
    """Each ranking with its own scores in a random order: of a pair, a coin says which side was chosen."""
    draws = random.Random(derive_seed(seed, "random labels"))
    return [{**row, "scores": draws.sample(list(row["scores"]), len(row["scores"]))} for row in rankings]
