"""Gains of proxy and gold since the start, in standard deviations of the start's samples."""

import pytest
from bakeoff.evaluators.over_optimisation import OverOptimisation


def minus_length(rows, completions):
    return [-2.0 * len(text) for text in completions]


def values(frame, metric):
    return frame.loc[frame["metric"] == metric, "value"].tolist()


def test_gains_by_hand(make_context, length_reward):
    """Lengths 1 and 3 have a standard deviation of 1: the proxy gains 4 and 0 of them, the gold loses as much."""
    context = make_context(["xxxxx", "xxx"], ["x", "xxx"], train_reward=length_reward, gold=minus_length)
    scores = OverOptimisation().score(context)
    assert values(scores, "proxy_gain") == [4.0, 0.0]
    assert values(scores, "gold_gain") == [-4.0, 0.0]
    assert {metric.name for metric in OverOptimisation.metrics} == set(scores["metric"])


def test_an_untrained_policy_gains_nothing(make_context, length_reward):
    """Common random numbers: its samples are the start's."""
    context = make_context(["x", "yyy"], ["x", "yyy"], train_reward=length_reward, gold=minus_length)
    assert OverOptimisation().score(context)["value"].tolist() == [0.0] * 4


@pytest.mark.parametrize("missing", ["gold", "train_reward", "spread"])
def test_nothing_to_compare(missing, make_context, length_reward):
    """Without one of the rewards, or where the start's rewards are all equal, both are left out."""
    rewards = {"gold": minus_length, "train_reward": length_reward}
    rewards.pop(missing, None)
    start = ["xx", "xx"] if missing == "spread" else ["x", "xxx"]
    assert OverOptimisation().score(make_context(["xxxxx", "xxx"], start, **rewards)).empty
