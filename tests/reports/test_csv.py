"""CSV tables."""

import io

import pandas as pd
import pytest
from bakeoff.reports.csv import CSV, guard, to_csv


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-x", "@SUM(A1)", "\tx", "\rx", "-1 ", "=0"])
def test_formulas_are_disarmed(text):
    """Text that a spreadsheet would run gets a quote in front."""
    assert guard(text).startswith("'")


@pytest.mark.parametrize("value", ["-1.5", "+3e9", "plain", "a=b", -2.5, 7, None])
def test_numbers_and_plain_text_stay(value):
    """Numbers keep their sign, also as text."""
    assert guard(value) == value


def test_column_names_are_guarded_too():
    """An algorithm's label can become a column name."""
    assert to_csv(pd.DataFrame({"=evil": ["@x", "1"]})) == "'=evil\n'@x\n1\n"


def test_csv_holds_every_number_unrounded(results, tmp_path):
    """Tables and chart data come back from disk as they were."""
    written = {path.stem: path for path in CSV().write(results, tmp_path)}
    assert {"leaderboard", "verdicts", "pairwise", "ledger", "runs", "metrics", "chart-frontier"} <= set(written)
    board = pd.read_csv(written["leaderboard"]).set_index("algorithm")
    assert {"delta_low", "p_holm", "seconds_shared", "title"} <= set(board.columns)
    assert len(str(board.loc["sft", "primary"])) > 10


def test_control_characters_do_not_reach_the_file():
    """A NUL or an escape sequence in a reason is written out."""
    text = to_csv(pd.DataFrame({"reason": ["a\x00b\x1b[31m"]}))
    assert pd.read_csv(io.StringIO(text))["reason"][0] == "a\\x00b\\x1b[31m"
