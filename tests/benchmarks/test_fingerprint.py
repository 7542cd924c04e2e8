"""The fingerprint tells data apart, and nothing else."""

from bakeoff.benchmarks.fingerprint import fingerprint

ROWS = [{"id": "a", "prompt": "é\u2028"}, {"id": "b", "prompt": [{"role": "user", "content": "hi"}]}]


def test_the_order_of_columns_does_not_count():
    """Two files that differ only in the order of a row's keys hold the same data."""
    assert fingerprint([{"prompt": "p", "id": "a"}], []) == fingerprint([{"id": "a", "prompt": "p"}], [])


def test_everything_else_counts():
    """A changed value, another order of rows, and the side of the split that a row is on all tell."""
    prints = {
        fingerprint(ROWS, []),
        fingerprint(ROWS[::-1], []),
        fingerprint(ROWS[:1], ROWS[1:]),
        fingerprint([ROWS[0] | {"prompt": "é"}, ROWS[1]], []),
        fingerprint([], []),
    }
    assert len(prints) == 5
