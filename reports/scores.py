"""One cell's scores as arrays: what every estimate is computed from, a few bytes a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from bakeoff.errors import StoreError

from .reading import codes, read_columns, rerun
from .statistics import Floats

SCORE_COLUMNS = ["prompt_id", "sample", "fraction", "metric", "value"]


@dataclass(frozen=True, eq=False)
class CellScores:
    """Scores of one cell by metric, evaluation along training, prompt and sample."""

    metrics: Sequence[str]
    fractions: Sequence[float]
    """Share of the budget spent at each evaluation, rising; the last one is 1 in a cell that ended well."""
    prompts: pd.Index
    samples: list[int]
    values: Floats
    """(metrics, evaluations, prompts, samples); NaN where there is no score."""

    @classmethod
    def read(cls, path: Path) -> CellScores:
        """Read scores.parquet. Raises ``StoreError`` for a file that is none, or that scores a sample twice."""
        table = read_columns(path, SCORE_COLUMNS)
        metrics, metric = codes(table["metric"])
        prompts, prompt = codes(table["prompt_id"])
        fractions, fraction = np.unique(table["fraction"].to_numpy(), return_inverse=True)
        samples, sample = np.unique(table["sample"].to_numpy(), return_inverse=True)
        shape = (len(metrics), len(fractions), len(prompts), len(samples))
        place = np.ravel_multi_index((metric, fraction, prompt, sample), shape) if len(table) else metric
        if np.bincount(place, minlength=1).max() > 1:
            raise StoreError(f"{path} scores a sample twice by one metric.", fix=rerun(path))
        values = np.full(shape, np.nan)
        values.reshape(-1)[place] = table["value"].to_numpy()
        return cls(metrics, fractions.tolist(), pd.Index(prompts, dtype=object), samples.tolist(), values)

    def plus(self, rows: pd.DataFrame) -> CellScores:
        """With the metrics of ``rows`` (``SCORE_COLUMNS``) too, none of them its own, at the places that it has."""
        metric, metrics = pd.factorize(rows["metric"])
        places = (self.fractions, list(self.prompts), self.samples)
        columns = ("fraction", "prompt_id", "sample")
        at = [pd.Index(known).get_indexer(rows[name]) for known, name in zip(places, columns, strict=True)]
        kept = np.all([index >= 0 for index in at], axis=0)
        values = np.full((len(metrics), *self.values.shape[1:]), np.nan)
        values[(metric[kept], *(index[kept] for index in at))] = rows["value"].to_numpy(float)[kept]
        return replace(self, metrics=[*self.metrics, *metrics], values=np.concatenate([self.values, values]))

    def at(self, metric: str, evaluation: int) -> Floats:
        """(prompts, samples) of a metric at an evaluation, -1 the last; all NaN where it was not measured."""
        if metric not in self.metrics:
            return np.full(self.values.shape[2:], np.nan)
        return np.asarray(self.values[list(self.metrics).index(metric), evaluation])

    def frame(self) -> pd.DataFrame:
        """Long again: ``SCORE_COLUMNS``, texts as categories, no row for what was not scored."""
        metric, fraction, prompt, sample = np.nonzero(np.isfinite(self.values))
        return pd.DataFrame(
            {
                "prompt_id": pd.Categorical.from_codes(prompt, self.prompts),
                "sample": np.asarray(self.samples, dtype=np.int64)[sample],
                "fraction": np.asarray(self.fractions)[fraction],
                "metric": pd.Categorical.from_codes(metric, pd.Index(list(self.metrics))),
                "value": self.values[metric, fraction, prompt, sample],
            }
        )
