"""One cell's scores as arrays: what every estimate is computed from, a few bytes a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bakeoff.errors import StoreError

from ..statistics import Floats
from .reading import codes, read_columns, rerun

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
    path: Path

    @classmethod
    def read(cls, path: Path) -> CellScores:
        """Read scores.parquet. Raises ``StoreError`` for a file that is none, or that scores a sample twice."""
        table = read_columns(path, SCORE_COLUMNS)
        metrics, metric = codes(table["metric"])
        prompts, prompt = codes(table["prompt_id"])
        keys = (metric, table["fraction"].to_numpy(), prompt, table["sample"].to_numpy())
        return cls._placed(metrics, prompts, keys, table["value"].to_numpy(), path)

    @classmethod
    def _placed(
        cls, metrics: Sequence[str], prompts: Sequence[str], keys: tuple[Any, ...], values: Any, path: Path
    ) -> CellScores:
        """``keys`` are metric codes, fractions, prompt codes and samples, one a value."""
        metric, fraction, prompt, sample = keys
        fractions, fraction = np.unique(fraction, return_inverse=True)
        samples, sample = np.unique(sample, return_inverse=True)
        shape = (len(metrics), len(fractions), len(prompts), len(samples))
        place = np.ravel_multi_index((metric, fraction, prompt, sample), shape) if len(values) else metric
        if np.bincount(place, minlength=1).max() > 1:
            raise StoreError(f"{path} scores a sample twice by one metric.", fix=rerun(path))
        cube = np.full(shape, np.nan)
        cube.reshape(-1)[place] = values
        return cls(metrics, fractions.tolist(), pd.Index(prompts, dtype=object), samples.tolist(), cube, path)

    def joined(self, later: Sequence[pd.DataFrame]) -> CellScores:
        """With the rows of ``later``, frames of ``SCORE_COLUMNS``, that were scored after the cell had ended."""
        if not later:
            return self
        long = pd.concat([self.frame().astype({"prompt_id": object, "metric": object}), *later], ignore_index=True)
        metric, metrics = pd.factorize(long["metric"])
        prompt, prompts = pd.factorize(long["prompt_id"])
        keys = (metric, long["fraction"].to_numpy(float), prompt, long["sample"].to_numpy(int))
        return self._placed(list(metrics), list(prompts), keys, long["value"].to_numpy(float), self.path)

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
