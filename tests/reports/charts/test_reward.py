"""Charts of reward models: proxy and gold along training, and confidence against accuracy."""

import json
from xml.etree import ElementTree

import pandas as pd
import pytest
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.charts import reward as charts_reward
from bakeoff.reports.charts.gallery import all_charts
from bakeoff.reports.charts.style import COLUMN

GOLD = {0: 0.4, 1: 0.6, 2: 0.1}
"""Gold gain of grpo-lr3 at its three evaluations; its proxy goes on rising by one."""


def add_scores(run, rows_of):
    """Add what ``rows_of(record, scores)`` gives to the scores of every cell that ended well."""
    for path in run.folder.glob("cells/*/scores.parquet"):
        record = json.loads((path.parent / "cell.json").read_text())
        scores = pd.read_parquet(path)
        more = pd.DataFrame(rows_of(record, scores), columns=[*scores.columns])
        pd.concat([scores, more], ignore_index=True).to_parquet(path)
        names = more["metric"].unique()
        declared = [
            {"name": name, "unit": "", "direction": "none", "description": name, "evaluator": "mine"} for name in names
        ]
        run.edit(path.parent / "cell.json", metrics=record["metrics"] + declared)
    return sections(run.results())[0]


def gains(record, scores):
    rows = []
    for number, fraction in enumerate(sorted(scores["fraction"].unique())):
        parts = record["algorithm"] == "grpo-lr3"
        untrained = record["algorithm"] == "base"
        values = {"proxy_gain": number + 1.0, "gold_gain": GOLD[number] if parts else number + 1.0}
        for prompt in scores.loc[scores["fraction"] == fraction, "prompt_id"].unique():
            rows += [(prompt, 0, fraction, name, 0.0 if untrained else value) for name, value in values.items()]
    return rows


def pairs(record, scores):
    """Three of four right at a confidence of 0.75, and, of dpo, all wrong at 0.95."""
    rows = []
    for number, prompt in enumerate(sorted(scores["prompt_id"].unique())):
        confidence, right = (0.95, 0.0) if record["algorithm"] == "dpo" else (0.75, float(number % 4 > 0))
        rows += [(prompt, 0, 1.0, "pair_confidence", confidence), (prompt, 0, 1.0, "pair_accuracy", right)]
    return rows


def test_proxy_and_gold_part(run):
    """A panel an algorithm from the start's zero; the sentence says whose lines part, and what the gold reward lost."""
    section = add_scores(run, gains)
    chart = charts_reward.over_optimisation(section)
    data = chart.data[chart.data["algorithm"] == "grpo-lr3"]
    assert data["proxy_gain"].tolist()[-3:] == [1.0, 2.0, 3.0]
    assert data["gold_gain"].tolist()[-3:] == pytest.approx([0.4, 0.6, 0.1])
    assert set(chart.data["algorithm"]) == {"sft", "dpo", "ppo", "grpo-lr3"}
    assert chart.alt == (
        "grpo-lr3 ends with the widest gap: the training reward gained +3.00 standard deviations and the gold reward "
        "+0.10, 0.50 below its best."
    )
    words = "".join(ElementTree.fromstring(chart.svg).itertext())
    assert "gain since the start, SD" in words
    tips = [mark.tip for mark in chart.marks.values() if mark.tip]
    assert any("grpo-lr3, 100% of the budget: training reward +3.00" in tip for tip in tips)


def test_a_row_of_panels_has_room(run, monkeypatch):
    """The contenders whose lines part most, and no control: a matrix has more of both than a row has room for."""
    monkeypatch.setattr(charts_reward, "PANELS", 2)
    section = add_scores(run, gains)
    chart = charts_reward.over_optimisation(section)
    assert list(dict.fromkeys(chart.data["algorithm"])) == ["sft", "grpo-lr3"]
    assert chart.caption.endswith("Drawn: the 2 of 4 contenders whose lines part most.")
    section.__dict__["controls"] = frozenset({"base", "grpo-lr3"})
    assert "grpo-lr3" not in set(charts_reward.over_optimisation(section).data["algorithm"])


def test_one_chart_of_the_proxy(run):
    """In one unit where it was measured; then the one that mixes the rewards' own units is not drawn."""
    names = [chart.name for chart in all_charts(add_scores(run, gains))]
    assert "over-optimisation" in names
    assert "proxy" not in names


def test_reliability(run):
    """Bins of confidence with their accuracy and count; the expected calibration error is their weighted gap."""
    chart = charts_reward.reliability(add_scores(run, pairs))
    data = chart.data.set_index("algorithm")
    assert (data.loc["sft", "confidence"], data.loc["sft", "accuracy"]) == (pytest.approx(0.75), pytest.approx(0.75))
    assert data.loc["sft", "pairs"] == 3 * 48
    assert data.loc["dpo", "accuracy"] == 0.0
    assert "Expected calibration error: 0.000" in chart.alt
    assert chart.alt.endswith("0.950 for dpo, the most.")


def test_nothing_to_draw(results):
    """Runs without reward models have neither chart."""
    section = sections(results)[0]
    assert charts_reward.over_optimisation(section) is None
    assert charts_reward.reliability(section) is None


@pytest.mark.parametrize(("draw", "rows"), [("over_optimisation", gains), ("reliability", pairs)])
def test_a_papers_column(draw, rows, run):
    """Both fit the narrow canvas."""
    chart = getattr(charts_reward, draw)(add_scores(run, rows), canvas=COLUMN)
    assert chart.pdf.startswith(b"%PDF")
