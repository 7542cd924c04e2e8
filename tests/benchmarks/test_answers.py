"""Numbers in free text, and the best constant answer."""

from decimal import Decimal

import pytest
from bakeoff.benchmarks.answers import best_constant_answer, last_number, sole_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She makes 9 * 2 = $<<9*2=18>>18 every day.\n#### 18", "18"),
        ("so it costs $1,234.50.", "1234.5"),
        ("1,000,000 in all", "1000000"),
        ("12-8", "8"),
        ("f(3)-2", "2"),
        ("the result is -8", "-8"),
        ("the result is −8", "-8"),
        ("a loss of -$5", "-5"),
        ("first 1, then 2, then 3", "3"),
        ("about .5", "0.5"),
        ("1,2345", "2345"),
        ("none at all", None),
        ("", None),
    ],
)
def test_last_number(text, number):
    """The last number counts, with its sign, its decimals and its thousands."""
    assert last_number(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(("text", "number"), [(" 142", 142), ("+07", 7), ("1,420", 1420), ("142.0", 142)])
def test_sole_number(text, number):
    """A number may be written in several ways."""
    assert sole_number(text) == number


@pytest.mark.parametrize("text", ["", "1 2", "142 is it", "nan", "sNaN", "-Infinity", "one", "\x00", "٣x", "0x1F"])
def test_free_text_is_no_number(text):
    """Free text is wrong, and never raises."""
    assert sole_number(text) is None


def test_best_constant_answer():
    """The most frequent answer is named with its share; of equals, the first in order of text."""
    assert best_constant_answer(["7", "1", "7", "2"]) == {"best constant answer '7'": 0.5}
    assert best_constant_answer(["b", "a"]) == {"best constant answer 'a'": 0.5}
    assert best_constant_answer([]) == {}
