"""Whether the policy's embeddings tell that two halves are of one text: a probe of what contrastive training is for.

The first half of a text is the query; its own second half must be the nearest, by cosine, among the second halves of
``pool`` texts. Labels are free this way, as in the inverse cloze task (Lee et al. 2019, arXiv:1906.00300). Embeddings
are means of the last hidden states, with the attention that the policy was trained with.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from pydantic import Field

from bakeoff.contracts import EvalContext, Evaluator, Metric, PluginSettings

from .long import held_out_texts, long_form


class RetrievalSettings(PluginSettings):
    pool: int = Field(default=32, ge=2)
    """Texts to choose from: one's own and the first others. No more than evaluation.probe_prompts, or probes along
    training are easier than the end. This project's choice."""


class Retrieval(Evaluator):
    title = "Finding a text's second half by its first"
    Settings = RetrievalSettings
    metrics = (
        Metric("retrieval", "share of texts", "higher", "1 when its own second half is the nearest.", 0.0, 1.0),
        Metric("retrieval_mrr", "reciprocal rank", "higher", "1 / rank of its own second half.", 0.0, 1.0),
    )
    needs = frozenset({"model"})

    def score(self, context: EvalContext) -> pd.DataFrame:
        """Two values a text."""
        keys, texts = held_out_texts(context)
        if context.model is None or len(texts) < 2:
            return long_form(keys, {})
        ids = context.model.encode(texts)
        firsts, seconds = ([half(row) for row in ids] for half in (_first, _second))
        ranks = self._ranks(_unit(context.model.embed(firsts)) @ _unit(context.model.embed(seconds)).T)
        return long_form(keys, {"retrieval": [rank == 1 for rank in ranks], "retrieval_mrr": [1 / r for r in ranks]})

    def _ranks(self, similarities: np.ndarray) -> list[int]:
        """The rank of each row's own column among those of its pool; a tie counts against it."""
        ranks = []
        for own, row in enumerate(similarities):
            others = [column for column in range(len(row)) if column != own][: self.settings.pool - 1]
            ranks.append(1 + int((row[others] >= row[own]).sum()))
        return ranks


def _first(ids: list[int]) -> list[int]:
    return ids[: max(1, len(ids) // 2)]


def _second(ids: list[int]) -> list[int]:
    return ids[len(ids) // 2 :]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
