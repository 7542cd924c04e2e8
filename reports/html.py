"""One offline HTML file: tables, charts, completions side by side, provenance.

Completions are hostile text. Everything is escaped on the way in, scripts only ever set text, and the content security
policy allows nothing but the one style sheet and the one script of this file, by hash: no network, no frames, no eval.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from bakeoff.contracts import Report

from . import formats
from .analysis.section import Section, sections
from .charts import style
from .charts.chart import Chart
from .charts.gallery import WINNERS, charts_of, charts_under, write_charts
from .claims import bibtex, claims, claims_under
from .files import slug, visible, write_atomic
from .flags import PENDING, flags
from .frame import Results
from .page.browser import completions
from .page.card import card
from .page.methods import METHODS, method_of, method_of_chart
from .page.svg import glyph, inline, strip
from .tables.across import tables_of_run
from .tables.leaderboard import tables_of, tables_under
from .tables.ledgers import runs
from .tables.table import Column, Table

PAGE = Path(__file__).parent / "page"
SCRIPTS = ("browser.js", "page.js")
AXES = {"steps": "steps", "tokens_trained": "tokens trained", "tokens_generated": "tokens generated",
        "flops": "FLOPs", "seconds": "seconds"}  # fmt: skip
"""The currencies in which the page asks "equal by what?", and their names."""
MAIN = ("leaderboard", "verdicts", "pairwise", "data", "equal")
"""Tables with a place of their own; the card has the data."""
ROWS = 200
"""Of a chart's data that the page shows: a chart of every prompt would fill it."""


class HTML(Report):
    """``index.html``, and the charts beside it as files."""

    title = "One offline page"

    def write(self, results: Results, to: Path) -> list[Path]:
        """Write ``index.html`` and ``charts/`` under ``to``."""
        return [write_atomic(to / "index.html", self.render(results)), *write_charts(results, to)]

    def render(self, results: Results) -> str:
        """The page as text."""
        look = Markup((PAGE / "page.css").read_text("utf-8"))
        script = Markup("\n".join((PAGE / name).read_text("utf-8") for name in SCRIPTS))
        parts = sections(results)
        return _environment().get_template("page.html.j2").render(
            results=results,
            plan=results.plan,
            parts=[_part(section) for section in parts],
            counts=_counts(results.cells),
            across=tables_of_run(results),
            runs=runs(results),
            flags=flags(results),
            troubles=_troubles(results),
            card=card(results),
            claims={"": claims(results)} | claims_under(results),
            bibtex=bibtex(results),
            methods=METHODS,
            axes=AXES,
            data={"parts": completions(parts)},
            style=look,
            script=script,
            policy=(
                f"default-src 'none'; style-src {_hash(look)}; script-src {_hash(script)}; "
                "base-uri 'none'; form-action 'none'"
            ),
        )  # fmt: skip


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    made.policies["json.dumps_kwargs"] = {"sort_keys": False}  # scores stay in the order of importance
    made.filters |= {"phrase": formats.phrase, "slug": slug}
    made.globals |= {"method_of": method_of, "owners_of": _owners}
    return made


def _counts(cells: pd.DataFrame) -> dict[str, int]:
    """How many of what a run compares, by the word for it."""
    controls = cells["is_control"].astype(bool)
    names = {"algorithm": cells.loc[~controls, "algorithm"], "control": cells.loc[controls, "algorithm"]}
    return {word: column.nunique() for word, column in (names | {"seed": cells["seed"]}).items()}


def _owners(table: Table) -> list[str]:
    """Whose row each one is; empty where a table's rows are no algorithm's."""
    key = next((key for key in ("algorithm", "a") if key in table.frame), None)
    return [str(name) for name in table.frame[key]] if key else [""] * len(table.frame)


def _hash(text: str) -> str:
    """A content security policy's source for one inline element."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@dataclass(frozen=True)
class Panel:
    """What stands in one place of the page: a chart, or several that differ in the axis alone."""

    title: str
    figures: tuple[dict[str, Any], ...]
    wide: bool
    ranked: bool
    """Whether the figures are one chart as run and under an equal amount of each currency."""


def _part(section: Section) -> dict[str, Any]:
    """What the template shows of a section."""
    tables = {table.name: table for table in tables_of(section)}
    questions = charts_of(section)
    looks = style.looks(list(dict.fromkeys(section.results.cells["algorithm"])), section.baseline)
    first = next(iter(questions.values()), ())
    return {
        "section": section,
        "anchor": section.slug or "results",
        "tables": tables,
        "questions": {
            question: _panels((*charts, *(charts_under(section) if question == WINNERS else ())), section.slug)
            for question, charts in questions.items()
        },
        "headline": first[0].alt if first else "No cell of this comparison has finished yet.",
        "glyphs": {name: glyph(look) for name, look in looks.items()},
        "strips": {each.currency: _strips(each, looks) for each in (section, *section.equal_by.values())},
        "stripped": "delta" if section.baseline is not None else "primary",
        "equal": section.equal_by,
        "under": _by_family(tables_under(section)),
        "more": [table for name, table in tables.items() if name not in MAIN],
        "definitions": list(section.metrics.values()),
    }


def _by_family(tables: list[Table]) -> dict[str, list[Table]]:
    """Tables under an equal amount, by the name of the one as run that they can stand for."""
    found: dict[str, list[Table]] = {}
    for table in tables:
        found.setdefault(table.family, []).append(table)
    return found


def _panels(charts: tuple[Chart, ...], prefix: str) -> list[Panel]:
    """Charts in order; those of a family that differ in their axis share a panel."""
    families: dict[str, list[Chart]] = {}
    for chart in charts:
        families.setdefault(chart.family, []).append(chart)
    figures = {family: tuple(_figure(chart, prefix) for chart in members) for family, members in families.items()}
    return [
        Panel(family, figures[family], members[0].wide, not members[0].axis) for family, members in families.items()
    ]


def _figure(chart: Chart, prefix: str) -> dict[str, Any]:
    """A chart with its SVG, its data as a table, and its method; ``prefix`` is what its section's names begin with."""
    numeric = pd.api.types.is_numeric_dtype
    names = [str(name) for name in chart.data]
    columns = tuple(Column(name, name, "number" if numeric(chart.data[name]) else "text") for name in names)
    shown = chart.data.head(ROWS)
    caption = f"The first {ROWS} of {len(chart.data)} rows; all are in tables/chart-{chart.name}.csv."
    table = Table(f"chart-{chart.name}", chart.title, caption if len(shown) < len(chart.data) else "", shown, columns)
    method = method_of_chart(chart.name.removeprefix(f"{prefix}-") if prefix else chart.name)
    return {"chart": chart, "svg": inline(chart), "table": table, "method": method}


def _strips(section: Section, looks: dict[str, style.Look]) -> dict[str, Markup]:
    """Each algorithm's gain, or mean where there is no baseline, as a dot with its interval on one common scale."""
    estimates = {name: effect.difference for name, effect in section.effects.items()}
    if not estimates:
        means = {name: section.estimate(name, section.primary.name) for name in section.ranked}
        estimates = {name: estimate for name, estimate in means.items() if estimate is not None}
    drawn = {name: (e.mean, e.low, e.high) for name, e in estimates.items() if not formats.is_missing(e.low)}
    if not drawn:
        return {}
    within = (min(0.0, *(low for _, low, _ in drawn.values())), max(0.0, *(high for *_, high in drawn.values())))
    return {name: strip(*ends, within, looks[name]) for name, ends in drawn.items()}


def _troubles(results: Results) -> list[str]:
    """What a reader must know first and no flag says: cells without a result, a proxy for the gold reward."""
    counts = results.cells["status"].value_counts()
    waiting = {str(status): count for status, count in counts.items() if status in PENDING and status != "ok"}
    notes = []
    if waiting:
        lost, told = sum(waiting.values()), (f"{n} {status.replace('_', ' ')}" for status, n in waiting.items())
        notes.append(f"{lost} of {sum(counts)} cells {'has' if lost == 1 else 'have'} no result: {', '.join(told)}.")
    for section in sections(results):
        if section.primary.note:
            notes.append(f"{section.title}: {formats.phrase(section.primary.name)}, {section.primary.note}.")
    return notes
