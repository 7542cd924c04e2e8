"""Controls stand on the same tables, are marked, and win nothing."""

import json
import shutil

import pandas as pd
import pytest
from bakeoff.reports import terminal
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.charts import gallery
from bakeoff.reports.claims import claims
from bakeoff.reports.frame import Results
from bakeoff.reports.gate import Code, gate
from bakeoff.reports.markdown import Markdown
from bakeoff.reports.tables import leaderboard as tables
from bakeoff.reports.tables.across import tables_of_run

BEST = "grpo-lr3"


@pytest.fixture
def controlled(tmp_path, run):
    """Five seeds; the best algorithm is a control that trained nothing, and so is the base."""
    made = type(run)(tmp_path / "five", seeds=(0, 1, 2, 3, 4)).write()
    for seed in made.seeds:
        made.edit(made.path("base", seed) / "cell.json", is_control=True)
        made.edit(made.path(BEST, seed) / "cell.json", is_control=True, kl_bound=0.636)
        ledger = made.path(BEST, seed) / "ledger.json"
        spent = json.loads(ledger.read_text())["spent"] | {"steps": 0, "flops": 1e13}
        made.edit(ledger, spent=spent, probes=[{"fraction": fraction} | spent for fraction in (0.3, 0.6, 1.0)])
    return made


@pytest.fixture
def whole(controlled):
    """The same with no cell that failed."""
    controlled._ok(controlled._cell("sentiment", "ppo", 4))
    return controlled


def test_controls_cost_contenders_no_power(controlled):
    """Three contenders against the base and three pairs among them; the four with the control are apart."""
    (section,) = sections(controlled.results())
    assert section.contenders == ["sft", "dpo", "ppo"]
    families = {}
    for pair in section.pairs:
        families.setdefault(pair.family, []).append(pair)
    assert {family: len(pairs) for family, pairs in families.items()} == {
        "against base": 3, "among trained": 3, "with a control": 4,
    }  # fmt: skip
    assert all(BEST in (pair.a, pair.b) for pair in families["with a control"])
    for pairs in families.values():
        first = min(pairs, key=lambda pair: pair.p)
        assert first.p_holm == pytest.approx(min(1.0, len(pairs) * first.p))


def test_a_control_that_trains_nothing_has_verdicts_at_any_cost(controlled):
    """It spent more than the budget and no step: its verdicts stand, as the base's do."""
    (section,) = sections(controlled.results())
    assert section.effects[BEST].verdict.word == "WIN"
    assert not any("budget" in pair.verdict.reason for pair in section.pairs)


def test_the_leaderboard_marks_them(controlled, run):
    """Contenders come first, each group by its numbers; a bound of KL is marked; without controls nothing is."""
    for seed in controlled.seeds:  # best-of-n has a bound in a measured KL's place
        path = controlled.path(BEST, seed) / "scores.parquet"
        scores = pd.read_parquet(path)
        scores[scores["metric"] != "kl"].to_parquet(path)
    (section,) = sections(controlled.results())
    board = tables.leaderboard(section)
    assert section.ranked == [BEST, "dpo", "ppo", "sft", "base"]
    assert list(zip(board.frame["algorithm"], board.frame["role"], strict=True)) == [
        ("dpo", "contender"), ("ppo", "contender"), ("sft", "contender"), (BEST, "control"), ("base", "control"),
    ]  # fmt: skip
    shown = {column.key: [row[index].text for row in board.rows()] for index, column in enumerate(board.columns)}
    assert shown["role"][3] == "control"
    assert list(board.frame["kl_mark"]) == ["", "", "", "≤\u00a0", ""] and shown["kl"][3].startswith("≤\u00a00.6")
    assert "| control |" in Markdown().render(controlled.results())
    assert "role" in [str(column.header) for column in terminal._leaderboard(section).columns]
    (plain,) = sections(run.results())
    assert "role" not in {column.key for column in tables.leaderboard(plain).columns}
    assert not any(tables.leaderboard(plain).frame["kl_mark"])


def test_a_control_of_one_seed_costs_the_contenders_none(controlled):
    """Four of its seeds were never planned: its row says 1 of 1, the caption names it, and the ranking has all seeds of
    the others (four, since one of ppo's ran out of memory)."""
    plan = json.loads((controlled.folder / "plan.json").read_text())
    kept = [cell for cell in plan["cells"] if cell["algorithm"] != BEST or cell["seed"] == 0]
    controlled.edit(controlled.folder / "plan.json", cells=kept)
    for seed in controlled.seeds[1:]:
        shutil.rmtree(controlled.path(BEST, seed))
    (section,) = sections(controlled.results())
    board = tables.leaderboard(section)
    seeds = dict(zip(board.frame["algorithm"], board.frame["seeds"], strict=True))
    assert seeds[BEST] == "1/1" and seeds["dpo"] == "5/5"
    assert f"Descriptive only, with fewer than 5 seeds: ppo and {BEST}." in board.caption
    assert f"With one seed an interval is over prompts alone, and too narrow: {BEST}." in board.caption
    assert not section.effects[BEST].verdict.decides and section.effects["dpo"].verdict.decides
    assert section.ranking.algorithms == ("base", "sft", "dpo", "ppo") and section.ranking.seeds == 4
    assert set(section.tiers) == {"base", "sft", "dpo", "ppo"}


def test_no_sentence_calls_a_control_best(controlled):
    """The headline, the alternative texts and the tables at equal cost name the best contender."""
    (section,) = sections(controlled.results())
    said = {chart.name: chart.alt for chart in gallery.all_charts(section)}
    assert said["effects"].startswith("dpo gains most")
    assert all(
        BEST not in text
        for name, text in said.items()
        if name.startswith(("effects", "versus", "wins", "curve", "cost"))
    )
    for equal in section.equal_by.values():
        assert equal.winner != BEST and BEST not in equal.sentence


def test_claims_are_of_contenders(whole):
    """No sentence is about a control alone, and none says that a control lost; who does not beat it is told."""
    made = claims(whole.results())
    assert len([claim for claim in made if "control" not in claim.text]) == 6  # three gains, three pairs
    told = [claim.text for claim in made if "control" in claim.text]
    assert len(told) == 3
    assert all(f"is worse than the control {BEST}: −0." in text for text in told)
    shift(whole, -2.0)
    made = claims(whole.results())
    assert len(made) == 6
    assert not any(BEST in claim.text for claim in made)


def test_the_pairwise_table_says_it_of_the_contender(controlled):
    """A control that is better is still the one that the contender is held against."""
    (section,) = sections(controlled.results())
    pairs = {(pair.a, pair.b): pair.verdict.word for pair in section.pairs if pair.family == "with a control"}
    assert set(pairs) == {(BEST, "base"), ("dpo", BEST), ("ppo", BEST), ("sft", BEST)}
    assert pairs["sft", BEST] == "LOSS"


def shift(run, by, algorithm=BEST):
    for seed in run.seeds:
        path = run.path(algorithm, seed) / "scores.parquet"
        scores = pd.read_parquet(path)
        scores.loc[scores["metric"] == "gold_reward", "value"] += by
        scores.to_parquet(path)


def test_no_control_is_too_bad_to_pass_the_gate(whole, tmp_path):
    """Far below the base, worse than before, gone or diverged: it is told. A crash is broken code, and fails."""
    passed = tmp_path / "passed"
    shutil.copytree(whole.folder, passed)
    before = Results.read(passed)
    shift(whole, -2.0)
    for against in (None, before):
        made = gate(whole.results(), against)
        assert made.code == Code.OK
        (said,) = [text for _, text in made.findings if BEST in text]
        assert "−" in said and said.endswith("(a control: not held)")
    shift(whole, -2.0, "dpo")
    assert gate(whole.results(), before).code == Code.REGRESSION
    shift(whole, 2.0, "dpo")
    whole.edit(whole.path(BEST, 0) / "status.json", status="diverged")
    assert gate(whole.results(), before).code == Code.OK
    whole.edit(whole.path(BEST, 0) / "status.json", status="plugin_error")
    assert gate(whole.results(), before).code == Code.REGRESSION
    plan = json.loads((whole.folder / "plan.json").read_text())
    whole.edit(whole.folder / "plan.json", cells=[c for c in plan["cells"] if c["algorithm"] != BEST])
    shutil.rmtree(whole.path(BEST, 0).parent)
    shutil.copytree(passed / "cells", whole.folder / "cells", ignore=shutil.ignore_patterns(f"*-{BEST}-*"))
    assert gate(whole.results(), before).code == Code.OK


def test_a_run_of_controls_alone_measures_nothing_to_hold(whole):
    """Without a contender there is nothing that could pass."""
    for algorithm in ("sft", "dpo", "ppo"):
        for seed in whole.seeds:
            whole.edit(whole.path(algorithm, seed) / "cell.json", is_control=True)
    assert gate(whole.results()).code == Code.NOTHING_MEASURED


def test_a_flag_of_a_control_alone_keeps_nobody_from_passing(whole):
    """Two seeds of it are one and the same; those of a contender would make the run worthless."""
    copy_seed(whole, BEST)
    assert gate(whole.results()).code == Code.OK
    copy_seed(whole, "dpo")
    assert gate(whole.results()).code == Code.NOT_COMPARABLE


def copy_seed(run, algorithm):
    """Seed 1 is what seed 0 is, and a control that trains."""
    shutil.copy(run.path(algorithm, 0) / "samples.parquet", run.path(algorithm, 1) / "samples.parquet")
    for seed in run.seeds:
        ledger = run.path(algorithm, seed) / "ledger.json"
        spent = json.loads(ledger.read_text())["spent"] | {"steps": 60, "flops": 6.06e12}
        run.edit(ledger, spent=spent)


def test_across_tasks_contenders_rank_and_controls_stand_below(tmp_path, run):
    """The likeliest to improve is first among contenders; the control that beats them all is last, and marked."""
    made = type(run)(tmp_path / "two", tasks=("sentiment", "arithmetic")).write()
    (plain,) = tables_of_run(made.results())
    assert "role" not in {column.key for column in plain.columns}
    for path in made.folder.glob(f"cells/*-{BEST}-*/cell.json"):
        made.edit(path, is_control=True)
    (table,) = tables_of_run(made.results())
    assert list(table.frame["algorithm"])[-1] == BEST
    assert list(table.frame["role"]) == ["contender"] * 3 + ["control"]
    assert list(table.frame["improvement"])[:3] == sorted(table.frame["improvement"][:3], reverse=True)
    assert "role" in {column.key for column in table.columns}
