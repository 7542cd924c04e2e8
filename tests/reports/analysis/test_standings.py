"""Tiers, the ranking, and win rates at equal length of a section."""

import numpy as np
import pandas as pd
import pytest
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.tables import leaderboard as tables
from bakeoff.reports.tables import pairs


def test_tiers_share_a_letter_where_no_verdict_separates(five_seeds):
    """Two algorithms have a letter in common exactly where neither beats the other; the best have an a."""
    (section,) = sections(five_seeds)
    tiers = section.tiers
    assert list(tiers) == section.ranked
    assert "a" in tiers[section.ranked[0]]
    apart = {frozenset((pair.a, pair.b)) for pair in section.pairs if pair.verdict.word in ("WIN", "LOSS")}
    for a in tiers:
        for b in tiers:
            if a != b:
                assert bool(set(tiers[a]) & set(tiers[b])) == (frozenset((a, b)) not in apart)


def test_the_ranking_is_in_the_order_of_the_means(five_seeds):
    """Five algorithms on the four seeds and 48 prompts that all have; base is surely last."""
    (section,) = sections(five_seeds)
    ranking = section.ranking
    assert (ranking.seeds, ranking.prompts) == (4, 48)
    order = [ranking.algorithms[i] for i in np.argsort(-ranking.fit.strength)]
    assert order == section.ranked
    base = ranking.algorithms.index("base")
    assert (ranking.fit.rank_low[base], ranking.fit.rank_high[base]) == (5, 5)
    assert list(pairs.strengths(section, ranking).frame["rank"]) == [1, 2, 3, 4, 5]


def change(run, name, metric, values):
    """Rewrite one metric at the end: ``values`` of the prompts' numbers, alike for all seeds."""
    for seed in run.seeds:
        file = run.path(name, seed) / "scores.parquet"
        if file.exists():
            scores = pd.read_parquet(file)
            end = (scores["fraction"] == 1.0) & (scores["metric"] == metric)
            numbers = scores.loc[end, "prompt_id"].str[1:].astype(int).to_numpy()
            scores.loc[end, "value"] = values(numbers, seed)
            scores.to_parquet(file)


def test_a_judge_that_likes_length_is_seen_through(run):
    """sft wins exactly where it is longer, and is as often longer as shorter by 10: at equal length it is at a half."""
    change(run, "base", "length_tokens", lambda n, seed: np.full(len(n), 20.0))
    change(run, "sft", "length_tokens", lambda n, seed: np.where(n % 4 == 0, 10.0, 30.0))
    change(run, "sft", "win_rate", lambda n, seed: ((n + seed) % 5 < np.where(n % 4 == 0, 1, 4)).astype(float))
    (section,) = sections(run.results())
    found = section.length_controlled["sft"]
    assert found.raw == pytest.approx(0.65, abs=0.02)
    assert found.win_rate.value == pytest.approx(0.5, abs=0.08)
    assert found.slope > 1
    assert "length moves it by" in found.warning
    assert "Win rate of sft at equal length: length moves it" in tables.leaderboard(section).caption


def test_after_a_warm_start_lengths_have_no_reference(run):
    """The base is then not what the judge compared with."""
    run.edit(run.folder / "plan.json", matrix={"budgets": [], "warm_start": {"algorithm": "sft"}})
    assert sections(run.results())[0].length_controlled == {}
