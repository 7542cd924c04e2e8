"""Held-out pairs whose accuracy, calibration and correlation with length can be worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from bakeoff.evaluators.pair_accuracy import PairAccuracy, calibration_gaps


def odds(probability):
    return math.log(probability / (1 - probability))


@pytest.fixture
def scored(make_context):
    """``scored(logit=[...], ...)``: each metric's values on pairs with these log-odds, two to a prompt."""

    def score(logit, *, chosen=None, rejected=None, tokens=((3, 1), (2, 2)), again=None):
        n = len(logit)
        pairs = pd.DataFrame(
            {
                "prompt_id": ["ab"[i // 2] for i in range(n)],
                "sample": [i % 2 for i in range(n)],
                "chosen_reward": logit if chosen is None else chosen,
                "rejected_reward": [0.0] * n if rejected is None else rejected,
                "chosen_tokens": [tokens[i % 2][0] for i in range(n)],
                "rejected_tokens": [tokens[i % 2][1] for i in range(n)],
                "logit": logit,
                "logit_again": logit if again is None else again,
            }
        )
        frame = PairAccuracy().score(replace(make_context([]), pairs=pairs))
        assert set(frame["metric"]) <= {metric.name for metric in PairAccuracy.metrics}
        return {name: rows["value"].tolist() for name, rows in frame.groupby("metric")}

    return score


def test_accuracy_and_confidence(scored):
    """Log-odds of 3/4 for, 0.9 against, and none at all: right, wrong, a coin."""
    values = scored([odds(0.75), -odds(0.9), 0.0])
    assert values["pair_accuracy"] == [1.0, 0.0, 0.5]
    assert values["pair_confidence"] == pytest.approx([0.75, 0.9, 0.5])
    assert values["pair_log_loss"] == pytest.approx([math.log(4 / 3), math.log(10), math.log(2)])


def test_far_out_log_odds_stay_finite(scored):
    """A reward model that is very sure costs its log-odds where it is wrong, and 0 where it is right."""
    values = scored([800.0, -800.0])
    assert values["pair_log_loss"] == [0.0, 800.0]
    assert values["pair_confidence"] == [1.0, 1.0]


def test_calibration_error_is_of_the_bin(scored):
    """Four pairs at 0.75, three of them right: no error. One at 0.99 that is wrong: 0.99. The mean is the ECE."""
    values = scored([odds(0.75), odds(0.75), odds(0.75), -odds(0.75)])
    assert values["calibration_error"] == pytest.approx([0.0] * 4, abs=1e-12)
    gaps = calibration_gaps(np.array([0.75, 0.75, 0.99]), np.array([1.0, 0.0, 0.0]))
    assert gaps == pytest.approx([0.25, 0.25, 0.99])
    assert gaps.mean() == pytest.approx(2 / 3 * abs(0.5 - 0.75) + 1 / 3 * 0.99)


def test_certain_pairs_have_a_bin(scored):
    """A confidence of exactly 1 belongs to the last bin."""
    assert calibration_gaps(np.array([1.0, 0.97]), np.array([1.0, 1.0])) == pytest.approx([0.015, 0.015])


def test_length_correlation_is_pearsons(scored):
    """Its mean over pairs is Pearson's r over all completions; 1 for a reward that is the length."""
    tokens = ((5, 2), (3, 9))
    lengths = scored([3.0, -6.0], chosen=[5.0, 3.0], rejected=[2.0, 9.0], tokens=tokens)["length_correlation"]
    assert np.mean(lengths) == pytest.approx(1.0)
    chosen, rejected = [0.3, -1.0], [2.0, 0.7]
    values = scored([-1.7, -1.7], chosen=chosen, rejected=rejected, tokens=tokens)["length_correlation"]
    flat = np.corrcoef([0.3, 2.0, -1.0, 0.7], [5, 2, 3, 9])[0, 1]
    assert np.mean(values) == pytest.approx(flat)


def test_no_correlation_where_lengths_are_equal(scored):
    """It is left out whole, never 0."""
    assert "length_correlation" not in scored([1.0, 2.0], tokens=((2, 2), (2, 2)))


def test_swap_consistency(scored):
    """1 where the same side wins a second time."""
    assert scored([1.0, -2.0, 0.5], again=[0.9, -2.1, -0.5])["swap_consistency"] == [1.0, 1.0, 0.0]
