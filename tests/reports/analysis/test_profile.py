"""KL by token position: a ratio of sums, its interval, and where half of it is spent."""

import numpy as np
import pandas as pd
import pytest
from bakeoff.reports.analysis import profile
from bakeoff.reports.analysis.profile import mean_of_ratio, profiles
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.statistics import two_way


def test_profiles_are_those_of_the_tokens(results):
    """dpo spends 4.5 of 7.5 nats at its first of 24 tokens and the rest evenly; sft spends half by token 12."""
    found = profiles(sections(results)[0])
    assert set(found) == {"sft", "dpo", "ppo", "grpo-lr3"}
    assert [band.kl.mean for band in found["dpo"].bands[:2]] == pytest.approx([4.5, 3 / 23], rel=1e-5)
    assert [found[name].half for name in ("dpo", "sft")] == [1, 12]
    assert found["sft"].longest == len(found["sft"].bands) == 24
    assert {band.reached for band in found["sft"].bands} == {1.0}


def test_a_ratio_is_of_sums_and_all_counts_equal_make_it_a_mean():
    """Two tokens at 1 nat and one at 4 are 2 nats a token; with one token each the interval is the plain one."""
    assert mean_of_ratio(np.array([[2.0, 4.0]]), np.array([[2.0, 1.0]])).mean == pytest.approx(2)
    values = np.random.default_rng(0).exponential(size=(5, 40))
    assert mean_of_ratio(values, np.ones((5, 40))) == two_way(values)


def test_the_interval_of_a_ratio_is_that_of_resampled_prompts():
    """Where only prompts vary, its error is about that of drawing prompts with their counts anew."""
    random = np.random.default_rng(1)
    counts = random.integers(0, 5, 400).astype(float)
    totals = counts * random.exponential(1.0, 400)
    drawn = random.integers(400, size=(2000, 400))
    spread = (totals[drawn].sum(axis=1) / counts[drawn].sum(axis=1)).std()
    assert mean_of_ratio(totals[None], counts[None]).se == pytest.approx(spread, rel=0.08)


def test_what_few_completions_reach_has_no_estimate(run, monkeypatch):
    """One of twenty goes on after the fourth token; with two bands allowed a band holds three positions."""
    for seed in run.seeds:
        kls = [np.ones(6 if i == 0 else 4, dtype=np.float32) for i in range(20)]
        frame = pd.DataFrame({"prompt_id": [f"p{i:03d}" for i in range(20)], "fraction": 1.0, "token_kl": kls})
        frame.to_parquet(run.path("sft", seed) / "samples.parquet")
    sft = profiles(sections(run.results())[0])["sft"]
    assert [(band.first, band.last, band.kl.mean) for band in sft.bands] == [(i, i, 1.0) for i in (1, 2, 3, 4)]
    assert sft.longest == 6
    monkeypatch.setattr(profile, "POSITIONS", 2)
    sft = profiles(sections(run.results())[0])["sft"]
    assert [(band.first, band.last) for band in sft.bands] == [(1, 3), (4, 6)]


def test_a_seed_without_tokens_leaves_its_algorithm_out(run):
    """A profile of some of the seeds would stand beside the KL of all."""
    path = run.path("sft", 1) / "samples.parquet"
    pd.read_parquet(path).drop(columns="token_kl").to_parquet(path)
    assert set(profiles(sections(run.results())[0])) == {"dpo", "ppo", "grpo-lr3"}
