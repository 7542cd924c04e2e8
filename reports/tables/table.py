"""A table: a frame of raw numbers and a declaration of how each column reads.

HTML, Markdown, LaTeX, CSV and the terminal all print these and nothing else, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from .. import formats
from ..files import slug
from ..statistics import Estimate

if TYPE_CHECKING:
    from ..analysis.section import Section

Kind = Literal[
    "text", "verdict", "status", "whole", "number", "signed", "percent", "share", "si", "size", "duration", "p"
]
TEXT_KINDS = ("text", "verdict", "status")
PLAIN: dict[str, Callable[[float], str]] = {
    "whole": formats.whole,
    "percent": formats.percent,
    "share": lambda value: formats.percent(value, 1),
    "si": formats.si,
    "size": formats.size,
    "duration": formats.duration,
    "p": formats.p_value,
}
ROLE = "a control is held against the others and wins nothing"
ARROWS = {"higher": "\u00a0↑", "lower": "\u00a0↓", "none": ""}
TONES = {
    "WIN": "win",
    "LOSS": "loss",
    "EQUIVALENT": "open",
    "descriptive:": "open",
    "INCONCLUSIVE": "open",
    "ok": "",
    "running": "open",
    "not_run": "open",
    "incompatible": "open",
}


@dataclass(frozen=True)
class Column:
    """How one column of a table reads. With ``interval`` the frame also has ``<key>_low`` and ``<key>_high``."""

    key: str
    title: str
    kind: Kind = "text"
    interval: bool = False
    help: str = ""
    mark: str = ""
    """A column of the frame with what stands before the number, e.g. "≤" for a bound; empty for none."""

    @property
    def is_text(self) -> bool:
        return self.kind in TEXT_KINDS


class Cell(NamedTuple):
    """A formatted value: what is read first, the interval behind it, what to sort by, and a tone for colour."""

    text: str
    detail: str
    order: float | str
    tone: str

    @property
    def plain(self) -> str:
        return f"{self.text} {self.detail}".rstrip()


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of ``frame`` shown by ``columns``. The frame may hold more columns than are shown: CSV writes them all."""

    name: str
    """Of its file, without the section's prefix; ``family`` and, under an equal amount, the currency."""
    title: str
    caption: str
    frame: pd.DataFrame
    columns: tuple[Column, ...]
    currency: str = ""
    """What all had spent the same of; empty for a table of the run as it was."""

    def of(self, section: Section) -> Table:
        """This table as one of ``section``: named for the currency where that is one under an equal amount."""
        return replace(
            self,
            name=self.name + section.suffix,
            title=self.title + section.under,
            caption=section.preface + self.caption,
            currency=section.currency,
        )

    @property
    def family(self) -> str:
        """The name of the table of which this is one under an equal amount; its own where it is as run."""
        return self.name.removesuffix(f"-{self.currency}") if self.currency else self.name

    def cell_id(self, row: int, key: str) -> str:
        """What a cell is called, in the page and in claims: table, row from 1 as in the CSV file, column."""
        return f"{self.name}-{row}-{slug(key)}"

    def rows(self) -> list[list[Cell]]:
        """The formatted cells, row by row; none where the frame has no row, whatever its columns."""
        if self.frame.empty:
            return []
        by_column = [self._format(column) for column in self.columns]
        return [list(row) for row in zip(*by_column, strict=True)]

    def _format(self, column: Column) -> list[Cell]:
        values = self.frame[column.key]
        if column.is_text:
            texts = ["" if formats.is_missing(value) else str(value) for value in values]
            words = [text.split(" ")[0] for text in texts]
            toned = column.kind != "text"
            tones = [TONES.get(word, "loss" if column.kind == "status" else "") if toned else "" for word in words]
            return [Cell(text or formats.MISSING, "", text, tone) for text, tone in zip(texts, tones, strict=True)]
        blank = pd.Series(np.nan, index=values.index)
        low = self.frame[f"{column.key}_low"] if column.interval else blank
        high = self.frame[f"{column.key}_high"] if column.interval else blank
        places, sign = formats.decimals(values), column.kind == "signed"
        marks = self.frame[column.mark] if column.mark else pd.Series("", index=values.index)
        cells = []
        numbers = (values.astype(float), low.astype(float), high.astype(float))
        for value, lower, upper, mark in zip(*numbers, marks, strict=True):
            if column.kind in PLAIN:
                shown = PLAIN[column.kind]
                text = shown(value)
                ends = not (formats.is_missing(lower) or formats.is_missing(upper))
                detail = f"[{shown(lower).removesuffix('%')}, {shown(upper).removesuffix('%')}]" if ends else ""
            else:
                text = formats.fixed(value, places, sign=sign)
                detail = formats.span(lower, upper, places, sign=sign)
            missing = text == formats.MISSING
            cells.append(Cell(text if missing else f"{mark}{text}", detail, value, "missing" if missing else ""))
        return cells


def spread(key: str, estimate: Estimate | None) -> dict[str, Any]:
    """The columns of an estimate: ``key``, ``key_low``, ``key_high``; NaN where there is none."""
    if estimate is None:
        return bounds(key, (np.nan, np.nan, np.nan))
    return bounds(key, (estimate.mean, estimate.low, estimate.high))


def bounds(key: str, interval: tuple[float, float, float]) -> dict[str, float]:
    """The same columns of a value and its interval."""
    return dict(zip((key, f"{key}_low", f"{key}_high"), interval, strict=True))
