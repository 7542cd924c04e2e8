"""Signs of degeneration, counted by hand."""

import pytest
from bakeoff.evaluators.health import Health, distinct_2


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 1.0),
        ("love", 1.0),
        ("love love", 1.0),
        ("love love love love love", 1 / 4),
        ("Love it, love it,", 2 / 3),
        ("a b a b a", 2 / 4),
        ("all words differ here", 1.0),
    ],
)
def test_distinct_2(text, share):
    """Distinct bigrams over all bigrams, whatever their case; no bigram is no repetition."""
    assert distinct_2(text) == share


def test_every_sample_has_all_five_metrics(make_context):
    """The columns of the sampling pass are handed on, the texts are counted."""
    context = make_context(
        ["x y", "x y", "z", "x y"], n_tokens=[2, 3, 16, 4], ended_eos=[True, True, False, True], truncated=[0, 0, 1, 0]
    )
    values = Health().score(context).pivot(index=["sample", "prompt_id"], columns="metric", values="value")
    assert values["length_tokens"].tolist() == [2, 3, 16, 4]
    assert values["ended_eos"].tolist() == [1, 1, 0, 1]
    assert values["truncated"].tolist() == [0, 0, 1, 0]
    assert values["unique"].tolist() == [1, 0, 1, 0]
    assert set(values.columns) == {metric.name for metric in Health.metrics}


def test_values_stay_within_the_declared_bounds(make_context):
    """Every value lies between the low and the high of its metric."""
    scores = Health().score(make_context(["", "a a a a", "b", "a b a b"]))
    for metric in Health.metrics:
        values = scores.loc[scores["metric"] == metric.name, "value"]
        assert (values >= metric.low).all()
        assert metric.high is None or (values <= metric.high).all()
