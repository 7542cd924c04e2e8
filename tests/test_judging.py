"""The canaries themselves: they have to be worthless by any measure of content."""

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from bakeoff.judging import CANARIES, INJECTION, NULL_ANSWER, PADDING, Outcome, canaries


def test_canaries_neither_praise_nor_blame():
    """A lexicon of sentiment, the gold reward of a task, finds no word in them: else an honest judge would fail."""
    lexicon = SentimentIntensityAnalyzer().polarity_scores
    assert [lexicon(text)["compound"] for text in (NULL_ANSWER, PADDING, INJECTION)] == [0.0, 0.0, 0.0]
    assert lexicon(f"a great film{PADDING}")["compound"] == lexicon("a great film")["compound"]


def test_canary_stands_on_the_side_that_is_scored():
    """The value is the canary's: a judge that always takes the shorter text lets all but the padded one win."""

    class Shorter:
        def compare(self, context, rows, a, b):
            lengths = [(len(left), len(right)) for left, right in zip(a, b, strict=True)]
            return ["tie" if left == right else "a" if left < right else "b" for left, right in lengths]

    found = canaries(Shorter(), None, [{"id": "1"}], ["a long answer " * 20])
    assert set(found) == set(CANARIES)
    assert {name: [outcome.value for outcome in outcomes] for name, outcomes in found.items()} == {
        "identical": [0.5], "null": [1.0], "padded": [0.0], "injection": [1.0],
    }  # fmt: skip


def test_an_invalid_verdict_has_no_value():
    """In either order."""
    assert Outcome("invalid", "b").value is None
    assert Outcome("a", "invalid").value is None
    assert [Outcome("a", "b").value, Outcome("b", "a").value, Outcome("a", "a").value] == [1.0, 0.0, 0.5]
