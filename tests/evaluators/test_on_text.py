"""Evaluators that ask the model and need no samples: perplexity, masked_accuracy, retrieval."""

import dataclasses
import math

import numpy as np
import pytest
from bakeoff.evaluators.masked_accuracy import MaskedAccuracy, MaskedAccuracySettings
from bakeoff.evaluators.perplexity import Perplexity
from bakeoff.evaluators.retrieval import Retrieval, RetrievalSettings

EVALUATORS = [Perplexity, MaskedAccuracy, Retrieval]


class Model:
    """Words are tokens; what it says of them is given."""

    def __init__(self, *, bidirectional=False, logps=(), known=(), embeddings=()):
        self.bidirectional = bidirectional
        self._logps, self._known, self._embeddings = logps, known, iter(embeddings)
        self.asked = []

    def encode(self, texts):
        return [[*text.split(), "EOS"] for text in texts]

    def logps(self, ids):
        return self._logps

    def fill(self, ids, positions):
        self.asked.append(positions)
        return [
            [row[p] if row[p] in self._known else "?" for p in places]
            for row, places in zip(ids, positions, strict=True)
        ]

    def embed(self, ids):
        self.asked.append(ids)
        return np.array(next(self._embeddings), dtype=np.float32)


@pytest.fixture
def context_of(make_context):
    """``context_of(model, {id: text})``; a row more has no text."""

    def make(model, texts):
        rows = [*({"id": name, "prompt": "", "text": text} for name, text in texts.items()), {"id": "z", "prompt": ""}]
        return dataclasses.replace(make_context([]), rows=rows, model=model)

    return make


def values(frame, metric):
    return frame[frame["metric"] == metric].set_index("prompt_id")["value"].to_dict()


def test_perplexity_by_hand(context_of):
    """Two tokens of 1/2 and 1/8: two nats of log 4 on average, so as unsure as among four tokens."""
    logps = [[math.log(1 / 2), math.log(1 / 8)], [0.0]]
    frame = Perplexity().score(context_of(Model(logps=logps), {"a": "x y", "b": "x"}))
    assert values(frame, "perplexity") == pytest.approx({"a": 4.0, "b": 1.0})
    assert values(frame, "nll") == pytest.approx({"a": math.log(4), "b": 0.0})


def test_a_policy_that_attends_to_both_sides_has_no_perplexity(context_of):
    """It would be told what it is to predict, or be measured in a way in which it was not trained."""
    frame = Perplexity().score(context_of(Model(bidirectional=True, logps=[[0.0]]), {"a": "x"}))
    assert frame.empty


def test_masked_accuracy_by_hand(context_of):
    """All but the first word and EOS hidden: two of the three are known."""
    model = Model(known={"two", "four"})
    evaluator = MaskedAccuracy(MaskedAccuracySettings(mask_rate=0.99))
    frame = evaluator.score(context_of(model, {"a": "one two three four", "b": "one"}))
    assert values(frame, "masked_accuracy") == pytest.approx({"a": 2 / 3, "b": 0.0})
    assert model.asked == [[[1, 2, 3], [1]]]


def test_hidden_words_depend_on_the_row_alone(context_of):
    """Whatever other rows there are, and for every policy; another row hides others."""
    text = " ".join(map(str, range(60)))
    asked = []
    for texts in ({"a": text}, {"b": text, "a": text}):
        model = Model()
        MaskedAccuracy().score(context_of(model, texts))
        asked.append(model.asked[0])
    assert asked[0][0] == asked[1][1] != asked[1][0]
    assert len(asked[0][0]) == 9  # 15 % of 59, without the first word and EOS


def test_retrieval_by_hand(context_of):
    """The first text finds its own half, the second the first one's before its own, the third has a tie at the top."""
    queries = [[1, 0], [1, 0.1], [1, 1]]
    halves = [[2, 0], [0, 1], [0, 3]]
    model = Model(embeddings=[queries, halves])
    frame = Retrieval().score(context_of(model, {"a": "u v w", "b": "x y z", "c": "p q r"}))
    assert values(frame, "retrieval") == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert values(frame, "retrieval_mrr") == pytest.approx({"a": 1.0, "b": 1 / 3, "c": 1 / 3})
    assert model.asked == [[["u", "v"], ["x", "y"], ["p", "q"]], [["w", "EOS"], ["z", "EOS"], ["r", "EOS"]]]


def test_the_pool_is_the_first_texts_and_ones_own(context_of):
    """With two to choose from, the third text is held against the first alone: more rows make it no harder."""
    similar = [[1, 0], [0, 1], [1, 0.2]]
    texts = {name: "u v" for name in "abc"}
    frame = Retrieval(RetrievalSettings(pool=2)).score(context_of(Model(embeddings=[similar, similar]), texts))
    assert values(frame, "retrieval") == {"a": 1.0, "b": 1.0, "c": 1.0}
    swapped = [[0, 1], [0, 1], [1, 0]]
    frame = Retrieval(RetrievalSettings(pool=2)).score(context_of(Model(embeddings=[similar, swapped]), texts))
    assert values(frame, "retrieval_mrr") == {"a": 0.5, "b": 0.5, "c": 1.0}


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_without_text_there_is_no_value(evaluator, context_of):
    """Rows that hold no text have none; nothing is asked of the model."""
    frame = evaluator().score(context_of(Model(), {}))
    assert frame.empty
    assert list(frame.columns) == ["prompt_id", "sample", "metric", "value"]


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_they_need_the_model_alone(evaluator):
    """So they score a policy that is never sampled."""
    assert evaluator.needs == {"model"}
