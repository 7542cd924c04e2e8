"""Tables: what rows there are, how cells read, and that nothing is dropped."""

import json
import shutil

import pandas as pd
import pytest
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.tables import leaderboard as tables
from bakeoff.reports.tables import ledgers


@pytest.fixture(scope="module")
def section(results):
    return sections(results)[0]


def cell(table, row, key):
    """The cell of the row whose first column reads ``row``."""
    index = [column.key for column in table.columns].index(key)
    return next(cells[index] for cells in table.rows() if cells[0].text == row)


def test_leaderboard_shows_numbers_intervals_and_verdicts(section, five_seeds):
    """A row reads as the estimates say, the base has no gain, and a failed seed is counted where it belongs."""
    board = tables.leaderboard(section)
    assert [row[0].text for row in board.rows()] == section.ranked
    estimate = section.estimate("sft", "gold_reward")
    shown = cell(board, "sft", "primary")
    assert shown.text == f"{estimate.mean:.3f}"
    assert shown.detail == f"[{estimate.low:.3f}, {estimate.high:.3f}]"
    assert cell(board, "sft", "delta").text.startswith("+")
    assert cell(board, "sft", "verdict")[0::3] == ("descriptive: ahead", "open")
    decided = tables.leaderboard(sections(five_seeds)[0])
    assert cell(decided, "sft", "verdict")[0::3] == ("WIN", "win")
    assert cell(board, "base", "delta").text == "–"
    assert cell(board, "ppo", "seeds").text == "2/3 · 1\u00a0oom"
    assert cell(board, "sft", "flops").text == "6.06 T"
    assert cell(board, "sft", "flops_shared").text == "7.16 T"
    assert "best constant answer 'good' scores 0.440" in board.caption
    assert "fewer than 5 seeds" in board.caption


def test_an_algorithm_without_a_result_keeps_its_row(run):
    """When every seed of an algorithm failed, its row stays, at the end, with the count."""
    for seed in (0, 1):
        shutil.rmtree(run.path("ppo", seed))
    board = tables.leaderboard(sections(run.results())[0])
    last = board.rows()[-1]
    assert last[0].text == "ppo"
    assert last[1].text == "0/3 · 2\u00a0not_run · 1\u00a0oom"
    assert last[2].text == "–"


def test_metrics_table_holds_every_declared_metric(section):
    """Health and other people's metrics have a column with what they declared about themselves."""
    table = tables.metrics(section)
    assert [column.title for column in table.columns[1:4]] == [
        "gold reward\u00a0↑",
        "train reward\u00a0↑",
        "win rate\u00a0↑",
    ]
    assert "distinct bigrams (share)" in [column.help for column in table.columns]


def test_ledger_shows_share_of_the_budget_and_both_shared_costs(section):
    """Spend is set against the limit, and shared stages are shown in full and split."""
    ledger = ledgers.ledger(section)
    assert cell(ledger, "dpo", "spent").text == "101.0%"
    assert cell(ledger, "dpo", "shared_flops").text == "1.10 T"
    assert cell(ledger, "dpo", "amortised_flops").text == "183 G"
    assert cell(ledger, "ppo", "trainable_auxiliary").text == "577"
    assert "Budget 6tf: 6.00 T FLOPs" in ledger.caption


def test_ledger_totals_are_charged_both_ways(section):
    """dpo spent 6.06 T itself; with the 1.1 T stage alone 7.16 T, with a sixth of it 6.24 T; ppo used no stage."""
    ledger = ledgers.ledger(section)
    assert cell(ledger, "dpo", "alone_flops").text == "7.16 T"
    assert cell(ledger, "dpo", "split_flops").text == "6.24 T"
    rows = ledger.frame.set_index("algorithm")
    assert rows.loc["dpo", "alone_seconds"] - rows.loc["dpo", "seconds"] == pytest.approx(12.0)
    assert rows.loc["dpo", "split_seconds"] - rows.loc["dpo", "seconds"] == pytest.approx(2.0)
    assert rows.loc["ppo", "alone_flops"] == rows.loc["ppo", "split_flops"] == rows.loc["ppo", "flops"]


def test_a_shared_stage_has_its_cost_and_its_users(section):
    """What six cells used costs 1.1 T once, a sixth of that each; the totals over users are what was computed."""
    table = ledgers.stages(section)
    (row,) = table.frame.to_dict("records")
    assert row == {
        "stage": "pairs-1", "label": "pairs", "users": 6, "algorithms": "sft, dpo", "seeds": "0, 1, 2",
        "flops": 1.1e12, "seconds": 12.0, "split_flops": pytest.approx(1.1e12 / 6), "split_seconds": 2.0,
    }  # fmt: skip
    charged = section.cells["amortised_flops"].sum()
    assert charged == pytest.approx(1.1e12)


def test_a_policy_that_is_not_sampled_is_measured_and_not_ranked(run):
    """An encoder has masked accuracy and no gold reward: last on the board without a rank, and the caption says why."""
    for seed in run.seeds:
        folder = run.path("sft", seed)
        record = json.loads((folder / "cell.json").read_text())
        declared = {"name": "masked_accuracy", "unit": "share", "direction": "higher", "description": "filled in"}
        run.edit(folder / "cell.json", is_sampled=False, metrics=[*record["metrics"], declared])
        scores = pd.read_parquet(folder / "scores.parquet")
        only = scores[scores["metric"] == "gold_reward"].assign(metric="masked_accuracy", value=0.75)
        only.to_parquet(folder / "scores.parquet")
        pd.read_parquet(folder / "samples.parquet").iloc[:0].to_parquet(folder / "samples.parquet")
    section = sections(run.results())[0]
    assert section.unranked == ["sft"]
    assert "sft" not in section.ranked
    assert "sft" not in {name for comparison in section.pairs for name in (comparison.a, comparison.b)}
    board = tables.leaderboard(section)
    assert board.rows()[-1][0].text == "sft"
    assert cell(board, "sft", "seeds").text == "3/3"
    assert pd.isna(board.frame.set_index("algorithm").loc["sft", "primary"])
    assert "Not ranked by gold reward: sft, which write no text" in board.caption
    measured = tables.metrics(section).frame.set_index("algorithm")
    assert measured.loc["sft", "metric_masked_accuracy"] == pytest.approx(0.75)
    assert pd.isna(measured.loc["dpo", "metric_masked_accuracy"])


def test_all_runs_lists_each_cell_with_its_reason(results):
    """Every planned cell is a row, and a failure says why."""
    table = tables.runs(results)
    assert len(table.rows()) == 15
    assert table.caption == "15 cells planned: 14 ok, 1 oom."
    keys = [column.key for column in table.columns]
    oom = next(row for row in table.rows() if row[keys.index("status")].text == "oom")
    assert oom[keys.index("reason")].text.startswith("out of memory")
    assert oom[keys.index("status")].tone == "loss"


def test_one_seed_is_said_to_be_one_run(tmp_path, run):
    """With one seed the captions say that intervals hold for this run, and no verdict is given."""
    single = type(run)(tmp_path / "single", seeds=(0,)).write()
    section = sections(single.results())[0]
    board = tables.leaderboard(section)
    assert "conditional on this run" in board.caption
    assert cell(board, "sft", "verdict").text == "INCONCLUSIVE"


def test_an_empty_run_still_has_its_tables(run):
    """Before any result there is a leaderboard of dashes, a ledger and the list of runs."""
    shutil.rmtree(run.folder / "cells")
    results = run.results()
    named = {table.name: table for _, table in tables.all_tables(results)}
    assert set(named) == {"leaderboard", "ledger", "tuning", "runs", "environment"}
    assert [row[1].text for row in named["leaderboard"].rows()] == ["0/3 · 3\u00a0not_run"] * 5
