"""Charts: their data, their sentences, and that the same numbers give the same bytes."""

import shutil
from xml.etree import ElementTree

import pytest
from bakeoff.reports import charts, style
from bakeoff.reports.analysis import sections


@pytest.fixture(scope="module")
def section(results):
    return sections(results)[0]


@pytest.fixture(scope="module")
def drawn(section):
    return {chart.name: chart for chart in charts.charts_of(section)}


def test_every_chart_that_the_data_allow_is_drawn(drawn):
    """Effects, frontier, six budget axes and two costs."""
    curves = [
        f"curve-{axis}" for axis in ("steps", "prompts", "tokens-trained", "tokens-generated", "flops", "seconds")
    ]
    assert list(drawn) == ["effects", "frontier", *curves, "cost-flops", "cost-seconds"]


def test_files_are_well_formed(drawn):
    """SVG parses and PNG starts as one; text is text, so that it can be searched and read aloud."""
    for chart in drawn.values():
        root = ElementTree.fromstring(chart.svg)
        words = "".join(root.itertext())
        assert "grpo-lr3" in words
        assert chart.png.startswith(b"\x89PNG")
        assert "<dc:date>" not in chart.svg


def test_the_same_numbers_give_the_same_bytes(section, drawn):
    """Drawing again changes nothing, not even an id."""
    again = charts.frontier(section)
    assert (again.svg, again.png) == (drawn["frontier"].svg, drawn["frontier"].png)


def test_effects_carry_the_estimates_and_say_who_won(drawn, section):
    """The data are the paired gains with their intervals and seeds; the sentence is computed from them."""
    data = drawn["effects"].data.set_index("algorithm")
    effect = section.effects["grpo-lr3"].difference
    assert data.loc["grpo-lr3", "mean"] == effect.mean
    assert data.loc["grpo-lr3", "low"] == effect.low
    assert {"seed 0", "seed 1", "seed 2"} <= set(data.columns)
    assert drawn["effects"].alt.startswith(f"grpo-lr3 gains most over base: +{effect.mean:.3f} gold reward")
    assert drawn["effects"].alt.endswith("does not decide: ahead of base are grpo-lr3, dpo and sft.")


def test_frontier_follows_training(drawn):
    """Each trained algorithm has the start, two probes and the end; base is one point at KL 0."""
    data = drawn["frontier"].data
    assert dict(data["algorithm"].value_counts()) == {"sft": 4, "dpo": 4, "ppo": 4, "grpo-lr3": 4, "base": 1}
    for _, points in data[data["algorithm"] != "base"].groupby("algorithm"):
        assert points["kl"].is_monotonic_increasing
        assert points["kl"].iloc[0] == 0
    assert "sft moved least" in drawn["frontier"].alt
    assert "32 held-out prompts" in drawn["frontier"].caption


def test_curves_leave_out_who_spends_nothing_and_say_so(drawn):
    """Offline algorithms generate no tokens: they are not drawn against that axis, and the caption names them."""
    chart = drawn["curve-tokens-generated"]
    assert set(chart.data["algorithm"]) == {"ppo", "grpo-lr3"}
    assert "sft and dpo" in chart.caption


def test_cost_counts_shared_stages(drawn):
    """DPO's full cost includes the pairs that it needs; GRPO's is its own."""
    data = drawn["cost-seconds"].data.set_index("algorithm")
    assert tuple(data.loc["dpo", ["seconds_training", "seconds_with_shared"]]) == (38.0, 50.0)
    assert tuple(data.loc["grpo-lr3", ["seconds_training", "seconds_with_shared"]]) == (45.0, 45.0)


def test_an_algorithm_looks_the_same_everywhere():
    """Colour, marker and line style depend on the label's place in the plan only; the baseline is grey."""
    looks = style.looks(["base", "sft", "dpo"], "base")
    assert looks["base"].colour == style.GREY
    assert looks["sft"] == style.looks(["base", "sft", "dpo", "ppo"], "base")["sft"]
    many = style.looks([f"a{i}" for i in range(28)], None)
    assert len({(look.colour, look.dashes) for look in many.values()}) == 28


def test_labels_do_not_overlap_and_give_way_to_a_legend():
    """Ends at one place are moved apart; more series than fit get a legend."""
    with style.figure() as (figure, axes):
        axes.plot([0, 1], [0, 1])
        style.label_ends(figure, axes, [style.Ending(1, 1, f"series {i}", "#000000") for i in range(3)])
        renderer = figure.canvas.get_renderer()
        boxes = [text.get_window_extent(renderer).expanded(1, 0.8) for text in axes.texts]
        assert len(boxes) == 3
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    with style.figure() as (figure, axes):
        axes.plot([0, 1], [0, 1], label="one")
        style.label_ends(figure, axes, [style.Ending(1, 1, f"series {i}", "#000000") for i in range(7)])
        assert axes.get_legend() is not None
        assert not axes.texts


def test_labels_are_never_read_as_mathematics(run):
    """A label with dollars is printed as it stands, not parsed as TeX."""
    plan = run.folder / "plan.json"
    plan.write_text(plan.read_text().replace('"algorithm": "sft"', '"algorithm": "$\\\\frac$ <b>"'))
    chart = charts.forest(sections(run.results())[0])
    assert "$\\frac$ <b>" in "".join(ElementTree.fromstring(chart.svg).itertext())


def test_without_a_baseline_the_metric_itself_is_drawn(run):
    """No base row: the forest shows means, and cost against gain is left out."""
    for seed in range(3):
        shutil.rmtree(run.path("base", seed))
    made = {chart.name: chart for chart in charts.charts_of(sections(run.results())[0])}
    assert made["effects"].title == "Gold reward"
    assert made["effects"].alt.startswith("grpo-lr3 has the best mean gold reward")
    assert "cost-flops" not in made


def test_an_empty_run_has_no_charts(run):
    """Nothing finished, nothing drawn."""
    shutil.rmtree(run.folder / "cells")
    assert charts.charts_of(sections(run.results())[0]) == ()
