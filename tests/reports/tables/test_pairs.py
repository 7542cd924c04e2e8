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
    """Three that generate are a matrix of three, best first, and a list of three; neither is adjusted."""
    (section,) = sections(results)
    equal = section.equal_by["tokens_generated"]
    table, listed = pairs.square(equal), pairs.pairwise(equal)
    matrix, gain = table.frame.set_index("algorithm"), equal.effects["grpo-lr3"]
    assert (table.name, table.family) == ("verdicts-tokens_generated", "verdicts")
    assert table.title == "Who beats whom, equal tokens generated"
    assert list(matrix.index) == equal.ranked == ["grpo-lr3", "ppo", "base"]
    assert matrix.at["grpo-lr3", "against base"] == f"{gain.verdict.label} {gain.difference.mean:+.3f}"
    assert matrix.at["base", "against grpo-lr3"].endswith(f"−{gain.difference.mean:.3f}")
    assert listed.frame["p_holm"].tolist() == listed.frame["p"].tolist()
    assert all("not adjusted" in each.caption for each in (table, listed))
