"""Several tasks in one table."""

import pytest
from bakeoff.reports.aggregates import iqm
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.tables.across import tables_of_run


def test_one_task_is_no_table(results):
    """Nothing to aggregate over."""
    assert tables_of_run(results) == []


def test_two_tasks_are_pooled_on_the_scale_of_their_pools(tmp_path, run):
    """0 is the start, 1 the best of 16 of its samples; every run of grpo beats every run of base."""
    results = type(run)(tmp_path / "two", tasks=("sentiment", "arithmetic")).write().results()
    (table,) = tables_of_run(results)
    frame = table.frame.set_index("algorithm")
    assert frame.loc["grpo-lr3", "improvement"] == 1.0
    scaled = []
    for section in sections(results):
        low, high = section.frontier.best_of_n.reward[[0, -1]]
        scaled.append((section.grid("sft", "gold_reward").mean(axis=1).to_numpy() - low) / (high - low))
    row = frame.loc["sft"]
    assert row["iqm"] == pytest.approx(iqm(scaled))
    assert row["iqm_low"] <= row["iqm"] <= row["iqm_high"]
    assert row["gap"] == pytest.approx(sum((1 - task).mean() for task in scaled) / 2)
    assert "Over 2 tasks: sentiment, arithmetic" in table.caption
