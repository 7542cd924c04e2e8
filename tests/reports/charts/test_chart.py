"""Charts: their data, their sentences, their marks, and that the same numbers give the same bytes."""

import shutil
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.charts import design as charts_design
from bakeoff.reports.charts import effects as charts_effects
from bakeoff.reports.charts import gallery, style
from bakeoff.reports.charts import prompts as charts_prompts
from bakeoff.reports.charts import training as charts_training
from bakeoff.reports.charts.chart import drawing

AXES = ("steps", "tokens-trained", "tokens-generated", "flops", "seconds")


@pytest.fixture(scope="module")
def section(results):
    return sections(results)[0]


WINNERS = ("effects", "versus", "wins", "seeds")


@pytest.fixture(scope="module")
def drawn(section):
    return {chart.name: chart for chart in gallery.all_charts(section)}


def test_every_chart_that_the_data_allow_is_drawn(drawn):
    """All of them, by the question that they answer."""
    assert list(drawn) == [
        *WINNERS,
        *("frontier", "kl-profile", *(f"curve-{axis}" for axis in ("steps", "prompts", *AXES[1:]))),
        *("cost-flops", "cost-seconds", "cost-peak-bytes"),
        *("gains", "distribution", "proxy", "length", "lengths", "win-length", "best-of-n", "variance", "power"),
        "robustness",
        *(f"{name}-{axis}" for axis in AXES for name in WINNERS),
    ]


def test_files_are_well_formed(drawn):
    """SVG parses and PNG and PDF start as such; text is text, so that it can be searched and read aloud."""
    for chart in drawn.values():
        words = "".join(ElementTree.fromstring(chart.svg).itertext())
        assert "grpo-lr3" in words
        assert "<dc:date>" not in chart.svg
        assert chart.alt
        assert chart.caption
        assert len(chart.data)
    assert drawn["effects"].png.startswith(b"\x89PNG")
    assert drawn["effects"].pdf.startswith(b"%PDF")
    assert b"CreationDate" not in drawn["effects"].pdf


def test_the_same_numbers_give_the_same_bytes(section, drawn):
    """Drawing again changes nothing, not even an id."""
    again, once = charts_training.frontier(section), drawn["frontier"]
    assert (again.svg, again.png, again.pdf) == (once.svg, once.png, once.pdf)


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
    (axes,) = drawn["frontier"].figure.axes
    roots = np.sqrt(axes.get_xticks())
    assert axes.get_xscale() == "function" and np.diff(roots) == pytest.approx(roots[1])  # even in the root of KL
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


def test_gains_under_an_equal_amount_are_those_of_its_section(drawn, section):
    """The chart under equal seconds shows that section's gains, best first, and belongs to the one as run."""
    chart, equal = drawn["effects-seconds"], section.equal_by["seconds"]
    gains = chart.data.set_index("algorithm")["mean"].to_dict()
    assert gains == {name: equal.effects[name].difference.mean for name in equal.ranked if name != "base"}
    assert list(gains) == [name for name in equal.ranked if name != "base"]
    assert (chart.family, chart.axis) == (drawn["effects"].title, "seconds")
    assert chart.caption.startswith("Equal seconds: 31.0 s a seed.")


def test_seeds_show_every_run(drawn):
    """Five algorithms' three runs: a mean each, and the one that failed with its status."""
    data = drawn["seeds"].data
    assert len(data) == 15
    assert list(data.loc[data["status"] != "ok", "algorithm"]) == ["ppo"]
    assert data["gold_reward"].isna().sum() == 1
    assert "1 run without a result" in drawn["seeds"].caption


def test_lengths_are_drawn_where_they_differ(drawn, run):
    """Quantiles rise; where nearly every completion ends at the limit there is nothing to draw."""
    data = drawn["lengths"].data
    assert all(rows["length_tokens"].is_monotonic_increasing for _, rows in data.groupby("algorithm"))
    assert set(data["algorithm"]) == {"base", "sft", "dpo", "ppo", "grpo-lr3"}
    for cell in run.folder.glob("cells/*/scores.parquet"):
        scores = pd.read_parquet(cell)
        scores.assign(value=scores["value"].where(scores["metric"] != "length_tokens", 12.0)).to_parquet(cell)
    (section,) = sections(run.results())
    assert charts_prompts.completion_lengths(section) is None


def test_wins_add_up(drawn):
    """Won, tied and lost are all there is; the rate is wins and half the ties."""
    data = drawn["wins"].data
    assert (data["won"] + data["tied"] + data["lost"]).to_numpy() == pytest.approx(1)
    assert (data["won"] + data["tied"] / 2).to_numpy() == pytest.approx(data["win_rate"].to_numpy())


def test_versus_is_antisymmetric(drawn):
    """What one wins the other loses."""
    rates = drawn["versus"].data.pivot(index="algorithm", columns="against", values="win_rate")
    assert (rates + rates.T).stack().dropna().to_numpy() == pytest.approx(1)


def test_gains_are_means_over_seeds_of_pairs(drawn, section):
    """One prompt's gain, worked out: the algorithm's score less the base's, averaged over the three seeds."""
    data = drawn["gains"].data.set_index(["algorithm", "prompt_id"])["gain"]
    own, base = (section.grid(name, "gold_reward")["p003"] for name in ("dpo", "base"))
    assert data["dpo", "p003"] == pytest.approx((own - base).mean())
    assert len(data) == 4 * 48


def edit_scores(run, change):
    for path in run.folder.glob("cells/*/scores.parquet"):
        change(pd.read_parquet(path)).to_parquet(path)


def test_proxy_is_left_out_where_it_is_the_gold_reward(run):
    """Nothing to compare: both rewards are one number under two names."""

    def copied(scores):
        gold = scores[scores["metric"] == "gold_reward"].assign(metric="train_reward")
        return pd.concat([scores[scores["metric"] != "train_reward"], gold])

    edit_scores(run, copied)
    assert charts_training.proxy(sections(run.results())[0]) is None


def test_the_fit_through_gold_is_that_of_the_table(drawn, section):
    """d (a - b log d) above the start at each evaluation after it, for the algorithms of which it explains most."""
    data = drawn["proxy"].data
    fits = {name: found.fit for name, found in section.overoptimised.items() if found.fit.r_squared > 0.5}
    assert fits
    assert set(data.dropna(subset="fitted")["algorithm"]) == set(fits)
    for name, fit in fits.items():
        own = data[data["algorithm"] == name]
        d = own["sqrt_kl"].iloc[1:]
        gain = own["fitted"].iloc[1:] - own["gold_reward"].iloc[0]
        assert gain.to_numpy() == pytest.approx((d * (fit.a - fit.b * np.log(d))).to_numpy())


def test_length_of_winners_is_binned(run):
    """Where lengths differ, each group has a win rate in [0, 1], and no comparison is lost."""
    random = np.random.default_rng(0)

    def varied(scores):
        lengths = random.integers(5, 60, len(scores)).astype(float)
        return scores.assign(value=scores["value"].where(scores["metric"] != "length_tokens", lengths))

    edit_scores(run, varied)
    chart = charts_prompts.lengths(sections(run.results())[0])
    assert chart.data["win_rate"].between(0, 1).all()
    assert chart.data.groupby("algorithm")["comparisons"].sum()["dpo"] == 3 * 48


def test_a_group_of_an_answer_or_two_goes_to_its_neighbour():
    """Of 64 comparisons one is shorter, two are longer: one group, for two are less than half an eighth. With four
    longer ones there are two groups."""
    lengths, won = np.r_[-0.5, np.zeros(63)], np.r_[np.zeros(32), np.ones(32)]
    lengths[-2:] = (0.5, 1.0)
    assert charts_prompts._binned(lengths, won).tolist() == [[1.0 / 64, 0.5, 64]]
    lengths[-4:] = 1.0
    assert charts_prompts._binned(lengths, won).tolist() == [[-0.5 / 60, 28 / 60, 60], [1.0, 1.0, 4]]


def test_lengths_have_ticks_that_differ_and_the_rate_at_equal_length(run):
    """Answers a hundredth longer or shorter are drawn on an axis of a tenth to either side, no two labels alike."""
    random = np.random.default_rng(0)

    def varied(scores):
        lengths = np.where(scores["fraction"] == 1.0, 100 + random.integers(-1, 2, len(scores)), 100.0)
        scores = scores.assign(value=scores["value"].where(scores["metric"] != "length_tokens", lengths))
        won = random.integers(0, 2, len(scores)).astype(float)
        return scores.assign(value=scores["value"].where(scores["metric"] != "win_rate", won))

    edit_scores(run, varied)
    (section,) = sections(run.results())
    chart = charts_prompts.lengths(section)
    (axes,) = chart.figure.axes
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["×0.9", "×0.95", "×1", "×1.05", "×1.1"]
    assert axes.get_xlim()[0] <= -np.log2(1.12)
    on_line = chart.data.dropna(subset="at_equal_length").set_index("algorithm")["win_rate"]
    rates = {name: found.win_rate.value for name, found in section.length_controlled.items()}
    assert on_line.to_dict() == rates


def test_ratios_are_round_at_any_width():
    """About six ticks from a hair's breadth to a factor of a thousand."""
    assert charts_prompts.ratio_ticks(-0.14, 0.14).tolist() == pytest.approx([0.95, 1, 1.05, 1.1])
    assert charts_prompts.ratio_ticks(-1, 2).tolist() == pytest.approx([0.5, 0.75, 1, 1.5, 2, 3, 4])
    assert charts_prompts.ratio_ticks(-0.7, 0.7).tolist() == pytest.approx([0.75, 1, 1.25, 1.5])
    assert charts_prompts.ratio_ticks(-5, 5).tolist() == [2.0**power for power in (-4, -2, 0, 2, 4)]


def test_an_interval_too_wide_is_cut_and_the_caption_says_so(section):
    """Ends of intervals are shown where they are near, else up to three quarters of a span away."""
    with drawing(section) as d:
        d.focus("y", [0.0, 1.0], [-0.2, 1.2])
        assert d.axes.get_ylim() == pytest.approx((-0.27, 1.27))
        assert not d.cut
        d.focus("y", [0.0, 1.0], [-40.0, 1.2, np.nan])
        assert d.axes.get_ylim() == pytest.approx((-0.75 - 0.05 * 1.95, 1.2 + 0.05 * 1.95))
        d.rows.append({"x": 1})
        assert "goes on beyond it" in d.chart("cut", "Cut", alt="", caption="Bars.").caption


def test_best_of_n_starts_at_the_reference_and_rises(drawn, section):
    """n = 1 is the reference itself; the best of more is never worse; policies stand where the table puts them."""
    data = drawn["best-of-n"].data
    curve = data[data["series"] == "best of n"]
    assert curve["n"].iloc[0] == 1
    assert curve["gold_reward"].iloc[0] == pytest.approx(section.frontier.reference)
    assert curve["gold_reward"].is_monotonic_increasing
    assert data.set_index("series").loc["sft", "n"] == section.frontier.policies["sft"].worth.value


def test_variance_parts_make_the_error(drawn, section):
    """The parts of the mean's variance are those of the statistics, divided by the design."""
    parts = section.components("dpo")
    row = drawn["variance"].data.set_index("algorithm").loc["dpo"]
    assert row["variance_seed"] == pytest.approx(parts.seed / 3)
    assert row["variance_prompt"] == pytest.approx(parts.prompt / 48)


def test_the_first_look_is_the_declared_one(drawn, section):
    """Its differences are those of the verdicts; every pair is looked at in every other way too."""
    data = drawn["robustness"].data
    declared = data[data["specification"] == "as declared"].set_index(["algorithm", "against"])["difference"]
    assert declared.to_dict() == {(c.a, c.b): pytest.approx(c.difference.mean) for c in section.pairs}
    looks = data["specification"].value_counts()
    assert looks.pop("one evaluation earlier") == 6  # base was evaluated once
    assert looks.pop("one seed left out") == 6  # ppo has two
    assert looks.pop("by win rate at equal length") == 6  # over base, so not of it
    assert looks.pop("within the smaller KL") == 5  # grpo-lr3 was never as near as sft ends
    assert set(looks) == {len(section.pairs)}
    assert {"median prompt", "by win rate", "harder half"} <= set(data["specification"])


def test_a_median_is_of_prompts_and_its_interval_over_seeds(drawn, section):
    """Worked out for one pair: the mean over seeds of the difference of medians."""
    data = drawn["robustness"].data.set_index(["specification", "algorithm", "against"])["difference"]
    dpo, base = (section.grid(name, "gold_reward").median(axis="columns") for name in ("dpo", "base"))
    assert data["median prompt", "dpo", "base"] == pytest.approx((dpo - base).mean())


def test_the_smallest_run_has_charts(tmp_path, run):
    """One seed, two prompts: whatever can be drawn is, and nothing breaks."""
    small = type(run)(tmp_path / "small", seeds=(0,), prompts=2).write()
    names = [chart.name for chart in gallery.all_charts(sections(small.results())[0])]
    assert {"effects", "seeds", "frontier", "gains"} <= set(names)
    assert not {"variance", "power", "robustness"} & set(names)


def test_one_seed_plans_nothing(run):
    """With one seed there is no variance between seeds to plan with, and none to tell of."""
    for seed in (1, 2):
        for path in run.folder.glob(f"cells/*-{seed}"):
            shutil.rmtree(path)
    (section,) = sections(run.results())
    assert charts_design.power(section) is None
    assert charts_design.variance(section) is None
    assert charts_effects.seeds(section).alt.startswith("One run of each")


def test_power_falls_with_seeds_and_prompts(drawn):
    """More seeds and more prompts see smaller differences."""
    data = drawn["power"].data.pivot(index="seeds", columns="prompts", values="detectable")
    assert list(data.columns) == [48, 192, 768]
    assert (data.diff().dropna() <= 0).all().all()
    assert (data[48] >= data[768]).all()


def test_cost_rings_what_nothing_beats(drawn):
    """Memory is equal for all here, so the best gain alone is ringed."""
    chart = drawn["cost-peak-bytes"]
    assert chart.data["peak_bytes"].nunique() == 1
    named = [mark.algorithm for mark in chart.marks.values()]
    assert {name: named.count(name) for name in named} == {"grpo-lr3": 4, "dpo": 3, "sft": 3, "ppo": 3}


def test_column_charts_are_one_column_wide(section):
    """For a paper the same data are drawn 3.3 inches wide, with the text of a caption."""
    chart = charts_effects.forest(section, style.COLUMN)
    root = ElementTree.fromstring(chart.svg)
    assert float(root.get("width").removesuffix("pt")) == pytest.approx(3.3 * 72)
    assert "7px" in chart.svg
    assert chart.data.equals(charts_effects.forest(section).data)


def test_what_can_be_pointed_at_is_in_the_svg(drawn):
    """Each mark with words stands there under its id, and is of one of the run's algorithms."""
    for chart in drawn.values():
        ids = {element.get("id") for element in ElementTree.fromstring(chart.svg).iter()}
        assert {name for name, mark in chart.marks.items() if mark.tip} <= ids
        assert {mark.algorithm for mark in chart.marks.values()} <= {"base", "sft", "dpo", "ppo", "grpo-lr3"}


def test_labels_do_not_overlap_and_give_way_to_a_legend():
    """Ends at one place are moved apart; more series than fit get a legend."""
    with style.figure() as (figure, (axes,)):
        axes.plot([0, 1], [0, 1])
        style.label_ends(figure, axes, [style.Ending(1, 1, f"series {i}", "#000000") for i in range(3)], [], [])
        renderer = figure.canvas.get_renderer()
        boxes = [text.get_window_extent(renderer).expanded(1, 0.8) for text in axes.texts]
        assert len(boxes) == 3
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    with style.figure() as (figure, (axes,)):
        lines = axes.plot([0, 1], [0, 1], label="one")
        style.label_ends(figure, axes, [style.Ending(1, 1, f"series {i}", "#000000") for i in range(7)], [], lines)
        assert axes.get_legend() is not None
        assert not axes.texts


def test_labels_are_never_read_as_mathematics(run):
    """A label with dollars is printed as it stands, not parsed as TeX."""
    plan = run.folder / "plan.json"
    plan.write_text(plan.read_text().replace('"algorithm": "sft"', '"algorithm": "$\\\\frac$ <b>"'))
    chart = charts_effects.forest(sections(run.results())[0])
    assert "$\\frac$ <b>" in "".join(ElementTree.fromstring(chart.svg).itertext())


def test_without_a_baseline_the_metric_itself_is_drawn(run):
    """No base row: the forest shows means, and cost against gain is left out."""
    for seed in range(3):
        shutil.rmtree(run.path("base", seed))
    made = {chart.name: chart for chart in gallery.all_charts(sections(run.results())[0])}
    assert made["effects"].title == "Gold reward"
    assert made["effects"].alt.startswith("grpo-lr3 has the best mean gold reward")
    assert "cost-flops" not in made


def test_an_empty_run_has_no_charts(run):
    """Nothing finished, nothing drawn."""
    shutil.rmtree(run.folder / "cells")
    assert gallery.charts_of(sections(run.results())[0]) == {}
