"""How well the policy predicts held-out text, token by token from the left.

Only for rows with a ``text``, of which the first tokens that fit a training sequence are scored, all but the very
first. A policy that attends to both sides predicts no text from the left: it has no perplexity and is left out.
"""

from __future__ import annotations

import math

import pandas as pd

from bakeoff.contracts import EvalContext, Evaluator, Metric

from .long import held_out_texts, long_form


class Perplexity(Evaluator):
    title = "Perplexity of held-out text"
    metrics = (
        Metric("perplexity", "tokens", "lower", "exp of a text's mean negative log-likelihood per token.", 1.0),
        Metric("nll", "nats per token", "lower", "Negative log-likelihood of a text, mean over its tokens.", 0.0),
    )
    needs = frozenset({"model"})

    def score(self, context: EvalContext) -> pd.DataFrame:
        """Two values a text. The mean of ``nll`` is less at the mercy of one odd text than that of ``perplexity``."""
        keys, texts = held_out_texts(context)
        if context.model is None or context.model.bidirectional or not texts:
            return long_form(keys, {})
        losses = [-sum(logps) / len(logps) for logps in context.model.logps(context.model.encode(texts))]
        return long_form(keys, {"perplexity": [math.exp(loss) for loss in losses], "nll": losses})
