"""The win-rate: paired by prompt and sample, asked in both orders."""

import pytest
from bakeoff.evaluators.gold import Gold
from bakeoff.evaluators.win_rate import WinRate

from bakeoff.contracts import Judge


class Scripted(Judge):
    """Gives the verdicts that it was made with, first those forward, then those backward."""

    title = "Scripted"

    def __init__(self, forward, backward):
        super().__init__()
        self.answers = [forward, backward]

    def compare(self, context, rows, a, b):
        return self.answers.pop(0)


class First(Judge):
    """Always prefers what it reads first."""

    title = "First"

    def compare(self, context, rows, a, b):
        return ["a"] * len(rows)


@pytest.mark.parametrize(
    ("forward", "backward", "value"),
    [
        ("a", "b", 1.0),
        ("b", "a", 0.0),
        ("tie", "tie", 0.5),
        ("a", "a", 0.5),
        ("b", "b", 0.5),
        ("a", "tie", 0.5),
        ("tie", "a", 0.5),
        ("invalid", "b", None),
        ("a", "invalid", None),
    ],
)
def test_verdicts_count_when_both_orders_agree(make_context, forward, backward, value):
    """Agreement is a win or a loss, disagreement a tie, and an invalid verdict no comparison at all."""
    context = make_context(["x"], ["y"], judge=Scripted([forward], [backward]))
    assert WinRate().score(context)["value"].tolist() == ([] if value is None else [value])


def test_samples_meet_the_reference_of_their_prompt_and_number(make_context, length_reward):
    """Longer wins here; the reference's frame may come in any order."""
    context = make_context(["xx", "x", "xxx", "x"], ["x", "x", "x", "xx"], gold=length_reward, judge=Gold())
    shuffled = context.reference_samples.iloc[::-1]
    context = type(context)(**{**vars(context), "reference_samples": shuffled})
    scores = WinRate().score(context)
    assert dict(zip(zip(scores["prompt_id"], scores["sample"], strict=True), scores["value"], strict=True)) == {
        ("a", 0): 1.0,
        ("b", 0): 0.5,
        ("a", 1): 1.0,
        ("b", 1): 0.0,
    }


def test_the_reference_against_itself_is_one_half(make_context, length_reward):
    """Identical samples tie, for a judge by reward and for one that only looks at the order."""
    texts = ["x", "yy", "", "zzz"]
    for judge in (Gold(), First()):
        scores = WinRate().score(make_context(texts, texts, gold=length_reward, judge=judge))
        assert scores["value"].tolist() == [0.5] * 4


def test_changing_sides_turns_the_win_rate_round(make_context, length_reward):
    """What one side wins the other loses."""
    texts, others = ["x", "yy", "zzz", ""], ["xx", "yy", "z", "w"]
    ours = WinRate().score(make_context(texts, others, gold=length_reward, judge=Gold()))
    theirs = WinRate().score(make_context(others, texts, gold=length_reward, judge=Gold()))
    assert (ours["value"] + theirs["value"]).tolist() == [1.0] * 4


def test_without_judge_or_valid_verdict_the_metric_is_left_out(make_context):
    """No number is better than an invented one."""
    for judge in (None, Scripted(["invalid"], ["invalid"]), Gold()):
        scores = WinRate().score(make_context(["x"], ["y"], judge=judge))
        assert scores.empty
        assert list(scores.columns) == ["prompt_id", "sample", "metric", "value"]


def test_two_reference_samples_of_one_key_are_an_error(make_context, length_reward):
    """A reference that was drawn twice would count a comparison twice."""
    context = make_context(["x"], ["y"], gold=length_reward, judge=Gold())
    doubled = context.reference_samples.iloc[[0, 0]]
    with pytest.raises(ValueError, match="one-to-one"):
        WinRate().score(type(context)(**{**vars(context), "reference_samples": doubled}))
