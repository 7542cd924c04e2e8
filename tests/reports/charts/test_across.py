"""Several tasks in one chart, once."""

import pytest
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.charts import across
from bakeoff.reports.tables.across import tables_of_run


def test_four_tasks_are_drawn_once_with_the_numbers_of_the_table(run, tmp_path):
    """With the first of four; nothing in the others', whose charts it would repeat."""
    four = type(run)(tmp_path / "four", tasks=("t1aa", "t2aa", "t3aa", "t4aa"), prompts=12).write()
    results = four.results()
    charts = [across.profiles(section) for section in sections(results)]
    assert charts[1:] == [None, None, None]
    (table,) = tables_of_run(results)
    shown = charts[0].data.dropna(subset="improvement").set_index("algorithm")["improvement"]
    assert shown.to_dict() == pytest.approx(table.frame.set_index("algorithm")["improvement"].to_dict())
    profile = charts[0].data.dropna(subset="above")
    for name, rows in profile.groupby("algorithm"):
        assert rows["above"].is_monotonic_decreasing, name
        assert rows["above"].iloc[0] > 0.9
        assert (rows["above_low"] <= rows["above"]).all()
    assert "Over 4 tasks" in charts[0].alt


def test_three_tasks_are_too_few(run, tmp_path):
    """Their own charts say it."""
    three = type(run)(tmp_path / "three", tasks=("t1aa", "t2aa", "t3aa"), seeds=(0,), prompts=4).write()
    assert across.profiles(sections(three.results())[0]) is None
