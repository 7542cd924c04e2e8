"""Signs of a degenerate policy: length, endings, repetition within a completion and among completions.

distinct-2 is the number of distinct bigrams over the number of bigrams (Li et al. 2016, arXiv:1510.03055), here
of the words of one completion, in lower case.
"""

from __future__ import annotations

from itertools import pairwise

import pandas as pd

from bakeoff.contracts import EvalContext, Evaluator, Metric

from .long import long_form


class Health(Evaluator):
    title = "Length, endings and repetition"
    metrics = (
        Metric("length_tokens", "tokens", "none", "Length of the completion, EOS included.", 0.0),
        Metric("ended_eos", "share of samples", "none", "1 when the completion ended with EOS.", 0.0, 1.0),
        Metric("truncated", "share of samples", "none", "1 when the completion was cut at max_new_tokens.", 0.0, 1.0),
        Metric(
            "distinct_2", "share of bigrams", "higher", "Distinct word bigrams over all of the completion.", 0.0, 1.0
        ),
        Metric("unique", "share of samples", "higher", "1 for the first of all samples with this text.", 0.0, 1.0),
    )

    def score(self, context: EvalContext) -> pd.DataFrame:
        """Five values a sample."""
        samples = context.samples
        return long_form(
            samples,
            {
                "length_tokens": samples["n_tokens"],
                "ended_eos": samples["ended_eos"],
                "truncated": samples["truncated"],
                "distinct_2": samples["completion"].map(distinct_2),
                "unique": ~samples["completion"].duplicated(),
            },
        )


def distinct_2(text: str) -> float:
    """Share of a text's word bigrams that are distinct, in (0, 1]; 1.0 for fewer than two words."""
    bigrams = list(pairwise(text.lower().split()))
    return len(set(bigrams)) / len(bigrams) if bigrams else 1.0
