"""The film-review task: its prompts, their split, and its two rewards."""

from bakeoff.benchmarks.sentiment import ADJECTIVES, GENRES, NOUNS, OPENINGS, TITLES, Sentiment, SentimentSettings
from bakeoff.benchmarks.vader import compound


def title_of(row):
    return next(title for title in TITLES if title in row["prompt"])


def test_thousands_of_distinct_prompts_with_distinct_ids():
    """Openings, titles and genres multiply to prompts that all differ."""
    data = Sentiment().load()
    rows = [*data.train, *data.test]
    assert (len(data.train), len(data.test)) == (3840, 960)
    assert len({row["prompt"] for row in rows}) == len({row["id"] for row in rows}) == len(rows)


def test_no_test_title_is_trained_on():
    """A policy cannot have learned what to say of a title that it is tested with."""
    data = Sentiment().load()
    assert not {title_of(row) for row in data.train} & {title_of(row) for row in data.test}


def test_loading_is_deterministic_and_the_order_is_mixed():
    """Two loads give the same rows, and the first of them already cover the openings, genres and titles."""
    first, second = Sentiment().load(), Sentiment().load()
    assert first == second
    assert first.test[0] == {
        "id": "amber-meridian/drama/6",
        "prompt": "Last night we saw the drama The Amber Meridian. It",
    }
    head = first.test[:64]
    assert len({title_of(row) for row in head}) > 10
    assert len({row["id"].split("/", 1)[1] for row in head}) > 30


def test_prompts_are_short_and_carry_no_sentiment():
    """No part of a prompt has a valence in VADER's lexicon, so a prompt asks for neither praise nor blame."""
    assert all(len(row["prompt"].split()) <= 10 for row in Sentiment().load().train)
    for words in (ADJECTIVES, NOUNS, GENRES, OPENINGS):
        assert [word for word in words if compound(word) != 0] == []


def test_reward_is_vader_and_gold_is_fined_by_the_setting():
    """The proxy adores a loop; the gold reward takes off the fine that the setting says."""
    rows = [{"id": "0", "prompt": "It was"}] * 2
    texts = ["love love love love love", " a good film."]
    proxy = Sentiment().reward(rows, texts)
    assert proxy == [compound(text) for text in texts]
    assert Sentiment().gold(rows, texts) == [-1.0, proxy[1]]
    lenient = Sentiment(SentimentSettings(penalty=0.5)).gold(rows, texts)
    assert lenient == [compound("love") - 0.5, proxy[1]]
    assert Sentiment().load().provides == {"prompts", "reward"}
