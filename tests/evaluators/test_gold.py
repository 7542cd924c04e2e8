"""The gold judge: higher reward wins, close ones tie, and what it cannot judge it says."""

import math

import pytest
from bakeoff.evaluators.gold import Gold, GoldSettings

ROWS = [{"id": "a"}] * 3


def test_the_higher_reward_wins(make_context, length_reward):
    """Longer is better here; equal is a tie; the order asked turns the verdicts round."""
    context = make_context(["x"], gold=length_reward)
    assert Gold().compare(context, ROWS, ["xx", "x", "x"], ["x", "xx", "y"]) == ["a", "b", "tie"]
    assert Gold().compare(context, ROWS, ["x", "xx", "y"], ["xx", "x", "x"]) == ["b", "a", "tie"]


@pytest.mark.parametrize(("gap", "verdict"), [(0.5, "tie"), (0.51, "a"), (-0.5, "tie"), (-0.51, "b")])
def test_rewards_within_epsilon_tie(make_context, gap, verdict):
    """A gap of exactly epsilon is still a tie."""
    context = make_context(["x"], gold=lambda rows, texts: [gap if text == "a" else 0.0 for text in texts])
    assert Gold(GoldSettings(epsilon=0.5)).compare(context, ROWS[:1], ["a"], ["b"]) == [verdict]


def test_the_training_reward_stands_in_and_the_log_says_so(make_context, length_reward, caplog):
    """With a gold reward the proxy is not asked; without one it decides, and that is logged."""
    gold = make_context(["x"], gold=length_reward, train_reward=lambda rows, texts: [0.0] * len(texts))
    assert Gold().compare(gold, ROWS[:1], ["xx"], ["x"]) == ["a"]
    assert not caplog.records
    proxy = make_context(["x"], train_reward=length_reward)
    assert Gold().compare(proxy, ROWS[:1], ["xx"], ["x"]) == ["a"]
    assert "training reward decides" in caplog.text


def test_no_reward_or_no_finite_one_is_no_verdict(make_context, caplog):
    """Never a coin flip: without a number to compare the verdict is invalid."""
    assert Gold().compare(make_context(["x"]), ROWS, ["x"] * 3, ["y"] * 3) == ["invalid"] * 3
    assert "neither a gold nor a training reward" in caplog.text
    broken = make_context(["x"], gold=lambda rows, texts: [math.nan, math.inf, 1.0])
    assert Gold().compare(broken, ROWS, ["x"] * 3, ["y"] * 3) == ["invalid", "invalid", "tie"]
