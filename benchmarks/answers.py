"""Rewards that check an answer: 1.0 when it is right, 0.0 when it is not. Nothing here raises on free text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

from bakeoff.contracts import Metric

ACCURACY = Metric("accuracy", "share correct", "higher", "1 when the answer is right, else 0.", 0.0, 1.0)

# A minus is a sign only where it follows neither a number, a word nor a bracket: "12-8" ends in 8.
_NUMBER = re.compile(
    r"""(?: (?<! [\w)\]] ) [-−] \$? )?
        (?: (?: [0-9]{1,3} (?:,[0-9]{3})+ (?![0-9]) | [0-9]+ ) (?: \.[0-9]+ )?  |  \.[0-9]+ )""",
    re.VERBOSE,
)


def sole_number(text: str) -> Decimal | None:
    """A text that is one number and nothing else, or None. Commas and white space around it are ignored."""
    try:
        number = Decimal(text.strip().replace(",", ""))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def last_number(text: str) -> Decimal | None:
    """The last number in a text, or None. "$1,234.50." is 1234.5; commas that group thousands are ignored."""
    matches = _NUMBER.findall(text)
    return Decimal(matches[-1].replace(",", "").replace("$", "").replace("−", "-")) if matches else None


def best_constant_answer(answers: Iterable[str]) -> dict[str, float]:
    """What one and the same answer to every question scores at best: ``{"best constant answer '7'": 0.07}``.

    A policy that scores no more has learned the distribution of answers and nothing about the questions.
    Of equally frequent answers the first in order of text is named; no answers give an empty dict.
    """
    counts = Counter(answers)
    if not counts:
        return {}
    answer, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
    return {f"best constant answer '{answer}'": count / counts.total()}
