"""The leaderboard as a rich table: what ``bakeoff run`` ends with."""

from __future__ import annotations

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from .analysis.section import Section, sections
from .files import visible
from .flags import Flag, flags
from .frame import Results
from .tables import leaderboard as tables

NARROW = ("algorithm", "role", "seeds", "primary", "delta", "verdict", "win_rate", "kl", "length_ratio", "seconds")
"""The leaderboard's columns that a terminal has room for; the report has all."""
WITH_INTERVAL = ("primary", "delta")
STYLES = {"win": "bold green", "loss": "bold red", "open": "dim", "missing": "dim"}


def leaderboard(results: Results) -> RichTable:
    """The leaderboards of a run, one below the other: one a model, task and budget; then its red flags."""
    stack = RichTable.grid(padding=(0, 0, 1, 0))
    for section in sections(results):
        stack.add_row(_leaderboard(section))
    found = flags(results)
    if found:
        stack.add_row(Text("\n").join(_flag(flag) for flag in found))
    return stack


def _flag(flag: Flag) -> Text:
    style = "bold red" if flag.blocks else "yellow"
    return Text.assemble((f"{visible(flag.title)}: ", style), visible(flag.text))


def _leaderboard(section: Section) -> RichTable:
    table = tables.leaderboard(section)
    shown = [index for index, column in enumerate(table.columns) if column.key in NARROW]
    made = RichTable(
        title=Text(visible(section.title), style="bold"),
        title_justify="left",
        caption=Text(visible(tables.full_names(section))),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for index in shown:
        column = table.columns[index]
        made.add_column(Text(visible(column.title), style="dim"), justify="left" if column.is_text else "right")
    for row in table.rows():
        made.add_row(*[_text(row[index], interval=table.columns[index].key in WITH_INTERVAL) for index in shown])
    return made


def _text(cell: tables.Cell, *, interval: bool) -> Text:
    # Text, not str: a label must not be read as rich markup.
    text = Text(visible(cell.text), style=STYLES.get(cell.tone, ""))
    return text.append(f" {visible(cell.detail)}", style="dim") if cell.detail and interval else text
