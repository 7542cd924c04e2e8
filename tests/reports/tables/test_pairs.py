"""Pairs: the matrix and the list say the same."""

from bakeoff.reports.analysis.section import sections
from bakeoff.reports.tables import pairs


def test_square_and_long_verdicts_agree(five_seeds):
    """The matrix holds each pair twice with opposite sign and verdict, the list once."""
    (section,) = sections(five_seeds)
    square = pairs.square(section).frame.set_index("algorithm")
    assert square.at["grpo-lr3", "against sft"].startswith("WIN +")
    assert square.at["sft", "against grpo-lr3"].startswith("LOSS −")
    assert square.at["sft", "against sft"] == ""
    assert len(pairs.pairwise(section).frame) == 10


def test_pairs_are_compared_under_an_equal_amount_too(results):
    """Three that generate are a matrix of three, best first; each cell is its pair's difference and verdict."""
    (section,) = sections(results)
    equal = section.equal_by["tokens_generated"]
    table = pairs.equal_square(section, "tokens_generated")
    matrix, second = table.frame.set_index("algorithm"), equal.pairs[1]
    assert list(matrix.index) == equal.ranked == ["grpo-lr3", "ppo", "base"]
    assert (second.a, second.b) == ("grpo-lr3", "base")
    assert matrix.at["grpo-lr3", "against base"] == f"{second.verdict.label} {second.difference.mean:+.3f}"
    assert matrix.at["base", "against grpo-lr3"].endswith(f"−{second.difference.mean:.3f}")
    assert "not adjusted" in table.caption
