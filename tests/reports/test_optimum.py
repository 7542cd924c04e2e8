"""Frontier, best-of-n and efficiency, against exact sums and policies that are known in full."""

import itertools
import math

import numpy as np
import pytest
from bakeoff.reports.optimum import (
    Curve,
    attainable,
    best_of_n,
    best_of_n_kl,
    best_within,
    efficiency,
    fit_overoptimisation,
    hypervolume,
    worth_best_of,
)


def test_best_of_n_counts_every_subset():
    """The expectation over all subsets of n of a prompt's five rewards, averaged over two prompts."""
    rewards = np.array([[0.1, 0.9, 0.4, 0.4, 0.7], [1.0, 0.0, 0.5, 0.2, 0.3]])
    found = best_of_n(rewards)
    assert list(found.n) == [1, 2, 3, 4, 5]
    for n, value in zip(found.n.astype(int), found.reward, strict=True):
        exact = np.mean([np.mean([max(subset) for subset in itertools.combinations(row, n)]) for row in rewards])
        assert value == pytest.approx(exact)


def test_best_of_n_where_lower_is_better():
    """The best of all is the smallest."""
    found = best_of_n(np.array([[3.0, 1.0, 2.0, 5.0]]), sign=-1)
    assert (found.reward[0], found.reward[-1]) == (pytest.approx(2.75), pytest.approx(1.0))


def test_best_of_n_kl_by_hand():
    """n = 1 costs nothing; n = 4 costs log 4 - 3/4."""
    assert best_of_n_kl(np.array([1.0, 4.0])) == pytest.approx([0.0, math.log(4) - 0.75])


def test_own_reward_win_rate_of_best_of_n():
    """Best of n beats one more sample with probability n / (n + 1): ranks of rewards have mean n / (n + 1)."""
    ranks = (np.arange(1, 1001) / 1001)[None, :]
    found = best_of_n(ranks)
    assert found.reward == pytest.approx(found.n / (found.n + 1), abs=2e-3)


def test_frontier_of_two_answers_is_exact():
    """Rewards 0 and 1 with equal chance: the best policy of mean r has KL r log 2r + (1-r) log 2(1-r)."""
    rewards = np.tile(np.repeat([0.0, 1.0], 32), (10, 1))
    curve = attainable(rewards)
    inside = (curve.kl > 0) & (curve.reward < 1 - 1e-9)
    r = curve.reward[inside]
    assert inside.sum() > 5
    assert curve.kl[inside] == pytest.approx(r * np.log(2 * r) + (1 - r) * np.log(2 * (1 - r)))


def test_frontier_of_normal_rewards_is_the_root_of_twice_the_kl():
    """For standard normal rewards the optimum is sqrt(2 KL); 256 samples come within 5 % up to where the curve ends."""
    curve = attainable(np.random.default_rng(0).normal(size=(400, 256)))
    assert curve.kl[-1] <= math.log(256) - 2
    far = curve.kl > 0.1
    assert (np.diff(curve.reward) > 0).all()
    assert (curve.reward[far] - curve.reward[0]) / np.sqrt(2 * curve.kl[far]) == pytest.approx(1.0, abs=0.05)


def test_best_of_n_lies_below_the_frontier():
    """At its KL no selection beats the optimum."""
    rewards = np.random.default_rng(1).normal(size=(300, 128))
    curve, best = attainable(rewards), best_of_n(rewards)
    inside = (best.n > 1) & (best.kl < curve.kl[-1])
    assert inside.sum() >= 3
    for kl, reward in zip(best.kl[inside], best.reward[inside], strict=True):
        assert 0.85 < efficiency(reward, kl, curve).value < 1.0


def test_a_small_pool_or_equal_rewards_have_no_frontier():
    """log N - 2 below 0 leaves the reference alone, and so do rewards that never differ."""
    assert len(attainable(np.random.default_rng(2).normal(size=(9, 4))).kl) == 1
    assert len(attainable(np.ones((9, 64))).kl) == 1


def test_lower_is_better_turns_the_frontier():
    """Tilting towards low rewards is tilting their negatives towards high ones."""
    rewards = np.random.default_rng(3).normal(size=(20, 64))
    down, up = attainable(rewards, sign=-1), attainable(-rewards)
    assert down.kl == pytest.approx(up.kl)
    assert down.reward == pytest.approx(-up.reward)


def test_efficiency_by_hand():
    """On a line from 0.2 at KL 0 to 1.2 at KL 2: 0.5 at KL 1 is 0.3 of 0.5; beyond the line it is at most that."""
    line = Curve(np.array([0.0, 2.0]), np.array([0.2, 1.2]))
    assert efficiency(0.5, 1.0, line) == (pytest.approx(0.6), False)
    assert efficiency(0.7, 9.0, line) == (pytest.approx(0.5), True)
    value, beyond = efficiency(1.3, 9.0, line)
    assert np.isnan(value)
    assert beyond
    assert np.isnan(efficiency(0.5, 0.0, line).value)


def test_worth_is_read_off_the_curve():
    """The reward of best-of-4 is worth 4, one between 2 and 4 is on the log scale, the rest are 1 and infinity."""
    curve = best_of_n(np.random.default_rng(4).normal(size=(50, 16)))
    four, two = curve.reward[list(curve.n).index(4)], curve.reward[list(curve.n).index(2)]
    three = curve.reward[list(curve.n).index(3)]
    assert worth_best_of(four, curve) == pytest.approx(4)
    assert worth_best_of((two + three) / 2, curve) == pytest.approx(math.sqrt(6))
    assert worth_best_of(curve.reward[0] - 1, curve) == 1.0
    assert worth_best_of(99.0, curve) == math.inf


def test_overoptimisation_recovers_the_planted_curve():
    """Points on d (a - b log d) give a and b back, and the peak where it lies within them."""
    d = np.linspace(0.5, 4, 12)
    found = fit_overoptimisation(d**2, d * (1.0 - 0.8 * np.log(d)))
    assert (found.a, found.b, found.r_squared) == (pytest.approx(1.0), pytest.approx(0.8), pytest.approx(1.0))
    assert found.d_peak == pytest.approx(math.exp(1 / 0.8 - 1))
    assert np.isnan(fit_overoptimisation(d**2, d * (3.0 - 0.8 * np.log(d))).d_peak)
    with pytest.raises(ValueError, match="three points"):
        fit_overoptimisation(np.array([0.0, 1.0, 2.0]), np.zeros(3))


def test_hypervolume_by_hand():
    """Nothing to 1 nat, 0.2 to 2, 0.5 to the cap of 4: 0.2 + 2 * 0.5. A later, worse point adds nothing."""
    kl, gain = np.array([2.0, 1.0, 3.0, 9.0]), np.array([0.5, 0.2, 0.1, 0.9])
    assert hypervolume(kl, gain, 4.0) == pytest.approx(1.2)
    assert [best_within(kl, gain, budget) for budget in (0.5, 1, 2.5, 10)] == [0, 0.2, 0.5, 0.9]
    assert hypervolume(np.array([1.0]), np.array([-0.3]), 4.0) == 0
