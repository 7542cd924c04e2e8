"""The tables of record: tuning with retired cells, runs, environment, data."""

import json

import pytest
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.tables import ledgers
from bakeoff.reports.tables.leaderboard import all_tables


def test_tuning_counts_what_was_dropped(run):
    """A cell that left the matrix with another learning rate is a configuration tried, and its seconds are told."""
    plan = json.loads((run.folder / "plan.json").read_text())
    gone = next(cell for cell in plan["cells"] if cell["algorithm"] == "dpo")
    plan["cells"].remove(gone)
    plan["retired"] = [gone]
    (run.folder / "plan.json").write_text(json.dumps(plan))
    run.edit(run.path("dpo", 0) / "cell.json", settings={"learning_rate": 1.0})
    (section,) = sections(run.results())
    table = ledgers.tuning(section)
    row = table.frame.set_index("algorithm").loc["dpo"]
    assert (row["shown"], row["tried"], row["retired"], row["retired_seconds"]) == (1, 2, 1, 38.0)
    assert table.frame.set_index("algorithm").loc["sft", "tried"] == 1
    assert section.grid("dpo", "gold_reward").shape[0] == 2
    assert "last checkpoint" in table.caption


def test_an_amended_plan_is_told_where_selection_is(run):
    """The caption has the hash, and each change after results were there."""
    later = run.declaration(margin=0.5) | {"results": 3}
    run.edit(run.folder / "plan.json", declarations=[run.declaration(), later])
    caption = ledgers.tuning(sections(run.results())[0]).caption
    assert later["hash"] in caption
    assert "with 3 cells to look at: margin from None to 0.5" in caption


def test_runs_have_their_final_score_settings_and_log(results):
    """A finished cell has the mean of its prompts, a failed one none, and its log is named."""
    table = ledgers.runs(results)
    frame = table.frame.set_index("id")
    (section,) = sections(results)
    assert frame.loc["sent-sft-1", "primary"] == pytest.approx(section.grid("sft", "gold_reward").loc[1].mean())
    assert frame.loc["sent-ppo-2", ["status", "settings_hash"]].tolist() == ["oom", ""]
    assert frame["primary"].isna().sum() == 1
    assert frame.loc["sent-sft-1", "log"] == "cells/sent-sft-1/log.txt"


def test_environment_lists_every_package(results):
    """Nested records are a row each; a run without the file says so."""
    found = dict(ledgers.environment(results).frame.itertuples(index=False))
    assert found["packages torch"] == "2.13.0"
    assert found["git commit"] == "0123456789abcdef"


def test_data_says_what_training_saw_of_the_test(run):
    """Overlap is a fact of the data like its source."""
    for file in run.folder.glob("cells/*/cell.json"):
        data = json.loads(file.read_text())["data"]
        run.edit(file, data=data | {"overlap": {"exact": 2, "near": 1, "examples": ["p001"]}})
    (section,) = sections(run.results())
    table = next(table for table in ledgers.tables_of(section) if table.name == "data")
    facts = dict(table.frame.itertuples(index=False))
    assert facts["overlap with training"] == "2 test prompts are equal to a training prompt, 1 nearly so"


def test_run_in_which_every_cell_failed_still_has_its_tables(run):
    """Nothing was recorded: each table has its columns, and the reasons are in the table of runs."""
    for folder in run.folder.glob("cells/*"):
        for file in folder.iterdir():
            file.unlink()
        status = {"schema_version": 1, "status": "oom", "reason": "no memory", "wall_s": 1.0}
        (folder / "status.json").write_text(json.dumps(status))
    made = {table.name: table.rows() for _, table in all_tables(run.results())}
    assert made["tuning"] == []
    assert len(made["runs"]) == 15
