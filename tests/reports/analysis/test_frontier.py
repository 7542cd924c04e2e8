"""A section's frontier, efficiency and worth, over-optimisation, and the KL floor."""

import numpy as np
import pandas as pd
import pytest
from bakeoff.reports.analysis.frontier import kl_floor
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.optimum import best_of_n


def pool_of(run):
    return next(run.folder.glob("stages/reference-pool-*/samples.parquet"))


def test_frontier_stands_on_the_pool(results):
    """Sixteen samples on 48 prompts: the start is their mean and best-of-n the curve of their rewards."""
    (section,) = sections(results)
    frontier = section.frontier
    pool = pd.read_parquet(results.folder / "stages" / "reference-pool-0123456789ab" / "samples.parquet")
    rewards = pool.pivot(index="prompt_id", columns="sample", values="gold_reward").to_numpy()
    assert (frontier.prompts, frontier.samples) == rewards.shape == (48, 16)
    assert frontier.reference == pytest.approx(rewards.mean())
    assert frontier.best_of_n.reward == pytest.approx(best_of_n(rewards).reward)
    assert frontier.attainable.kl[-1] <= np.log(16) - 2


def test_what_a_policy_is_worth(results):
    """grpo is better than all sixteen samples; sft is worth a few, more at the upper end of its interval."""
    (section,) = sections(results)
    grpo, sft = (section.frontier.policies[name] for name in ("grpo-lr3", "sft"))
    assert grpo.worth.value == np.inf
    assert grpo.claim == "worth more than the best of all samples that were drawn"
    assert 2 < sft.worth.low < sft.worth.value < sft.worth.high
    assert sft.claim.startswith("worth best-of-")
    assert set(section.frontier.policies) == set(section.trained)


def test_efficiency_of_a_policy_that_follows_the_optimum(run):
    """A policy whose KL and reward are those of the frontier itself has spent its KL well: eta is about 1."""
    (section,) = sections(run.results())
    curve = section.frontier.attainable
    gain = curve.at(0.5) - section.frontier.reference
    pool = pd.read_parquet(pool_of(run))
    start = pool.groupby("prompt_id")["gold_reward"].mean()
    for seed in range(3):
        file = run.path("sft", seed) / "scores.parquet"
        scores = pd.read_parquet(file)
        end = scores["fraction"] == 1.0
        gold, kl = end & (scores["metric"] == "gold_reward"), end & (scores["metric"] == "kl")
        scores.loc[gold, "value"] = scores.loc[gold, "prompt_id"].map(start) + gain
        scores.loc[kl, "value"] = 0.5
        scores.to_parquet(file)
    place = sections(run.results())[0].frontier.policies["sft"]
    assert place.efficiency.value == pytest.approx(1.0, abs=0.02)
    assert place.efficiency.low <= 1.0 <= place.efficiency.high
    assert not place.is_bound


def test_without_a_pool_there_is_no_frontier(run):
    """A run that drew none, or starts that differ, have no frontier and no error."""
    pool_of(run).unlink()
    assert sections(run.results())[0].frontier is None


def test_starts_that_differ_have_no_common_frontier(run):
    """With a warm start for each seed there is no one reference."""
    run.edit(run.path("sft", 1) / "cell.json", reference_pool="reference-pool-other")
    assert sections(run.results())[0].frontier is None


def test_overoptimisation_shows_where_gold_falls_while_the_proxy_rises(run):
    """dpo's gold falls after two thirds of training: the peak is there, and the drop is what was lost."""
    for seed in range(3):
        file = run.path("dpo", seed) / "scores.parquet"
        scores = pd.read_parquet(file)
        end = (scores["fraction"] == 1.0) & (scores["metric"] == "gold_reward")
        scores.loc[end, "value"] -= 0.5
        scores.to_parquet(file)
    found = sections(run.results())[0].overoptimised["dpo"]
    assert found.peak == 2
    assert found.drop == pytest.approx(found.gold[2] - found.gold[3])
    assert found.drop > 0.3
    assert found.proxy[3] > found.proxy[2]
    assert found.fit is not None
    assert found.fit.b > 0


def test_one_reward_cannot_be_overoptimised(run):
    """Where training optimised the gold reward itself there is nothing to show."""
    for file in run.folder.glob("cells/*/scores.parquet"):
        scores = pd.read_parquet(file)
        gold = scores[scores["metric"] == "gold_reward"]
        rest = scores[~scores["metric"].isin(["train_reward"])]
        pd.concat([rest, gold.assign(metric="train_reward")]).to_parquet(file)
    assert sections(run.results())[0].overoptimised == {}


def test_kl_floor_is_what_the_untrained_policy_measures(run):
    """A KL of 0.02 of a policy that did not move is the noise of the measurement."""
    for seed in range(3):
        file = run.path("base", seed) / "scores.parquet"
        scores = pd.read_parquet(file)
        scores.loc[scores["metric"] == "kl", "value"] = 0.02
        scores.to_parquet(file)
    assert kl_floor(sections(run.results())[0]).mean == pytest.approx(0.02)
