"""The promises of a judge: a verdict on every pair, on the answers and not on the side they stand on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

from bakeoff.contracts import Row, Verdict

from .evaluators import context_for
from .playthings import ToyTask
from .promises import Broken
from .subject import HOSTILE, Subject, described

BETTER = ("three sweet were seen here", "we were there, here, everywhere", "the sweet sheep sleep here")
WORSE = ("bad", "no", "x")
SWAPPED: dict[str, str] = {"a": "b", "b": "a", "tie": "tie", "invalid": "invalid"}


def verdicts(judge: Subject) -> str:
    """It gives a verdict on each pair: "a", "b", "tie" or "invalid"."""
    rows, better, worse = _pairs()
    found = _compare(judge, rows, better, worse)
    if judge.make().compare(context_for(frozenset({"samples"})), [], [], []) != []:
        raise Broken("asked about no pair, it gave verdicts.", "Give one verdict a row.")
    return _counts(found)


def _pairs() -> tuple[list[Row], list[str], list[str]]:
    """Eight rows, with answers of which the first is better by the toy task's gold reward."""
    rows = list(ToyTask().load().test)
    return rows, [BETTER[n % 3] for n in range(len(rows))], [WORSE[n % 3] for n in range(len(rows))]


def _compare(judge: Subject, rows: Sequence[Row], a: Sequence[str], b: Sequence[str]) -> list[Any]:
    before = json.dumps([dict(row) for row in rows])
    found = judge.make().compare(context_for(frozenset({"samples"})), rows, a, b)
    if not isinstance(found, list) or len(found) != len(rows):
        raise Broken(f"it gave {found!r:.80} for {len(rows)} pairs.", "Return a list with one verdict a row, in order.")
    if wrong := [each for each in found if each not in get_args(Verdict)]:
        raise Broken(f"it gave the verdict {wrong[0]!r}.", 'Give "a", "b", "tie" or "invalid".')
    if json.dumps([dict(row) for row in rows]) != before:
        raise Broken("it changed the rows.", "Leave rows as they are.")
    return found


def _counts(found: Sequence[str]) -> str:
    return ", ".join(f"{found.count(word)} {word}" for word in get_args(Verdict) if word in found)


def sides(judge: Subject) -> str:
    """Of two answers of which one is better it says the same from both sides, mostly: it reads the answers."""
    rows, better, worse = _pairs()
    forward, backward = _compare(judge, rows, better, worse), _compare(judge, rows, worse, better)
    judged = [pair for pair in zip(forward, backward, strict=True) if "invalid" not in pair]
    if not judged:
        raise Broken(
            "no pair got a verdict from both sides.",
            "See that what it needs (a reward, a model, a service) is there: it decides nothing like this.",
        )
    agreed = sum(SWAPPED[one] == other for one, other in judged)
    if 2 * agreed <= len(judged):
        raise Broken(
            f"swapping the sides turned {agreed} of {len(judged)} verdicts.",
            "Judge the answers, not their place; do not swap them yourself: the caller asks in both orders.",
        )
    if all(one == "tie" for one, _ in judged):
        raise Broken("it calls every pair a tie.", "Prefer the better answer; a tie decides nothing.")
    return f"swapping the sides turned {agreed} of {len(judged)} verdicts"


def repeatable(judge: Subject) -> str:
    """Asked again, and about each pair alone, it says the same."""
    rows, better, worse = _pairs()
    first = _compare(judge, rows, better, worse)
    if first != _compare(judge, rows, better, worse):
        raise Broken("asked twice, it said otherwise.", "Fix what it draws: temperature 0, a seed, or kept answers.")
    alone = [_compare(judge, [row], [a], [b])[0] for row, a, b in zip(rows, better, worse, strict=True)]
    if alone != first:
        raise Broken("asked about each pair alone, it said otherwise.", "Judge each pair by itself.")
    return f"{len(first)} verdicts, three times the same"


def hostile(judge: Subject) -> str:
    """Whatever the answers say, also to the judge, it gives a verdict and does not fail."""
    rows = [ToyTask().load().test[number % 8] for number in range(len(HOSTILE))]
    plain = ["we were there"] * len(HOSTILE)
    return _counts(_compare(judge, rows, HOSTILE, plain) + _compare(judge, rows, plain, HOSTILE))


CHECKS = (verdicts, described, sides, repeatable, hostile)
