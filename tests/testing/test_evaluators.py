"""The promises of an evaluator: an honest one keeps all of them, and for each there is one that does not."""

import random

import pytest

from bakeoff.contracts import Evaluator, Metric
from bakeoff.testing import check_evaluator, examine

E = Metric("e", "letters", "higher", "Letters e of the completion.", 0.0)


class Honest(Evaluator):
    """Counts a letter."""

    title = "Honest"
    metrics = (E,)

    def score(self, context):
        samples = context.samples
        return samples[["prompt_id", "sample"]].assign(metric="e", value=samples["completion"].str.count("e"))


class GivesAMean(Honest):
    """One number for all."""

    def score(self, context):
        return super().score(context).iloc[:1]


class GivesNumbers(Honest):
    """Values that belong to nothing."""

    def score(self, context):
        return list(super().score(context)["value"])


class CountsSamplesFromOne(Honest):
    """Another sample's number than the one that was scored."""

    def score(self, context):
        return super().score(context).assign(sample=lambda frame: frame["sample"] + 1)


class ScoresTwice(Honest):
    """Each sample again."""

    def score(self, context):
        frame = super().score(context)
        return frame.loc[[*frame.index, *frame.index]]


class Undeclared(Honest):
    """Another metric than it said."""

    def score(self, context):
        return super().score(context).assign(metric="f")


class MeasuresNothing(Honest):
    """Declares no metric, and gives none."""

    metrics = ()

    def score(self, context):
        return super().score(context).iloc[:0]


class NamesTwoAlike(Honest):
    """One name for two metrics."""

    metrics = (E, E)


class NeedsDreams(Honest):
    """Asks for what no cell has."""

    needs = frozenset({"samples", "dreams"})


class NoUnit(Honest):
    """Letters, or what?"""

    metrics = (Metric("e", "", "higher", "Letters e of the completion.", 0.0),)


class Bounded(Honest):
    """Says that there is one at most."""

    metrics = (Metric("e", "letters", "higher", "Letters e of the completion.", 0.0, 3.0),)


class Rolls(Honest):
    """Decides by chance."""

    def score(self, context):
        return super().score(context).assign(value=lambda frame: [random.SystemRandom().random() for _ in frame.index])


class FindsRowsByPlace(Honest):
    """Takes the n-th row for the n-th sample's."""

    def score(self, context):
        rows = [context.rows[number % len(context.rows)] for number in range(len(context.samples))]
        return super().score(context).assign(value=[float(row["id"].rpartition("-")[2]) for row in rows])


class WritesOnTheSamples(Honest):
    """Lowers the case of what others score, too."""

    def score(self, context):
        context.samples["completion"] = context.samples["completion"].str.upper()
        return super().score(context)


class NeedsGold(Honest):
    """Asks a gold reward that may not be there."""

    def score(self, context):
        return super().score(context).assign(value=context.gold(context.rows * 2, list(context.samples["completion"])))


class FillsIn(Honest):
    """Says NaN where there is no judge."""

    def score(self, context):
        return super().score(context).assign(value=1.0 if context.judge else float("nan"))


class TakesWhatItDidNotAskFor(Honest):
    """Reads log-probabilities without needing them."""

    def score(self, context):
        return super().score(context).assign(value=context.samples["token_logps"].map(len))


def test_an_honest_evaluator_keeps_every_promise():
    """All apply to it."""
    assert {finding.verdict for finding in check_evaluator(Honest).findings} == {"kept"}


@pytest.mark.parametrize(
    ("evaluator", "broken", "told"),
    [
        (GivesAMean, "scores", "has 1 values for 12 samples"),
        (GivesNumbers, "scores", "score() gave list"),
        (CountsSamplesFromOne, "scores", "which is not there"),
        (ScoresTwice, "scores", "twice"),
        (Undeclared, "scores", "'f', which it does not declare"),
        (TakesWhatItDidNotAskFor, "scores", "KeyError: 'token_logps'"),
        (MeasuresNothing, "declared", "`metrics` is ()"),
        (NamesTwoAlike, "declared", "two metrics share a name"),
        (NeedsDreams, "declared", "`needs` names 'dreams'"),
        (NoUnit, "declared", "no unit"),
        (Bounded, "bounded", "lies in [0.0, 3.0]"),
        (Rolls, "repeatable", "other values"),
        (FindsRowsByPlace, "repeatable", "rows in another order"),
        (WritesOnTheSamples, "repeatable", "changed the samples"),
        (NeedsGold, "missing", "without gold it raised"),
        (FillsIn, "missing", "NaN"),
    ],
)
def test_a_dishonest_evaluator_breaks_its_promise(evaluator, broken, told):
    """What happened and how to mend it are said."""
    (finding,) = examine("evaluator", evaluator, only=[broken]).broken
    assert finding.name == broken
    assert told in finding.found
    assert finding.fix
