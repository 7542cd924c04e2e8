"""LaTeX tables."""

import re
import shutil
import subprocess

import pandas as pd
import pytest
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.latex import LaTeX, escape, to_latex
from bakeoff.reports.tables.leaderboard import all_tables, leaderboard
from bakeoff.reports.tables.table import Column, Table

PDFLATEX = shutil.which("pdflatex")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("50% & $5 #1 a_b ~ ^", r"50\% \& \$5 \#1 a\_b \textasciitilde{} \textasciicircum{}"),
        ("--seeds 3 ```", r"-{}-seeds 3 \`{}\`{}\`{}"),
        ("é e\u0301 ž α Λ", r"é é ž $\alpha$ $\Lambda$"),
        ("中 🙂 ą", r"\textbackslash{}u4e2d \textbackslash{}U0001f642 \textbackslash{}u0105"),
        ("Δ −0.1 × – …", r"$\Delta$ $-$0.1 $\times$ -- \ldots{}"),
        ("a\nb\x00", r"a b\textbackslash{}x00"),
    ],
)
def test_text_prints_as_it_stands(text, expected):
    """Nothing in a label is a command, and what LaTeX lacks is spelt out."""
    assert escape(text) == expected


def test_table_is_a_booktabs_table_with_equal_rows(results):
    """The environment opens and closes, braces balance, and each row of a panel has as many cells as its head."""
    text = to_latex(leaderboard(sections(results)[0]))
    assert text.startswith("\\begin{table}")
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    panels = re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", text, flags=re.DOTALL)
    for panel in panels:
        assert re.findall(r"\\(?:top|mid|bottom)rule", panel) == ["\\toprule", "\\midrule", "\\bottomrule"]
        rows = [line for line in panel.splitlines() if line.endswith(r"\\")]
        assert len(rows) == 6
        assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1


def table(*columns, rows):
    frame = pd.DataFrame(rows, columns=list(columns))
    kinds = ("number" if pd.api.types.is_numeric_dtype(frame[key]) else "text" for key in columns)
    shown = tuple(Column(key, key, kind) for key, kind in zip(columns, kinds, strict=True))
    return Table("made", "Made?", "By hand.", frame, shown)


def test_wide_table_is_broken_into_panels_that_say_whose_row_it_is():
    """Two columns tell the rows apart; each panel begins with both, and every other column is in exactly one."""
    names = [f"metric number {n}" for n in range(9)]
    made = to_latex(table("a", "b", *names, rows=[("x", "y", *range(9)), ("x", "z", *range(9))]))
    heads = re.findall(r"\\toprule\n\{\}(.*?) \\\\", made)
    assert len(heads) > 1
    cells = [head.split(" & ") for head in heads]
    assert all(head[:2] == ["a", "b"] for head in cells)
    assert [name for head in cells for name in head[2:]] == names
    assert made.count(r"\caption{Made? By hand.}") == made.count(r"\label{") == 1


def test_rank_alone_names_no_row():
    """Where the first column is a number, panels repeat the first text too."""
    names = [f"metric number {n}" for n in range(9)]
    made = to_latex(table("rank", "algorithm", *names, rows=[(1, "x", *range(9)), (2, "y", *range(9))]))
    assert all(head.startswith("rank & algorithm & ") for head in re.findall(r"\\toprule\n\{\}(.*?) \\\\", made))


def test_long_table_goes_on_in_another_float():
    """A hundred rows are in three floats, each row once, under one caption."""
    made = to_latex(table("algorithm", "value", rows=[(f"row{n}", n) for n in range(100)]))
    assert made.count(r"\begin{table}") == 3
    assert made.count(r"Table~\ref{tab:made}, continued") == 2
    assert re.findall(r"row(\d+)", made) == [str(n) for n in range(100)]


HOSTILE = (
    "50% & _#~^\\{}$ [x] \\\\ \\input{/etc/passwd} \\end{document} ^^5cend --seeds ?` «Łódź» ½ α Λ ≤ ∑ e\u0301 "
    "中文 العربية \u202eabc\u202c 🙂 \x00 \x1b \ufffd averyveryverylongwordwithoutanyplacetobreakitinto"
)


@pytest.mark.skipif(PDFLATEX is None, reason="no LaTeX on this machine: apt-get install texlive-latex-base")
def test_pdflatex_prints_every_table(tmp_path, five_seeds):
    """A document of all tables, and of one whose every text is hostile, compiles and keeps within its margins."""
    LaTeX().write(five_seeds, tmp_path)
    hostile = table(*(f"{name} {HOSTILE}" for name in "abc"), rows=[(HOSTILE, f"{n} {HOSTILE}", n) for n in range(30)])
    (tmp_path / "tables" / "zz.tex").write_text(to_latex(hostile))
    inputs = "\n\\clearpage\n".join(rf"\input{{tables/{path.name}}}" for path in sorted(tmp_path.glob("tables/*")))
    document = "\n".join(
        [r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}", inputs, r"\end{document}"]
    )
    (tmp_path / "all.tex").write_text(document)
    command = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "all.log").read_text(errors="replace")
    assert "Missing character" not in log
    assert "Float too large" not in log
    assert all(float(points) < 3 for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log))
    assert (tmp_path / "all.pdf").read_bytes().startswith(b"%PDF")


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
