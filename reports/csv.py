"""``tables/*.csv``: every number behind every table and chart, unrounded, safe to open in a spreadsheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from bakeoff.contracts import Report

from .analysis.section import sections
from .charts.gallery import all_charts
from .files import visible, write_atomic
from .frame import Results
from .tables.leaderboard import all_tables


def guard(value: Any) -> Any:
    """``value`` so that no spreadsheet takes it for a formula: text that starts like one gets a leading quote.

    Numbers, also those written as text, stay; invisible characters are escaped.
    """
    if not isinstance(value, str):
        return value
    if value.startswith(("=", "+", "-", "@", "\t", "\r")) and not _is_number(value):
        return "'" + visible(value)
    return visible(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()


def to_csv(frame: pd.DataFrame) -> str:
    """``frame`` as CSV with guarded cells and column names."""
    return frame.map(guard).rename(columns=guard).to_csv(index=False, lineterminator="\n")


class CSV(Report):
    """``tables/<name>.csv`` for every table, and ``tables/chart-<name>.csv`` for every chart's data."""

    title = "CSV tables"

    def write(self, results: Results, to: Path) -> list[Path]:
        """Write ``tables/*.csv`` under ``to``."""
        frames = {}
        for section, table in all_tables(results):
            prefix = f"{section.slug}-" if section is not None and section.slug else ""
            frames[f"{prefix}{table.name}"] = table.frame
        for section in sections(results):
            frames |= {f"chart-{chart.name}": chart.data for chart in all_charts(section)}
        return [write_atomic(to / "tables" / f"{name}.csv", to_csv(frame)) for name, frame in frames.items()]
