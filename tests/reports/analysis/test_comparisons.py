"""Families, margins, blocked comparisons, diverged seeds, amended declarations and tiers."""

import json
import shutil

import pandas as pd
import pytest
from bakeoff.reports.analysis.section import sections


@pytest.fixture
def five(tmp_path, run):
    """A run of five seeds that a test may change."""
    return type(run)(tmp_path / "five", seeds=(0, 1, 2, 3, 4)).write()


def pair_of(section, a, b, metric="gold_reward"):
    return next(pair for pair in section.comparisons(metric) if {pair.a, pair.b} == {a, b})


def test_other_metrics_are_exploratory_and_not_adjusted(five_seeds):
    """The primary metric has its Holm families; any other one family of plain p values."""
    (section,) = sections(five_seeds)
    assert {pair.family for pair in section.comparisons("distinct_2")} == {"exploratory"}
    assert all(pair.p_holm == pair.p for pair in section.comparisons("distinct_2"))
    assert any(pair.p_holm > pair.p for pair in section.pairs)
    assert section.comparisons("no_such_metric") == []


def test_each_pair_has_a_test_without_a_distribution(five_seeds):
    """Five seeds that all gain: 2 of 32 sign patterns are as extreme; four seeds reach 2 of 16."""
    (section,) = sections(five_seeds)
    sft, ppo = section.effects["sft"], section.effects["ppo"]
    assert sft.by_seed == pytest.approx(section.by_seed("sft"))
    assert (sft.p_sign_flip, ppo.p_sign_flip) == (2 / 32, 2 / 16)


def test_all_pairs_can_be_declared_one_family(five):
    """Ten pairs in one family: the smallest p is multiplied by ten."""
    five.edit(five.folder / "plan.json", declarations=[five.declaration(family="all-pairs")])
    (section,) = sections(five.results())
    assert {pair.family for pair in section.pairs} == {"all pairs"}
    first = min(section.pairs, key=lambda pair: pair.p)
    assert first.p_holm == pytest.approx(10 * first.p)


def test_the_margin_is_the_declared_one_or_a_share_of_the_range(five):
    """2 % of [-1, 1] is 0.04; a declared margin is of the primary metric alone; KL has no upper end, so none."""
    (section,) = sections(five.results())
    assert (section.margin("gold_reward"), section.margin("kl")) == (pytest.approx(0.04), None)
    five.edit(five.folder / "plan.json", declarations=[five.declaration(margin=5.0)])
    (section,) = sections(five.results())
    assert section.margin("gold_reward") == 5.0
    assert section.margin("train_reward") == pytest.approx(0.04)
    assert {pair.verdict.word for pair in section.pairs if pair.difference.n_seeds == 5} == {"EQUIVALENT"}


def test_cells_that_are_not_comparable_count_in_no_verdict(five):
    """One seed at another precision is left out: its algorithm is judged by the other four, and the verdict says so."""
    parity = {"model_sha": "aa11", "device": "cpu", "lora": {"r": 16}, "train_rows_sha": "bb22", "precision": "int8"}
    for cell in five.folder.glob("cells/*/cell.json"):
        record = json.loads(cell.read_text())
        five.edit(cell, parity=record["parity"] | {"precision": "nf4"})
    five.edit(five.path("sft", 3) / "cell.json", parity=parity)
    (section,) = sections(five.results())
    effect = section.effects["sft"]
    assert effect.difference.n_seeds == 4
    assert effect.verdict.word == "INCONCLUSIVE"
    assert "1 not_comparable left out" in effect.verdict.reason
    assert section.effects["dpo"].verdict.word == "WIN"


def test_unequal_budgets_get_no_verdict(five):
    """An algorithm that spent half as much again as the budget beats nobody."""
    for seed in five.seeds:
        path = five.path("grpo-lr3", seed) / "ledger.json"
        ledger = json.loads(path.read_text())
        five.edit(path, spent=ledger["spent"] | {"flops": 9e12})
    (section,) = sections(five.results())
    assert section.effects["grpo-lr3"].verdict.reason == "grpo-lr3 spent 150% of the budget."
    assert pair_of(section, "grpo-lr3", "dpo").verdict.reason == "grpo-lr3 spent 150% of the budget."
    assert section.effects["dpo"].verdict.word == "WIN"


def test_a_diverged_seed_counts_as_not_having_moved(five):
    """Leaving the lost run out would flatter the algorithm: it counts as the base of the same seed, gain 0."""
    (before,) = sections(five.results())
    gains = before.by_seed("sft")
    five.edit(five.path("sft", 4) / "status.json", status="diverged", reason="loss is nan")
    (section,) = sections(five.results())
    effect = section.effects["sft"]
    assert effect.difference.n_seeds == 5
    assert effect.difference.mean == pytest.approx(sum(gains[seed] for seed in range(4)) / 5)
    assert "1 diverged, counted as not having moved" in effect.verdict.reason


def test_seeds_that_were_added_after_a_look_are_said(five):
    """A declaration that was changed with results on disk marks every verdict as sequential."""
    first = five.declaration(seeds=[0, 1, 2])
    later = five.declaration() | {"results": 15, "declared": "2026-11-24T00:00:00+00:00"}
    five.edit(five.folder / "plan.json", declarations=[first, later])
    (section,) = sections(five.results())
    verdict = section.effects["sft"].verdict
    assert verdict.word == "WIN"
    assert verdict.reason.startswith("sequential, unadjusted")


def test_a_single_algorithm_has_no_pairs(run):
    """With base alone there is nothing to compare, and no error."""
    for label in ("sft", "dpo", "ppo", "grpo-lr3"):
        for seed in range(3):
            shutil.rmtree(run.path(label, seed))
    (section,) = sections(run.results())
    assert section.pairs == []
    assert section.tiers == {"base": "a"}


def test_win_rates_of_unequal_sample_counts(run):
    """One algorithm with two samples a prompt and one with one are compared pair by pair of samples."""
    for seed in range(3):
        file = run.path("sft", seed) / "scores.parquet"
        scores = pd.read_parquet(file)
        pd.concat([scores, scores.assign(sample=1, value=scores["value"] - 9)]).to_parquet(file)
    (section,) = sections(run.results())
    assert section.effects["sft"].win_rate.mean < 0.5
