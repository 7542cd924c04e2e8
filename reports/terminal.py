"""The leaderboard as a rich table: what ``bakeoff run`` ends with."""

from __future__ import annotations

from rich.table import Table as RichTable
from rich.text import Text

from . import tables
from .analysis import sections
from .files import visible
from .frame import Results

NARROW = ("algorithm", "seeds", "primary", "delta", "verdict", "win_rate", "kl", "length_tokens", "flops", "seconds")
"""The leaderboard's columns that fit a terminal."""
STYLES = {"win": "bold green", "loss": "bold red", "open": "dim", "missing": "dim"}


def leaderboard(results: Results) -> RichTable:
    """The leaderboard of every section of a run, one below the other in one table.

    Sections that measure the same columns share them; a column that one lacks is a dash there.
    """
    parts = [(section, tables.leaderboard(section)) for section in sections(results)]
    shown = {column.key: column for _, table in parts for column in table.columns if column.key in NARROW}
    made = RichTable(title=Text(visible(results.plan["name"])), title_justify="left", header_style="dim", box=None)
    for key in NARROW:
        if key in shown:
            column = shown[key]
            made.add_column(Text(visible(column.title)), justify="left" if column.is_text else "right", no_wrap=True)
    order = [key for key in NARROW if key in shown]
    for section, table in parts:
        if len(parts) > 1:
            made.add_row(Text(visible(section.title), style="bold underline"), *[""] * (len(order) - 1))
        keys = [column.key for column in table.columns]
        for row in table.rows():
            cells = dict(zip(keys, row, strict=True))
            made.add_row(*[_text(cells.get(key)) for key in order])
        made.add_section()
    return made


def _text(cell: tables.Cell | None) -> Text:
    if cell is None:
        return Text("–", style="dim")
    text = Text(visible(cell.text), style=STYLES.get(cell.tone, ""))
    return text.append(f" {visible(cell.detail)}", style="dim") if cell.detail else text
