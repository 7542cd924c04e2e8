"""Aggregates over tasks, by hand and against scipy."""

import numpy as np
import pytest
from bakeoff.reports.aggregates import iqm, optimality_gap, performance_profile, probability_of_improvement
from scipy import stats


def test_iqm_is_the_mean_of_the_middle_half():
    """Of 0 to 7 the middle four are 2, 3, 4, 5; how they fall into tasks does not matter."""
    assert iqm([np.array([0.0, 7.0, 2.0]), np.array([3.0, 4.0, 5.0, 6.0, 1.0])]) == 3.5
    scores = np.random.default_rng(0).normal(size=(5, 6))
    assert iqm(list(scores.T)) == pytest.approx(stats.trim_mean(scores, 0.25, axis=None))


def test_optimality_gap_does_not_let_one_run_make_up_for_another():
    """Runs at 0.5 and 1.5 of a target of 1 fall short by 0.5 and by nothing."""
    assert optimality_gap([np.array([0.5, 1.5])]) == 0.25


def test_probability_of_improvement_is_mann_whitney_by_task():
    """{1, 3} against {2, 2} wins half; against {1, 1} two ties and two wins are 0.75; the mean is 0.625."""
    a = np.array([1.0, 3.0])
    assert probability_of_improvement([a, a], [np.array([2.0, 2.0]), np.array([1.0, 1.0])]) == 0.625
    x, y = np.random.default_rng(1).normal(size=(2, 9))
    assert probability_of_improvement([x], [y]) == pytest.approx(stats.mannwhitneyu(x, y).statistic / 81)
    with pytest.raises(ValueError, match="same tasks"):
        probability_of_improvement([x], [])


def test_performance_profile_by_hand():
    """Runs 0.2 and 0.8 in one task, 0.6 in another: above 0.5 are half of one and all of the other."""
    profile = performance_profile([np.array([0.2, 0.8]), np.array([0.6])], np.array([0.0, 0.5, 0.7, 0.9]))
    assert profile == pytest.approx([1.0, 0.75, 0.25, 0.0])
