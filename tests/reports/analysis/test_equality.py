"""Equal by what: interpolation between evaluations, never beyond, and whether the winner changes."""

import json
import math
import shutil

import pandas as pd
import pytest
from bakeoff.reports.analysis.comparisons import EXPLORATORY
from bakeoff.reports.analysis.equality import CURRENCIES
from bakeoff.reports.analysis.frontier import on_prompts
from bakeoff.reports.analysis.grids import outcomes
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.charts import effects
from bakeoff.reports.html import HTML
from bakeoff.reports.tables.leaderboard import leaderboard


def test_the_amount_is_the_largest_that_all_reached(results):
    """sft trains 31 s and ppo 52 s: equal seconds are 31, where ppo was 60 % through."""
    (section,) = sections(results)
    equal = section.equal_by["seconds"]
    assert equal.amount == pytest.approx(31.0)
    assert equal.note("sft") == "measured at the end"
    end = section.curve("sft", "gold_reward")[-1].estimate.mean
    assert equal.estimate("sft", "gold_reward").mean == pytest.approx(end)
    assert equal.reached("ppo") == pytest.approx(31 / 52)
    assert equal.note("ppo") == "between evaluation 1 and evaluation 2"
    assert (equal.note("base"), math.isnan(equal.reached("base"))) == ("trains nothing", True)


def test_scores_are_read_off_on_a_straight_line(results):
    """grpo spends 45 s; at 31 s it is between 0.67 and 1, and each seed's mean is on the line between its two."""
    (section,) = sections(results)
    equal = section.equal_by["seconds"]
    weight = (31 - 45 * 0.67) / (45 - 45 * 0.67)
    for metric in ("gold_reward", "kl"):
        left, right = section.curve("grpo-lr3", metric)[2:]
        mean = (1 - weight) * left.estimate.mean + weight * right.estimate.mean
        assert equal.estimate("grpo-lr3", metric).mean == pytest.approx(mean)
    left, right = section.curve("grpo-lr3", "gold_reward")[2:]
    assert equal.cost("grpo-lr3")["seconds"] == pytest.approx(31)
    between = (1 - weight) * left.spent["flops"] + weight * right.spent["flops"]
    assert equal.cost("grpo-lr3")["flops"] == pytest.approx(between)


def test_win_rates_are_those_of_mixtures(results):
    """Each of the two is one evaluation or the other: four win rates, each as likely as both of its evaluations are."""
    (section,) = sections(results)
    equal = section.equal_by["seconds"]
    a, b = "grpo-lr3", "ppo"
    places = {name: equal.places[name] for name in (a, b)}
    parts = {name: [(i, weight) for i, weight in zip(place.evaluations, place.weights[0], strict=True) if weight]
             for name, place in places.items()}  # fmt: skip
    assert [len(each) for each in parts.values()] == [2, 2]
    expected = sum(
        weight * against * outcomes(section.cube(a, "gold_reward", i), section.cube(b, "gold_reward", j), 1.0).loc[0]
        for i, weight in parts[a]
        for j, against in parts[b]
    )
    found = equal.outcomes(a, b, "gold_reward")
    assert set(found.columns) <= set(section.curve_prompts)
    assert found.loc[0].to_numpy() == pytest.approx(expected[found.columns].to_numpy())
    assert found.to_numpy() == pytest.approx(1 - equal.outcomes(b, a, "gold_reward")[found.columns].to_numpy())


def test_a_mixture_wins_ties_and_loses_as_its_parts_do(results):
    """The share of samples that pass a test lies between those of both evaluations, and all shares are 1."""
    (section,) = sections(results)
    equal = section.equal_by["seconds"]
    won, tied, lost = (
        equal.share("grpo-lr3", "win_rate", test) for test in (lambda x: x > 0.5, lambda x: x == 0.5, lambda x: x < 0.5)
    )
    assert won + tied + lost == pytest.approx(1)
    assert won + tied / 2 == pytest.approx(equal.estimate("grpo-lr3", "win_rate").mean)


def test_who_spends_none_of_a_currency_is_not_ranked(results):
    """sft and dpo generate nothing; base is ranked, since it trains nothing."""
    (section,) = sections(results)
    equal = section.equal_by["tokens_generated"]
    assert equal.ranked == ["grpo-lr3", "ppo", "base"]
    assert {name: equal.note(name) for name in ("sft", "dpo")} == {"sft": "spends none", "dpo": "spends none"}
    assert equal.estimate("sft", "gold_reward") is None
    board = leaderboard(equal).frame.set_index("algorithm")
    assert board.index.tolist() == ["grpo-lr3", "ppo", "base", "sft", "dpo"]
    assert board.loc[["sft", "dpo"], ["primary", "delta", "flops"]].isna().all(axis=None)


def test_every_two_that_are_ranked_are_compared(results):
    """Three that generate are three pairs, the better one first, with the difference of their means."""
    (section,) = sections(results)
    equal = section.equal_by["tokens_generated"]
    assert [(pair.a, pair.b) for pair in equal.pairs] == [("ppo", "base"), ("grpo-lr3", "base"), ("grpo-lr3", "ppo")]
    means = {name: equal.estimate(name, "gold_reward").mean for name in equal.ranked}
    gain = equal.effects["grpo-lr3"]
    assert gain.difference.mean == pytest.approx(means["grpo-lr3"] - means["base"])
    assert {pair.family for pair in equal.pairs} == {EXPLORATORY}
    assert gain.p_holm == gain.p


def test_a_winner_that_stays_is_said_to_stay(results):
    """Where all spent the same, the order is that of the end, with the difference to the second and its verdict."""
    (section,) = sections(results)
    equal = section.equal_by["steps"]
    assert (equal.winner, equal.winner_changes) == ("grpo-lr3", False)
    assert equal.sentence.startswith("Under equal steps (60) the winner stays grpo-lr3, +")
    assert equal.sentence.endswith("over dpo: descriptive: ahead.")
    assert set(section.equal_by) == set(CURRENCIES)


def test_a_winner_that_pays_with_time_can_lose(run):
    """When grpo takes a hundred times as long, dpo leads under equal seconds, and the sentence says so."""
    for seed in range(3):
        path = run.path("grpo-lr3", seed) / "ledger.json"
        ledger = json.loads(path.read_text())
        slow = [probe | {"seconds": 100 * probe["seconds"]} for probe in ledger["probes"]]
        run.edit(path, probes=slow, spent=ledger["spent"] | {"seconds": 4500.0})
    (section,) = sections(run.results())
    assert section.ranked[0] == "grpo-lr3"
    equal = section.equal_by["seconds"]
    assert (equal.winner, equal.winner_changes) == ("dpo", True)
    assert "the winner changes from grpo-lr3 to dpo" in equal.sentence
    assert equal.note("grpo-lr3") == "between the start and evaluation 1"


def test_without_a_start_nothing_is_extrapolated(run):
    """Without base nobody knows where a curve starts: what is first measured beyond the amount has no rank."""
    for seed in range(3):
        shutil.rmtree(run.path("base", seed))
        path = run.path("grpo-lr3", seed) / "ledger.json"
        ledger = json.loads(path.read_text())
        run.edit(path, probes=[probe | {"seconds": 100 * probe["seconds"]} for probe in ledger["probes"]])
    (section,) = sections(run.results())
    equal = section.equal_by["seconds"]
    assert equal.estimate("grpo-lr3", "gold_reward") is None
    assert equal.note("grpo-lr3") == "first measured beyond this amount"


def _against_sft(section):
    return next(pair for pair in section.pairs if {pair.a, pair.b} == {"ppo", "sft"})


def test_an_unequal_budget_is_no_matter_where_amounts_are_equal(run):
    """ppo spent a third of its budget: no verdict as run, and none is kept from it under equal FLOPs."""
    for seed in (0, 1):
        path = run.path("ppo", seed) / "ledger.json"
        ledger = json.loads(path.read_text())
        short = {"flops": ledger["spent"]["flops"] / 3}
        probes = [probe | {"flops": probe["flops"] / 3} for probe in ledger["probes"]]
        run.edit(path, probes=probes, spent=ledger["spent"] | short)
    (section,) = sections(run.results())
    equal = section.equal_by["flops"]
    assert "of the budget" in _against_sft(section).verdict.reason
    assert "of the budget" not in _against_sft(equal).verdict.reason
    assert equal.reached("sft") == pytest.approx(1 / 3, rel=0.02)


def test_controls_stand_in_it_too_and_lead_nothing(run):
    """A control that trained is read off at the amount; it neither sets the amount nor wins."""
    for seed in range(3):
        run.edit(run.path("grpo-lr3", seed) / "cell.json", is_control=True)
    (section,) = sections(run.results())
    equal = section.equal_by["seconds"]
    assert equal.amount == pytest.approx(31.0)
    assert "grpo-lr3" in equal.ranked
    assert equal.winner != "grpo-lr3"


def test_without_a_start_and_without_probes_only_ends_are_left(run):
    """Nothing but ends of equal cost: they are measured, and the report is made all the same."""
    for seed in range(3):
        shutil.rmtree(run.path("base", seed))
        for algorithm in ("sft", "dpo", "grpo-lr3", *(["ppo"] if seed < 2 else [])):
            folder = run.path(algorithm, seed)
            for name in ("scores", "samples"):
                rows = pd.read_parquet(folder / f"{name}.parquet")
                rows[rows["fraction"] == 1.0].to_parquet(folder / f"{name}.parquet")
            probes = json.loads((folder / "ledger.json").read_text())["probes"]
            run.edit(folder / "ledger.json", probes=[probe for probe in probes if probe["fraction"] == 1.0])
    results = run.results()
    (section,) = sections(results)
    equal = section.equal_by["steps"]
    assert {equal.note(name) for name in equal.contenders} == {"measured at the end"}
    assert HTML().render(results).count("measured at the end") > 3


def shift(run, algorithm, change):
    """Rewrites the gold rewards of an algorithm by ``change(rows)``, a frame of one cell's."""
    for seed in range(3):
        path = run.path(algorithm, seed) / "scores.parquet"
        if path.exists():
            scores = pd.read_parquet(path)
            gold = scores["metric"] == "gold_reward"
            scores.loc[gold, "value"] = change(scores[gold])
            scores.to_parquet(path)


def test_a_winner_changes_by_the_amount_and_not_by_the_prompts(run):
    """dpo leads on prompts that no probe asks: under equal steps, where all are at their end, nobody has changed."""
    (section,) = sections(run.results())
    asked = set(section.curve_prompts)
    assert len(asked) < 48
    shift(run, "dpo", lambda rows: rows["value"].where(rows["prompt_id"].isin(asked), 1.0))
    (section,) = sections(run.results())
    equal = section.equal_by["steps"]
    assert (section.ranked[0], equal.leader, equal.winner_changes) == ("dpo", "grpo-lr3", False)
    assert "the winner stays grpo-lr3" in equal.sentence
    assert equal.sentence.endswith("On all prompts dpo leads at the end.")


def test_where_all_score_the_same_there_is_no_winner(run):
    """Nobody leads: not in the sentence, not in the table, not in the matrix of all against all."""
    for algorithm in ("base", "sft", "dpo", "ppo", "grpo-lr3"):
        shift(run, algorithm, lambda rows: 0.0 * rows["value"])
    (section,) = sections(run.results())
    equal = section.equal_by["flops"]
    assert (equal.winner, equal.winner_changes) == ("", False)
    assert "nothing tells the algorithms apart" in equal.sentence
    assert " > " not in equal.order
    assert all(effects.versus(each).alt.endswith("all have the same mean.") for each in (section, equal))


def test_a_lost_seed_of_the_baseline_takes_none_of_a_contenders(run):
    """Where ends are compared nobody needs a start; where one is needed, seeds without it are left out and counted."""
    shutil.rmtree(run.path("base", 2))
    (section,) = sections(run.results())
    steps, seconds = section.equal_by["steps"], section.equal_by["seconds"]
    pair = next(pair for pair in steps.pairs if {pair.a, pair.b} == {"grpo-lr3", "dpo"})
    assert (pair.difference.n_seeds, steps.seeds("dpo")) == (3, (3, 3))
    assert seconds.seeds("grpo-lr3") == (3, 3)
    for seed in range(3):
        path = run.path("grpo-lr3", seed) / "ledger.json"
        ledger = json.loads(path.read_text())
        run.edit(path, probes=[probe | {"seconds": 100 * probe["seconds"]} for probe in ledger["probes"]],
                 spent=ledger["spent"] | {"seconds": 4500.0})  # fmt: skip
    (section,) = sections(run.results())
    seconds = section.equal_by["seconds"]
    assert seconds.note("grpo-lr3") == "between the start and evaluation 1"
    assert seconds.seeds("grpo-lr3") == (2, 3)


def test_what_kl_buys_is_of_the_same_prompts(results):
    """The pool under an equal amount is of the prompts that scores are read on there."""
    (section,) = sections(results)
    equal = section.equal_by["flops"]
    pool = on_prompts(section, section.curve_prompts)
    assert equal.frontier.prompts == pool[2] == len(section.curve_prompts) < section.frontier.prompts
    assert equal.frontier.reference == pytest.approx(float(pool[1].reward[0]))
