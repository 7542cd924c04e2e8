"""Controls stand on the same tables, are marked, and win nothing."""

import json
import shutil

import pytest
from bakeoff.reports import terminal
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.charts import gallery
from bakeoff.reports.markdown import Markdown
from bakeoff.reports.tables import leaderboard as tables

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
    """Contenders come first, then controls, each group by its numbers; the bound has a column; without controls no mark."""
    (section,) = sections(controlled.results())
    board = tables.leaderboard(section)
    assert section.ranked == [BEST, "dpo", "ppo", "sft", "base"]
    assert list(zip(board.frame["algorithm"], board.frame["role"], strict=True)) == [
        ("dpo", "contender"), ("ppo", "contender"), ("sft", "contender"), (BEST, "control"), ("base", "control"),
    ]  # fmt: skip
    shown = {column.key: [row[index].text for row in board.rows()] for index, column in enumerate(board.columns)}
    assert shown["role"][3] == "control" and shown["kl_bound"] == ["–", "–", "–", "0.636", "–"]
    assert "| control |" in Markdown().render(controlled.results())
    assert "role" in [str(column.header) for column in terminal._leaderboard(section).columns]
    (plain,) = sections(run.results())
    assert not {"role", "kl_bound"} & {column.key for column in tables.leaderboard(plain).columns}


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
    assert not section.effects[BEST].verdict.decides and section.effects["dpo"].verdict.decides
    assert section.ranking.algorithms == ("base", "sft", "dpo", "ppo") and section.ranking.seeds == 4


def test_no_sentence_calls_a_control_best(controlled):
    """The headline, the alternative texts and the tables at equal cost name the best contender."""
    (section,) = sections(controlled.results())
    said = {chart.name: chart.alt for chart in gallery.all_charts(section)}
    assert said["effects"].startswith("dpo gains most")
    assert all(BEST not in text for name, text in said.items() if name.startswith(("effects", "curve", "cost")))
    for equal in section.equal_by.values():
        assert BEST not in [standing.algorithm for standing in equal.standings] and BEST not in equal.sentence
