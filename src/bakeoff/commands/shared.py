"""What commands share: common options, and how tables, JSON and remarks are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

WIDTH_PIPED = 140
"""Columns of the leaderboard where there is no terminal to be as wide as."""

Runs = Annotated[Path | None, typer.Option("--runs", help="Where runs are kept: ./runs, or $BAKEOFF_RUNS.")]
Run = Annotated[str | None, typer.Argument(metavar="[NAME|DIR]", help="A run; the last one unless said.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def say(text: str) -> None:
    """Beside the output that programs read."""
    print(text, file=sys.stderr)


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, default=str))


def print_table(title: str, columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> None:
    """A table as wide as the terminal; when piped, as wide as its content, so that grep finds whole lines."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console()
    if console.is_terminal:
        console.print(table)
        return
    wide = Console(width=10_000)
    with wide.capture() as captured:
        wide.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())
