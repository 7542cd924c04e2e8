"""One offline HTML file: tables, charts, completions side by side, provenance.

Completions are hostile text. Everything is escaped on the way in, scripts only ever set text, and the content security
policy allows nothing but the one style sheet and the one script of this file, by hash: no network, no frames, no eval.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any, ClassVar

import jinja2
import pandas as pd
from markupsafe import Markup

from bakeoff.contracts import Report
from bakeoff.errors import StoreError

from . import formats
from .analysis import Section, sections
from .browser import completions
from .charts import Chart, charts_of, write_charts
from .data import facts
from .files import visible, write_atomic
from .frame import Results
from .svg import inline
from .tables import Column, Table, runs, tables_of

HERE = Path(__file__).parent


class HTML(Report):
    """``index.html``, and the charts beside it as files."""

    title = "One offline page"
    templates: ClassVar[dict[str, str]] = {"page": "page.html.j2", "style": "page.css", "script": "page.js"}

    def write(self, results: Results, to: Path) -> list[Path]:
        """Write ``index.html`` and ``charts/`` under ``to``."""
        return [write_atomic(to / "index.html", self.render(results)), *write_charts(results, to)]

    def render(self, results: Results) -> str:
        """The page as text."""
        style, script = (Markup((HERE / self.templates[name]).read_text("utf-8")) for name in ("style", "script"))
        parts = sections(results)
        return _environment().get_template(self.templates["page"]).render(
            results=results,
            plan=results.plan,
            environment=_environment_of(results),
            parts=[_part(section) for section in parts],
            runs=runs(results),
            parity=_parity(results),
            troubles=_troubles(results),
            data=_data(results, parts),
            completions=completions(parts),
            style=style,
            script=script,
            policy=(
                f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
                "base-uri 'none'; form-action 'none'"
            ),
        )  # fmt: skip


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    made.policies["json.dumps_kwargs"] = {"sort_keys": False}  # scores stay in the order of importance
    made.filters["phrase"] = formats.phrase
    return made


def _hash(text: str) -> str:
    """A content security policy's source for one inline element."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _part(section: Section) -> dict[str, Any]:
    """What the template shows of a section."""
    tables = {table.name: table for table in tables_of(section)}
    charts = charts_of(section)
    curves = [chart for chart in charts if "Learning curve" in chart.title]
    costs = [chart for chart in charts if "against" in chart.title]
    return {
        "section": section,
        "anchor": section.slug or "results",
        "tables": tables,
        "lead": [_figure(chart) for chart in charts if chart not in curves and chart not in costs],
        "switched": [
            {"name": "Learning curves", "by": "budget axis", "charts": [_figure(c) for c in _by(curves, "flops")]},
            {"name": "Cost against gain", "by": "cost", "charts": [_figure(c) for c in costs]},
        ],
        "headline": charts[0].alt if charts else "No cell of this comparison has finished yet.",
        "definitions": list(section.metrics.values()),
    }


def _by(charts: list[Chart], first: str) -> list[Chart]:
    return sorted(charts, key=lambda chart: not chart.name.endswith(first))


def _figure(chart: Chart) -> dict[str, Any]:
    """A chart with its SVG and its data as a table."""
    numeric = pd.api.types.is_numeric_dtype
    names = [str(name) for name in chart.data]
    columns = tuple(Column(name, name, "number" if numeric(chart.data[name]) else "text") for name in names)
    table = Table(chart.name, chart.title, "", chart.data, columns)
    axis = chart.title.removeprefix("Learning curve by ").removeprefix("Gain against ")
    return {"chart": chart, "svg": inline(chart), "table": table, "axis": axis}


def _environment_of(results: Results) -> dict[str, Any]:
    try:
        return results.environment
    except StoreError as error:
        return {"missing": str(error)}


def _parity(results: Results) -> list[dict[str, Any]]:
    """The parity problems: field, and for each value the cells that have it, the most common value in short."""
    names = {row.id: f"{row.algorithm} seed {row.seed}" for row in results.cells.itertuples()}
    problems = []
    for name, values in results.parity():
        most = max(values, key=lambda value: len(values[value]))
        cells = {value: ", ".join(names[i] for i in ids) for value, ids in values.items()}
        problems.append({"field": name, "values": cells | {most: f"the other {len(values[most])}"}})
    return problems


def _troubles(results: Results) -> list[str]:
    """What a reader must know before any number: cells that are missing, few seeds, a proxy for the gold reward."""
    counts = results.cells["status"].value_counts()
    missing = [f"{count} {str(status).replace('_', ' ')}" for status, count in counts.items() if status != "ok"]
    notes = []
    if missing:
        lost = sum(counts) - counts.get("ok", 0)
        notes.append(f"{lost} of {sum(counts)} cells {'has' if lost == 1 else 'have'} no result: {', '.join(missing)}.")
    for section in sections(results):
        if section.primary.note:
            notes.append(f"{section.title}: {formats.phrase(section.primary.name)}, {section.primary.note}.")
    return notes


def _data(results: Results, parts: tuple[Section, ...]) -> list[dict[str, Any]]:
    """What each section's cells say about their data."""
    told = [(section.title, facts(results, section)) for section in parts]
    return [{"title": title, "items": items} for title, items in told if items]
