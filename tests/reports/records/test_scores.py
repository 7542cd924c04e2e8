"""One cell's scores as arrays: what is where, what is missing, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from bakeoff.reports.records.scores import SCORE_COLUMNS, CellScores

from bakeoff.errors import StoreError

ROWS = [
    ("p2", 0, 0.5, "gold", 0.1),
    ("p1", 1, 1.0, "gold", 0.2),
    ("p1", 0, 1.0, "gold", 0.3),
    ("p2", 0, 1.0, "kl", 4.0),
]


@pytest.fixture
def write(tmp_path):
    def write(rows):
        path = tmp_path / "scores.parquet"
        pd.DataFrame(rows, columns=SCORE_COLUMNS).to_parquet(path)
        return path

    return write


def test_each_score_is_in_its_place_and_the_rest_is_nan(write):
    """Metrics, evaluations, prompts and samples in sorted order; four numbers, all else NaN."""
    scores = CellScores.read(write(ROWS))
    assert (list(scores.metrics), scores.fractions) == (["gold", "kl"], [0.5, 1.0])
    assert (list(scores.prompts), scores.samples) == (["p1", "p2"], [0, 1])
    assert scores.at("gold", -1).tolist()[0] == [0.3, 0.2]
    assert scores.at("gold", 0)[1, 0] == 0.1
    assert scores.at("kl", 1)[1, 0] == 4.0
    assert np.isfinite(scores.values).sum() == 4
    assert np.isnan(scores.at("reward", -1)).all()


def test_long_again_is_what_was_written(write):
    """The frame of the arrays holds the rows of the file."""
    frame = CellScores.read(write(ROWS)).frame()
    assert list(frame.columns) == SCORE_COLUMNS
    assert sorted(map(tuple, frame.astype({"prompt_id": str, "metric": str}).itertuples(index=False))) == sorted(ROWS)


def test_a_file_without_rows_has_no_scores(write):
    """An empty file is a cell that measured nothing, and no error."""
    empty = CellScores.read(write(ROWS[:0]))
    assert (list(empty.metrics), empty.fractions, empty.values.size) == ([], [], 0)
    assert empty.frame().empty


def test_a_sample_that_was_scored_twice_is_refused(write):
    """Two numbers for one place: neither can be believed."""
    with pytest.raises(StoreError, match="scores a sample twice"):
        CellScores.read(write([*ROWS, ROWS[0]]))
