"""``tables/*.tex``: booktabs tables to ``\\input`` in a paper.

They need booktabs and nothing else, whatever a label holds. A table wider than a column of text is broken into panels
that repeat what tells its rows apart; a table longer than a page goes on in another float.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bakeoff.contracts import Report

from .files import escaped, visible, write_atomic
from .frame import Results
from .tables.leaderboard import Table, all_tables

GREEK = {letter: rf"$\{unicodedata.name(letter).split()[-1].lower()}$" for letter in "αβγδεζηθικλμνξπρστυφχψω"} | {
    letter: rf"$\{unicodedata.name(letter).split()[-1].title()}$" for letter in "ΓΔΘΛΞΠΣΥΦΨΩ"
}
SPECIAL = GREEK | {
    "λ": r"$\lambda$", "Λ": r"$\Lambda$",  # LAMDA in Unicode
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "`": r"\`{}",
    "−": "$-$", "–": "--", "—": "---", "×": r"$\times$", "·": r"$\cdot$", "…": r"\ldots{}", "±": r"$\pm$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$", "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$",
    "≠": r"$\neq$", "∞": r"$\infty$", "√": r"$\surd$", "∂": r"$\partial$", "∑": r"$\sum$", "₀": "$_0$", "₁": "$_1$",
    "²": "$^2$", "³": "$^3$", "µ": r"$\mu$",
    "\u2009": r"\,", "\u00a0": "~", "’": "'", "‘": "`", "“": "``", "”": "''",
}  # fmt: skip
"""What LaTeX would read as a command or cannot print, and what to write instead."""
NEEDS_T1 = frozenset("«»ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ\u00ad")
"""Of Latin-1 and Latin Extended-A: what LaTeX's default fonts lack."""
LIGATURE = r"-(?=-)|[?!](?=`)|,(?=,)"
"""The first of two characters that a font would print as one: ``--seeds`` is no en dash."""

WIDTH = 75
"""Characters of a line of ``\\footnotesize`` in the text of LaTeX's article class."""
WRAPPED = 34
"""A column of text is at most so many characters wide and then wraps."""
KEYS = 52
"""Of a line's characters that the columns may take which every panel repeats."""
LINES = 44
"""Lines of ``\\footnotesize`` that a float may have, its caption included."""
BEGIN = (r"\begin{table}", r"\centering\footnotesize\setlength{\tabcolsep}{4pt}")


def escape(text: str) -> str:
    """``text`` as LaTeX that prints exactly that; what the default fonts lack is printed as its code, ``\\u4e2d``."""
    return re.sub(_SPECIAL, lambda found: SPECIAL.get(found[0], found[0] + "{}"), _printable(text))


_SPECIAL = re.compile("|".join([LIGATURE, *map(re.escape, SPECIAL)]))


def _printable(text: str) -> str:
    """One line of characters that all have a glyph."""
    line = re.sub(r"[ \t\n]+", " ", visible(unicodedata.normalize("NFC", text))).strip(" ")
    return "".join(c if _has_glyph(c) else escaped(c) for c in line)


def _has_glyph(character: str) -> bool:
    return character.isascii() or character in SPECIAL or ("¡" <= character <= "ž" and character not in NEEDS_T1)


class _Column(NamedTuple):
    """A column's head and its cells, as printable text."""

    texts: tuple[str, ...]
    is_text: bool
    most: int = WRAPPED

    @property
    def width(self) -> int:
        return min(self.most, max(map(_width, self.texts)))

    def latex(self, row: int) -> str:
        text = self.texts[row]
        if _width(text) <= self.most:
            return escape(text)
        words = (r"\allowbreak{}".join(map(escape, textwrap.wrap(word, 12))) for word in text.split(" "))
        return rf"\parbox[t]{{{self.most / 2:g}em}}{{\raggedright {' '.join(words)}\strut}}"

    def lines(self, row: int) -> int:
        return -(-_width(self.texts[row]) // (self.most - 4))  # a line that wraps is not filled to its end


def _width(text: str) -> int:
    """How many digits are as wide as ``text``."""
    narrow, wide = sum(c in ".,:;[]()!|ijl " for c in text), sum(c.isupper() or c in "mw+−%" for c in text)
    return len(text) + wide // 2 - narrow // 2


def to_latex(table: Table, prefix: str = "") -> str:
    """``table`` environments with one caption and label ``tab:<prefix><name>``; needs ``\\usepackage{booktabs}``."""
    cells = list(zip(*table.rows(), strict=True)) or [()] * len(table.columns)
    columns = [
        _Column(tuple(map(_printable, (column.title, *(cell.plain for cell in values)))), column.is_text)
        for column, values in zip(table.columns, cells, strict=True)
    ]
    stop = "" if table.title.endswith(("?", "!", ".")) else "."
    caption, label = f"{table.title}{stop} {table.caption}", f"tab:{prefix}{table.name}"
    floats: list[list[str]] = [[rf"\caption{{{escape(caption)}}}\label{{{label}}}"]]
    room = LINES - len(caption) // 80
    for panel in _panels(columns):
        for lines, block in _blocks(panel):
            if lines > room and len(floats[-1]) > 1:
                floats.append([rf"Table~\ref{{{label}}}, continued"])
                room = LINES
            floats[-1].append(block)
            room -= lines
    return "".join("\n".join([*BEGIN, "\n\\par\\medskip\n".join(parts), r"\end{table}", ""]) for parts in floats)


def _panels(columns: Sequence[_Column]) -> Iterator[list[_Column]]:
    """The columns in groups that fit a line, each after those that tell the rows apart."""
    keys = _keys(columns)
    taken = sum(column.width + 2 for column in keys)
    panel: list[_Column] = []
    for column in (column._replace(most=min(WRAPPED, WIDTH - taken - 2)) for column in columns[len(keys) :]):
        if panel and taken + sum(each.width + 2 for each in [*panel, column]) > WIDTH:
            yield [*keys, *panel]
            panel = []
        panel.append(column)
    yield [*keys, *panel]


def _keys(columns: Sequence[_Column]) -> list[_Column]:
    """The fewest leading columns, one of text among them, of which no two rows have all in common."""
    first = next((number for number, column in enumerate(columns, start=1) if column.is_text), 1)
    for count in range(first, min(4, len(columns)) + 1):
        rows = list(zip(*(column.texts[1:] for column in columns[:count]), strict=True))
        if len(set(rows)) == len(rows):
            break
    else:
        count = first
    return [column._replace(most=min(WRAPPED, KEYS // count)) for column in columns[:count]]


def _blocks(panel: Sequence[_Column]) -> Iterator[tuple[int, str]]:
    """(lines, a ``tabular``) for as many rows as a float can have, until all are there."""
    count = len(panel[0].texts)
    rows: list[int] = []
    used = 0
    for row in range(1, count):
        lines = max(column.lines(row) for column in panel)
        if rows and used + lines > LINES - 6:
            yield used + 4, _tabular(panel, rows)
            rows, used = [], 0
        rows.append(row)
        used += lines
    yield used + 4, _tabular(panel, rows)


def _tabular(panel: Sequence[_Column], rows: Sequence[int]) -> str:
    def line(row: int) -> str:
        # An empty group keeps a cell that starts with "[" from becoming the argument of the \\ before it.
        return "{}" + " & ".join(column.latex(row) for column in panel) + r" \\"

    kinds = "".join("l" if column.is_text else "r" for column in panel)
    head = [rf"\begin{{tabular}}{{@{{}}{kinds}@{{}}}}", r"\toprule", line(0), r"\midrule"]
    return "\n".join([*head, *map(line, rows), r"\bottomrule", r"\end{tabular}"])


class LaTeX(Report):
    """``tables/<name>.tex`` for every table."""

    title = "LaTeX tables (booktabs)"

    def write(self, results: Results, to: Path) -> list[Path]:
        """Write ``tables/*.tex`` under ``to``."""
        written = []
        for section, table in all_tables(results):
            prefix = f"{section.slug}-" if section is not None and section.slug else ""
            written.append(write_atomic(to / "tables" / f"{prefix}{table.name}.tex", to_latex(table, prefix)))
        return written
