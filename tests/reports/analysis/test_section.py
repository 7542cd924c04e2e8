"""Sections: grids, effects, pairs and curves from scores."""

import shutil

import numpy as np
import pandas as pd
import pytest
from bakeoff.reports.analysis.section import sections


@pytest.fixture(scope="module")
def section(results):
    return sections(results)[0]


def test_grid_is_seeds_by_prompts(section):
    """Three seeds by 48 prompts at the end, 32 prompts at a probe; a failed seed has no row."""
    assert section.grid("sft", "gold_reward").shape == (3, 48)
    assert section.grid("sft", "gold_reward", probe=0).shape == (3, 32)
    assert section.grid("ppo", "gold_reward").shape == (2, 48)
    assert section.grid("sft", "no_such_metric").size == 0


def test_estimates_are_the_means_of_the_frame(section, results):
    """An estimate's mean is the plain mean over the final scores."""
    frame = results.frame()
    final = frame[(frame["algorithm"] == "dpo") & (frame["metric"] == "kl") & (frame["fraction"] == 1.0)]
    assert section.estimate("dpo", "kl").mean == pytest.approx(final["value"].mean())


def test_effects_recover_the_planted_gains(five_seeds):
    """Gains over base come out in the planted order, each interval clear of zero; four seeds do not decide."""
    (section,) = sections(five_seeds)
    assert section.ranked == ["grpo-lr3", "dpo", "ppo", "sft", "base"]
    assert section.baseline == "base"
    assert list(section.effects) == ["sft", "dpo", "ppo", "grpo-lr3"]
    assert all(effect.difference.low > 0 for effect in section.effects.values())
    words = {name: effect.verdict.word for name, effect in section.effects.items()}
    assert words == {"sft": "WIN", "dpo": "WIN", "ppo": "INCONCLUSIVE", "grpo-lr3": "WIN"}
    ppo = section.effects["ppo"].verdict
    assert (ppo.leaning, ppo.seeds_needed) == ("ahead", 5)
    assert ppo.reason == "descriptive only: 4 seeds, and a verdict needs 5; 1 oom left out"
    assert section.effects["grpo-lr3"].difference.mean == pytest.approx(0.36, abs=0.05)


def test_pairs_are_two_families_and_each_pair_once(section):
    """Four algorithms against base, six pairs among themselves, better one first; pairs use seeds that both have."""
    families = pd.Series([pair.family for pair in section.pairs]).value_counts()
    assert dict(families) == {"among trained": 6, "against base": 4}
    assert len({frozenset((pair.a, pair.b)) for pair in section.pairs}) == 10
    with_ppo = next(pair for pair in section.pairs if {pair.a, pair.b} == {"grpo-lr3", "ppo"})
    assert with_ppo.a == "grpo-lr3"
    assert with_ppo.difference.n_seeds == 2
    assert with_ppo.win_rate.mean > 0.5


def test_seed_effects_average_to_the_effect(section):
    """The ticks of single seeds have the dot as their mean."""
    by_seed = section.by_seed("sft")
    assert sorted(by_seed) == [0, 1, 2]
    assert np.mean(list(by_seed.values())) == pytest.approx(section.effects["sft"].difference.mean)


def test_curves_start_at_base_and_stay_on_the_same_prompts(section):
    """A curve starts where base stands, goes through the probes though seeds stop at other shares, and ends at 1."""
    curve = section.curve("dpo", "gold_reward")
    assert [round(point.fraction, 2) for point in curve] == [0.0, 0.34, 0.67, 1.0]
    assert {point.estimate.n_prompts for point in curve} == {32}
    base = section.curve("base", "gold_reward")
    assert curve[0].estimate.mean == pytest.approx(base[0].estimate.mean)
    assert curve[0].spent["flops"] == 0
    assert curve[-1].spent["flops"] == pytest.approx(6.06e12)
    assert set(curve[1].by_seed) == set(curve[1].spent_by_seed) == {0, 1, 2}


def test_lower_is_better_turns_ranking_wins_and_verdicts(run):
    """For a metric where lower is better, the lowest leads, and beating means scoring lower."""
    run.edit(run.folder / "plan.json", declarations=[run.declaration(primary_metric="kl")])
    for file in run.folder.glob("cells/*/cell.json"):
        file.write_text(file.read_text().replace('"kl", "unit": "nats/sequence", "direction": "none"',
                                                 '"kl", "unit": "nats/sequence", "direction": "lower"'))  # fmt: skip
    section = sections(run.results())[0]
    assert section.ranked[0] == "base"
    effect = section.effects["grpo-lr3"]
    assert effect.difference.mean > 0
    assert effect.verdict.leaning == "behind"
    assert effect.win_rate.mean == 0.0


def test_prompts_without_a_finite_score_are_left_out(run):
    """A NaN in one seed takes that prompt out of the grid, not the whole algorithm."""
    file = run.path("sft") / "scores.parquet"
    scores = pd.read_parquet(file)
    scores.loc[(scores["prompt_id"] == "p040") & (scores["metric"] == "gold_reward"), "value"] = np.nan
    scores.to_parquet(file)
    section = sections(run.results())[0]
    assert section.grid("sft", "gold_reward").shape == (3, 47)
    assert section.effects["sft"].difference.n_prompts == 47


def test_several_samples_are_averaged_and_all_pairs_compared(run):
    """With two samples a prompt, grids hold their mean and win rates use every pair."""
    for file in run.folder.glob("cells/*/scores.parquet"):
        scores = pd.read_parquet(file)
        pd.concat([scores, scores.assign(sample=1, value=scores["value"] + 0.1)]).to_parquet(file)
    section = sections(run.results())[0]
    grid = section.grid("base", "gold_reward")
    assert grid.shape == (3, 48)
    frame = section.results.frame()
    base = frame[(frame["algorithm"] == "base") & (frame["metric"] == "gold_reward")]
    assert grid.to_numpy().mean() == pytest.approx(base["value"].mean())
    assert section.effects["sft"].win_rate.n_prompts == 48


def test_without_a_baseline_there_are_no_effects(run):
    """Where base was not run, algorithms are still compared with each other."""
    for seed in range(3):
        shutil.rmtree(run.path("base", seed))
    section = sections(run.results())[0]
    assert section.baseline is None
    assert section.effects == {}
    assert {pair.family for pair in section.pairs} == {"among trained"}


def test_an_empty_run_has_a_section_and_nothing_to_say(run):
    """Before any cell has finished there is a section without estimates, and no error."""
    shutil.rmtree(run.folder / "cells")
    (section,) = sections(run.results())
    assert (section.finished, section.pairs, section.metrics) == ([], [], {})
    assert section.primary.note == "no cell has been scored yet"
