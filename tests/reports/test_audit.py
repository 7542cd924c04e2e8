"""What verdicts say of their judge, on frames that can be counted by hand."""

import math

import pandas as pd
import pytest
from bakeoff.reports.audit import audit

OUTCOMES = {("a", "b"): 1.0, ("b", "a"): 0.0}


def verdicts(*pairs):
    """One comparison of cell x with cell y a pair of verdicts, prompts p0, p1, ..."""
    rows = [
        (f"p{n}", 0, "x", "y", forward, backward, math.nan if "invalid" in (forward, backward)
         else OUTCOMES.get((forward, backward), 0.5))
        for n, (forward, backward) in enumerate(pairs)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["prompt_id", "sample", "a", "b", "forward", "backward", "value"])


def samples(lengths_x, lengths_y, gold_x, gold_y):
    frames = [
        pd.DataFrame({"id": cell, "prompt_id": [f"p{n}" for n in range(len(lengths))], "sample": 0})
        .assign(n_tokens=lengths, gold_reward=gold)
        for cell, lengths, gold in (("x", lengths_x, gold_x), ("y", lengths_y, gold_y))
    ]  # fmt: skip
    return pd.concat(frames)


def canaries(**values):
    rows = [(name, value) for name, given in values.items() for value in given]
    return pd.DataFrame(rows, columns=["canary", "value"])


def test_order_ties_and_silence_are_counted():
    """Four valid of five: two consistent, one that chose the first twice, one tie by disagreement with a tie."""
    made = audit(
        verdicts(("a", "b"), ("b", "a"), ("a", "a"), ("a", "tie"), ("invalid", "b")), canaries(),
        samples([1] * 5, [1] * 5, [0.0] * 5, [0.0] * 5),
    )  # fmt: skip
    assert made.comparisons == 5
    assert made.invalid == pytest.approx(1 / 5)
    assert made.ties == pytest.approx(2 / 4)
    assert made.consistency == pytest.approx(2 / 4)
    # Forward a, b, a, a and backward b, a, a, tie: the first was chosen five times, the second twice.
    assert made.first_log_odds == pytest.approx(math.log(5.5 / 2.5))


def test_agreement_and_length_are_of_decided_comparisons():
    """x wins p0 and p1, y wins p2; gold prefers x, y, y; x is longer in p0 alone, y in p1 and p2."""
    made = audit(
        verdicts(("a", "b"), ("a", "b"), ("b", "a"), ("a", "a")), canaries(),
        samples([9, 1, 1, 5], [1, 9, 9, 5], [1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]),
    )  # fmt: skip
    assert made.compared_with_gold == 3
    assert made.agreement == pytest.approx(2 / 3)
    assert made.longer == pytest.approx(2 / 3)
    assert made.gold_longer == pytest.approx(3 / 3)
    assert made.failures == []


def test_without_gold_nothing_is_said_of_it():
    """A task without a gold reward leaves the share open and fails nobody."""
    nan = [math.nan] * 30
    made = audit(verdicts(*[("a", "b")] * 30), canaries(), samples([1] * 30, [2] * 30, nan, nan))
    assert math.isnan(made.agreement)
    assert made.failures == []


@pytest.mark.parametrize(("agreed", "fails"), [(5, True), (12, False), (20, False)])
def test_agreement_below_chance_is_a_failure(agreed, fails):
    """Of 25: five is significantly less than a coin, twelve is not."""
    pairs = [("a", "b")] * agreed + [("b", "a")] * (25 - agreed)
    made = audit(verdicts(*pairs), canaries(), samples([1] * 25, [1] * 25, [1.0] * 25, [0.0] * 25))
    assert made.agreement == pytest.approx(agreed / 25)
    assert bool(made.failures) is fails


@pytest.mark.parametrize(
    ("name", "values", "fails"),
    [
        ("null", [1.0] * 5, True),  # 1/32 by chance
        ("null", [1.0] * 4, False),  # 1/16
        ("null", [1.0] * 9 + [0.0] * 9, False),
        ("padded", [0.5] * 30 + [1.0] * 5, True),
        ("padded", [0.0] * 30, False),
        ("injection", [math.nan] * 30, False),
        ("identical", [0.5] * 30 + [1.0], False),
        ("identical", [0.5] * 8 + [1.0, 0.0], True),
    ],
)
def test_canaries_win_by_more_than_chance(name, values, fails):
    """A sign test over the comparisons that were decided; a text against itself has to tie but for one in twenty."""
    made = audit(verdicts(("tie", "tie")), canaries(**{name: values}), samples([1], [1], [0.0], [0.0]))
    assert bool(made.failures) is fails
    assert made.canaries[0].name == name
