"""How often a sample beats the reference's sample for the same prompt, by the matrix's judge, asked in both orders."""

from __future__ import annotations

import pandas as pd

from bakeoff.contracts import EvalContext, Evaluator, Metric
from bakeoff.judging import ask

from .long import long_form, sampled_rows


class WinRate(Evaluator):
    title = "Win-rate against the start of training"
    metrics = (
        Metric(
            "win_rate",
            "share of comparisons",
            "higher",
            "1 for a win over the reference's sample of the same prompt, 0.5 for a tie, 0 for a loss.",
            0.0,
            1.0,
        ),
    )
    needs = frozenset({"samples", "reference_samples"})

    def score(self, context: EvalContext) -> pd.DataFrame:
        """One value a sample. Invalid comparisons are left out; without a judge, or a valid verdict, all are."""
        if context.judge is None:
            return long_form(context.samples, {})
        keys = ["prompt_id", "sample"]
        pairs = context.samples[[*keys, "completion"]].merge(
            context.reference_samples[[*keys, "completion"]],
            on=keys,
            suffixes=("", "_reference"),
            validate="one_to_one",
        )
        rows = sampled_rows(context, pairs)
        policy, reference = pairs["completion"].tolist(), pairs["completion_reference"].tolist()
        pairs["value"] = [outcome.value for outcome in ask(context.judge, context, rows, policy, reference)]
        valid = pairs.dropna(subset="value")
        return long_form(valid, {"win_rate": valid["value"]} if len(valid) else {})
