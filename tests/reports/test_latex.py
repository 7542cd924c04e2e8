"""LaTeX tables."""

import re

import pytest
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.latex import LaTeX, escape, to_latex
from bakeoff.reports.tables.leaderboard import all_tables, leaderboard


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


def test_no_table_has_a_character_that_latex_lacks(five_seeds):
    """Arrows, inequalities, roots and dashes of captions and cells are spelt out: pdflatex stops at what it lacks."""
    for _, table in all_tables(five_seeds):
        assert to_latex(table).isascii(), table.name


def test_labels_of_two_sections_differ(tmp_path, run):
    """Two tasks give two leaderboards that one paper may hold."""
    two = type(run)(tmp_path / "two", tasks=("sentiment", "arithmetic")).write()
    written = LaTeX().write(two.results(), tmp_path)
    labels = [re.search(r"\\label\{(.*?)\}", path.read_text())[1] for path in written]
    assert len(labels) == len(set(labels))
