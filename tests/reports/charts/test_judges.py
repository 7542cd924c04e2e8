"""The audit of a judge, pair by pair, on verdicts that can be counted by hand."""

from pathlib import Path

import pandas as pd
import pytest
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.charts import judges
from bakeoff.reports.charts.style import COLUMN, PAGE
from bakeoff.reports.records.scored import Scoring
from bakeoff.reports.tables.judged import Judged


@pytest.fixture
def section(results):
    return sections(results)[0]


@pytest.fixture
def draw(section, monkeypatch):
    """A function that draws the audit of given (pair, verdicts by prompt)."""

    def drawn(canvas=PAGE, **pairs):
        ids = section.cells[section.cells["seed"] == 0].set_index("algorithm")["id"]
        values = {("a", "b"): 1.0, ("b", "a"): 0.0}
        rows = [
            (ids[a], ids[b], f"p{n:03d}", 0, 0, *orders, values.get(orders, 0.5))
            for (a, b), verdicts in ((key.split("_"), verdicts) for key, verdicts in pairs.items())
            for n, orders in enumerate(verdicts)
        ]
        columns = ["a", "b", "prompt_id", "sample", "seed", "forward", "backward", "value"]
        scoring = Scoring(
            Path(), {"kind": "judge", "label": "llm"}, pd.DataFrame(), pd.DataFrame(rows, columns=columns),
            pd.DataFrame(), 0,
        )  # fmt: skip
        monkeypatch.setattr(judges, "judged", lambda section: [Judged(section, scoring)])
        return judges.audit(section, 0, canvas)

    return drawn


def test_turns_and_the_first_text_are_counted_by_pair(draw):
    """sft / base: one of four turns, and the first text wins five of eight verdicts; dpo / base: two of two turn."""
    chart = draw(sft_base=[("a", "b"), ("b", "a"), ("a", "a"), ("a", "b")], dpo_base=[("b", "b"), ("a", "a")])
    rows = chart.data.set_index("a")
    assert rows["flipped"].to_dict() == {"sft": 0.25, "dpo": 1.0}
    assert rows["first"].to_dict() == {"sft": 5 / 8, "dpo": 0.5}
    # Wilson's interval of 2 of 2: 1 / (1 + z² / 2) at its lower end.
    assert rows.loc["dpo", "flipped_low"] == pytest.approx(1 / (1 + 1.959964**2 / 2), abs=1e-6)
    assert chart.alt == "Judge llm turns most on dpo / base: the order decides 100%."
    assert len(chart.figure.axes) == 1


def test_the_pairs_on_which_order_weighs_most_are_drawn(draw, monkeypatch):
    """With room for one pair it is the one that turns; the data has both, and the caption says so."""
    monkeypatch.setattr(judges, "PAIRS", 1)
    chart = draw(sft_base=[("a", "b"), ("b", "a")], dpo_base=[("b", "b"), ("a", "b")])
    assert [label.get_text() for label in chart.figure.axes[0].get_yticklabels()] == ["dpo / base"]
    assert len(chart.data) == 2
    assert "The 1 of 2 pairs" in chart.caption
    assert draw(sft_base=[("a", "b"), ("b", "a")]).alt == "Judge llm never turns with the order of reading."


def test_a_judge_is_held_against_the_gold_reward(draw, section):
    """One that always takes the text with more gold sides with it everywhere; its opposite nowhere."""
    sft, base = (section.grid(name, "gold_reward").loc[0] for name in ("sft", "base"))
    gold = [("a", "b") if sft[p] > base[p] else ("b", "a") for p in sft.index]
    right = draw(sft_base=gold).data.dropna(subset="agreement")
    assert set(right["agreement"]) == {1.0}
    assert right["comparisons"].sum() == 48
    assert right["gold_gap"].is_monotonic_increasing
    wrong = draw(sft_base=[(second, first) for first, second in gold]).data.dropna(subset="agreement")
    assert set(wrong["agreement"]) == {0.0}
    # A paper's column has room for the pairs alone; the data has both.
    narrow = draw(canvas=COLUMN, sft_base=gold)
    assert (len(narrow.figure.axes), "Right:" in narrow.caption) == (1, False)
    assert len(narrow.data.dropna(subset="agreement")) == len(right)


def test_no_judge_no_chart(section):
    """Nothing was compared."""
    assert judges.audit(section, 0) is None
