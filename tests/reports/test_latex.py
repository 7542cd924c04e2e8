"""LaTeX tables."""

import re

import pytest
from bakeoff.reports.analysis import sections
from bakeoff.reports.latex import LaTeX, escape, to_latex
from bakeoff.reports.tables import leaderboard


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("50% & $5 #1 a_b ~ ^", r"50\% \& \$5 \#1 a\_b \textasciitilde{} \textasciicircum{}"),
        ("Δ −0.1 × – …", r"$\Delta$ $-$0.1 $\times$ -- \ldots{}"),
        ("a\nb\x00", r"a b\textbackslash{}x00"),
    ],
)
def test_text_prints_as_it_stands(text, expected):
    """Nothing in a label is a command, and what LaTeX lacks is spelt out."""
    assert escape(text) == expected


def test_table_is_a_booktabs_table_with_equal_rows(results):
    """The environment opens and closes, braces balance, and each row has as many cells as the head."""
    text = to_latex(leaderboard(sections(results)[0]))
    assert text.startswith("\\begin{table}")
    assert re.findall(r"\\(?:top|mid|bottom)rule", text) == ["\\toprule", "\\midrule", "\\bottomrule"]
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 6
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1


def test_every_table_is_written(results, tmp_path):
    """One file a table, under tables/."""
    names = {path.name for path in LaTeX().write(results, tmp_path)}
    assert {"leaderboard.tex", "pairwise.tex", "verdicts.tex", "ledger.tex", "runs.tex"} <= names
    assert all((tmp_path / "tables" / name).read_text() for name in names)
