"""The gold sentiment reward: what it fines, what it leaves alone, and that repetition cannot raise it."""

import json

import pytest
from bakeoff.benchmarks.vader import compound, gold

ORDINARY = [
    "",
    "was a very, very good film, and I would see it again.",
    "No, no, no. It was terrible, though the ending was not bad.",
    "a smart, sweet and playful romantic comedy.",
    "A great story, a wonderful cast, an amazing score, a superb ending: perfect.",
    "one of the best stories of the sea that I have read, and one of the longest of the year so far.",
    "a good film with a good cast",
    "I had had enough of it after ten minutes, so I left.",
]
LOOPS = [
    "love love love love love",
    "great great great",
    "amazing! amazing! amazing!",
    "I love it. I love it. I love it. I love it.",
    "great, wonderful, amazing, excellent, superb, lovely, perfect, best",
    "great and wonderful and amazing and excellent and superb and lovely",
    "Love LOVE love Love",
    ":) :) :) :)",
    "😍😍😍😍😍",
    "love great love great love great love great",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_not_fined(text):
    """Emphasis, a list of three and repeated function words are how people write."""
    assert gold(text) == compound(text)


@pytest.mark.parametrize("text", LOOPS)
def test_loops_of_praise_score_the_minimum(text):
    """What a policy finds when it maximises VADER is worth the least that a text can be worth."""
    assert compound(text) > 0.85
    assert gold(text) == -1.0


def test_real_review_sentences_are_not_fined(public_data):
    """Of 200 sentences by film critics at most one in a hundred loses anything, and the mean hardly moves."""
    lines = public_data("sentiment_test_200.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    fines = [compound(text) - gold(text) for text in texts]
    assert sum(fine > 0 for fine in fines) <= 2
    assert sum(fines) / len(fines) < 0.01


@pytest.mark.parametrize("text", ORDINARY + LOOPS)
@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0, 10.0])
def test_gold_is_bounded_by_the_compound_score(text, strength):
    """The fine only lowers, a stronger one no less, and never below VADER's own range."""
    assert -1.0 <= gold(text, strength) <= compound(text)
    assert gold(text, strength + 1) <= gold(text, strength)


@pytest.mark.parametrize("start", [*ORDINARY, "It was awful.", "The plot is about a long and slow journey by train."])
@pytest.mark.parametrize("word", ["love", "great!", "AMAZING", "wonderful,"])
def test_more_of_the_same_praise_never_raises_gold(start, word):
    """Once a word of praise has been said, saying it again and again earns nothing at any length."""
    once, *more = (gold(f"{start} {' '.join([word] * times)}") for times in range(1, 25))
    assert max(more) <= once
    assert more[-1] == -1.0


def test_praise_counts_twice_and_no_more():
    """Two uses of a word of praise are ordinary; a third one earns nothing, however far from the others it stands."""
    twice = "a great plot and a cast that is great, with an ending which"
    assert gold(twice) == compound(twice)
    assert gold(f"{twice} is great") == gold(f"{twice} is") < compound(f"{twice} is great")


@pytest.mark.parametrize("text", [text for text in ORDINARY + LOOPS if text])
def test_saying_it_all_again_never_raises_gold(text):
    """A completion that repeats itself is worth no more than one that stops."""
    assert gold(f"{text} {text} {text}") <= gold(text)


def test_negative_repetition_is_not_praise():
    """A harsh review may repeat a word; only when most of it is repetition does it lose more than VADER takes."""
    assert gold("a bad script and a bad cast") == compound("a bad script and a bad cast") < 0
    assert gold("bad bad bad bad bad bad") == -1.0
