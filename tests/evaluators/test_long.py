"""The long form: one row a (prompt, sample, metric), with the same types whether or not there are rows."""

import pandas as pd
import pytest
from bakeoff.evaluators.long import long_form, sampled_rows

SAMPLES = pd.DataFrame({"prompt_id": ["a", "b"], "sample": [0, 0], "completion": ["x", "y"]}, index=[7, 3])


def test_values_stay_with_their_sample():
    """Values are matched by position, whatever the index of the samples or of the values."""
    frame = long_form(SAMPLES, {"m": pd.Series([True, False]), "n": [1, 2]})
    assert frame.to_dict("list") == {
        "prompt_id": ["a", "b", "a", "b"],
        "sample": [0, 0, 0, 0],
        "metric": ["m", "m", "n", "n"],
        "value": [1.0, 0.0, 1.0, 2.0],
    }


def test_no_metric_gives_an_empty_frame_of_the_same_types():
    """Empty frames can be put together with full ones without changing a column's type."""
    assert long_form(SAMPLES, {}).dtypes.equals(long_form(SAMPLES, {"m": [1, 2]}).dtypes)


def test_a_value_too_few_is_an_error():
    """An evaluator that lost a sample must not shift the others."""
    with pytest.raises(ValueError, match="match"):
        long_form(SAMPLES, {"m": [1.0]})


def test_rows_are_found_by_prompt_id(make_context):
    """Samples alternate between prompts a and b; an unknown prompt is an error."""
    context = make_context(["x", "y", "z"])
    assert [row["id"] for row in sampled_rows(context, context.samples)] == ["a", "b", "a"]
    with pytest.raises(KeyError):
        sampled_rows(context, context.samples.assign(prompt_id="c"))
