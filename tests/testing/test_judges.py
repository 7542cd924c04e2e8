"""The promises of a judge: an honest one keeps all of them, and for each there is one that does not."""

import random

import pytest

from bakeoff.contracts import Judge
from bakeoff.testing import check_judge, examine


class Honest(Judge):
    """Prefers the longer answer."""

    title = "Honest"

    def compare(self, context, rows, a, b):
        return [self.verdict(x, y) for x, y in zip(a, b, strict=True)]

    def verdict(self, a, b):
        return "tie" if len(a) == len(b) else "a" if len(a) > len(b) else "b"


class Guesses(Honest):
    """Says what is no verdict."""

    def verdict(self, a, b):
        return "maybe"


class SkipsTies(Honest):
    """Fewer verdicts than pairs."""

    def compare(self, context, rows, a, b):
        return super().compare(context, rows, a, b)[1:]


class AlwaysAnswers(Honest):
    """Has a verdict where nothing was asked."""

    def compare(self, context, rows, a, b):
        return super().compare(context, rows, a, b) or ["tie"]


class WritesOnTheRows(Honest):
    """Notes its verdict where the next judge reads it."""

    def compare(self, context, rows, a, b):
        for row in rows:
            row["judged"] = True
        return super().compare(context, rows, a, b)


class PrefersTheFirst(Honest):
    """Reads no further than the first answer."""

    def verdict(self, a, b):
        return "a"


class NeverDecides(Honest):
    """Every pair is a tie."""

    def verdict(self, a, b):
        return "tie"


class CannotJudge(Honest):
    """What it needs is not there."""

    def verdict(self, a, b):
        return "invalid"


class Tosses(Honest):
    """A coin, each time anew."""

    def verdict(self, a, b):
        return random.SystemRandom().choice("ab")


class DependsOnTheOthers(Honest):
    """Prefers what is longer than the mean of its side."""

    def compare(self, context, rows, a, b):
        return ["b" if len(rows) == 1 else "a" for _ in rows]


class Obeys(Honest):
    """Runs what an answer says."""

    def verdict(self, a, b):
        a.encode("ascii")
        return super().verdict(a, b)


def test_an_honest_judge_keeps_every_promise():
    """All apply to it."""
    assert {finding.verdict for finding in check_judge(Honest).findings} == {"kept"}


@pytest.mark.parametrize(
    ("judge", "broken", "told"),
    [
        (Guesses, "verdicts", "'maybe'"),
        (SkipsTies, "verdicts", "for 8 pairs"),
        (AlwaysAnswers, "verdicts", "asked about no pair, it gave verdicts"),
        (WritesOnTheRows, "verdicts", "it changed the rows"),
        (PrefersTheFirst, "sides", "turned 0 of 8 verdicts"),
        (NeverDecides, "sides", "every pair a tie"),
        (CannotJudge, "sides", "no pair got a verdict"),
        (Tosses, "repeatable", "said otherwise"),
        (DependsOnTheOthers, "repeatable", "each pair alone"),
        (Obeys, "hostile", "UnicodeEncodeError"),
    ],
)
def test_a_dishonest_judge_breaks_its_promise(judge, broken, told):
    """What happened and how to mend it are said."""
    (finding,) = examine("judge", judge, only=[broken]).broken
    assert finding.name == broken
    assert told in finding.found
    assert finding.fix
