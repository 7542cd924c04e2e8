"""The long form that every evaluator returns: one row a (prompt, sample, metric)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bakeoff.contracts import EvalContext, Row


def long_form(samples: pd.DataFrame, values: Mapping[str, Sequence[float] | pd.Series[Any]]) -> pd.DataFrame:
    """Columns ``prompt_id, sample, metric, value``. ``values`` gives a metric's values in the samples' order."""
    keys = samples[["prompt_id", "sample"]]
    # The empty frame keeps the columns and their types where no metric can be had.
    frames = [keys.iloc[:0].assign(metric="", value=0.0)]
    frames += [keys.assign(metric=name, value=[float(value) for value in column]) for name, column in values.items()]
    return pd.concat(frames, ignore_index=True)


def held_out_texts(context: EvalContext) -> tuple[pd.DataFrame, list[str]]:
    """The texts of the held-out rows that have one, with keys for ``long_form``: the row's id, and sample 0."""
    texts = {str(row["id"]): row["text"] for row in context.rows if isinstance(row.get("text"), str)}
    return pd.DataFrame({"prompt_id": list(texts), "sample": [0] * len(texts)}), list(texts.values())


def sampled_rows(context: EvalContext, samples: pd.DataFrame) -> list[Row]:
    """The task's row of each sample, in the samples' order. Raises ``KeyError`` for an unknown ``prompt_id``."""
    rows = {row["id"]: row for row in context.rows}
    return [rows[prompt_id] for prompt_id in samples["prompt_id"]]
