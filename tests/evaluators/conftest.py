"""A small evaluation context whose numbers can be followed by hand."""

import pandas as pd
import pytest

from bakeoff.contracts import EvalContext, Task


class Unused(Task):
    title = "Not asked by any built-in evaluator"

    def load(self):
        raise AssertionError("evaluators load no data")


def frame(completions, **columns):
    """Samples of two prompts a and b, in turn: (a, 0), (b, 0), (a, 1), (b, 1), ..."""
    n = len(completions)
    return pd.DataFrame(
        {
            "prompt_id": ["ab"[i % 2] for i in range(n)],
            "sample": [i // 2 for i in range(n)],
            "prompt": "It was",
            "completion": completions,
            "n_tokens": [len(text.split()) + 1 for text in completions],
            "ended_eos": True,
            "truncated": False,
            **columns,
        }
    )


@pytest.fixture
def make_context():
    """Builds an ``EvalContext`` from completions; the reward ``length`` counts characters."""

    def make(completions, reference=(), gold=None, train_reward=None, judge=None, **columns):
        rows = [{"id": "b", "prompt": "It was", "worth": 10.0}, {"id": "a", "prompt": "It was", "worth": 1.0}]
        return EvalContext(
            rows, frame(completions, **columns), frame(list(reference)), Unused(), train_reward, gold, judge
        )

    return make


def length(rows, completions):
    return [float(len(text)) for text in completions]


@pytest.fixture
def length_reward():
    return length
