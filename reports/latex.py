"""``tables/*.tex``: booktabs tables to ``\\input`` in a paper."""

from __future__ import annotations

import re
from pathlib import Path

from bakeoff.contracts import Report

from .files import visible, write_atomic
from .frame import Results
from .tables.leaderboard import Table, all_tables

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "−": "$-$", "–": "--", "Δ": r"$\Delta$", "×": r"$\times$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$", "·": r"$\cdot$", "…": r"\ldots{}",
    "≤": r"$\leq$", "≥": r"$\geq$", "±": r"$\pm$", "√": r"$\surd$", "²": r"$^2$", "≈": r"$\approx$", "β": r"$\beta$",
    "\u2009": r"\,", "\u00a0": "~", "’": "'", "‘": "`", "“": "``", "”": "''", "—": "---",
}  # fmt: skip
"""What LaTeX would read as a command or cannot print, and what to write instead."""


def escape(text: str) -> str:
    """``text`` as LaTeX that prints exactly that."""
    line = re.sub(r"[ \t\n]+", " ", visible(text)).strip()
    return re.sub("|".join(map(re.escape, SPECIAL)), lambda match: SPECIAL[match[0]], line)


def to_latex(table: Table, prefix: str = "") -> str:
    """A ``table`` environment with caption and label ``tab:<prefix><name>``; needs ``\\usepackage{booktabs}``."""
    rows = [[escape(cell.text) + (rf" {{\small {escape(cell.detail)}}}" if cell.detail else "") for cell in row]
            for row in table.rows()]  # fmt: skip
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(table.title)}. {escape(table.caption)}}}",
        rf"\label{{tab:{prefix}{table.name}}}",
        rf"\begin{{tabular}}{{{''.join('l' if column.is_text else 'r' for column in table.columns)}}}",
        r"\toprule",
        " & ".join(escape(column.title) for column in table.columns) + r" \\",
        r"\midrule",
        # An empty group keeps a cell that starts with "[" from becoming the argument of the \\ before it.
        *("{}" + " & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


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
