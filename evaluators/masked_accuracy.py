"""How many hidden tokens of held-out text the policy fills in right.

Each policy attends as it was trained to: one that attends to the left guesses from what comes before alone, which is
what masked next-token prediction is to improve on. The hidden tokens depend on the row alone: all policies have the
same task.
"""

from __future__ import annotations

import random

import pandas as pd
from pydantic import Field

from bakeoff.contracts import EvalContext, Evaluator, Metric, PluginSettings
from bakeoff.seeds import derive_seed

from .long import held_out_texts, long_form


class MaskedAccuracySettings(PluginSettings):
    mask_rate: float = Field(default=0.15, gt=0, lt=1)
    """Share of a text's tokens that are hidden, at least one (BERT: 0.15)."""


class MaskedAccuracy(Evaluator):
    title = "Accuracy on hidden tokens of held-out text"
    Settings = MaskedAccuracySettings
    metrics = (
        Metric(
            "masked_accuracy", "share of hidden tokens", "higher", "Hidden tokens of a text filled in right.", 0.0, 1.0
        ),
    )
    needs = frozenset({"model"})

    def score(self, context: EvalContext) -> pd.DataFrame:
        """One value a text; neither the first token nor EOS is hidden."""
        keys, texts = held_out_texts(context)
        if context.model is None or not texts:
            return long_form(keys, {})
        ids = context.model.encode(texts)
        hidden = [self._hidden(str(name), len(row)) for name, row in zip(keys["prompt_id"], ids, strict=True)]
        filled = context.model.fill(ids, hidden)
        shares = [
            sum(row[place] == token for place, token in zip(places, tokens, strict=True)) / len(places)
            for row, places, tokens in zip(ids, hidden, filled, strict=True)
        ]
        return long_form(keys, {"masked_accuracy": shares})

    def _hidden(self, name: str, length: int) -> list[int]:
        places = range(1, max(2, length - 1))
        count = max(1, round(len(places) * self.settings.mask_rate))
        return sorted(random.Random(derive_seed("hidden", name)).sample(places, count))
