"""``report.md``: the same tables and charts for a pull request, an issue or a terminal."""

from __future__ import annotations

import re
from pathlib import Path

from bakeoff.contracts import Report

from .analysis.section import Section, sections
from .charts.chart import Chart
from .charts.gallery import charts_of, write_charts
from .claims import claims
from .files import visible, write_atomic
from .flags import flags
from .formats import phrase
from .frame import Results
from .tables.across import tables_of_run
from .tables.data import facts
from .tables.leaderboard import Table, runs, tables_of, tables_under


def escape(text: str) -> str:
    """``text`` as Markdown that shows exactly that: no markup, no HTML, no line break, no column break."""
    line = " ".join(visible(text).split())
    return re.sub(r"([\\`*\[\]|~!])", r"\\\1", line).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class Markdown(Report):
    """``report.md``, with the charts that it links to."""

    title = "Markdown with linked charts"

    def write(self, results: Results, to: Path) -> list[Path]:
        """Write ``report.md`` and ``charts/`` under ``to``."""
        charts = write_charts(results, to)
        return [write_atomic(to / "report.md", self.render(results)), *charts]

    def render(self, results: Results) -> str:
        """The report as text."""
        blocks = [f"# {escape(results.plan['name'])}"]
        if results.plan.get("command"):
            blocks.append(f"`{visible(results.plan['command']).replace('`', '')}`")
        blocks += [
            f"> **{'Not a fair comparison' if flag.blocks else 'Mind'} ({escape(flag.title)}):** {escape(flag.text)}"
            for flag in flags(results)
        ]
        parts = sections(results)
        for table in tables_of_run(results):
            blocks += _table(table)
        for section in parts:
            blocks += _section(section, titled=len(parts) > 1)
        if quotable := claims(results):
            lines = [f"- {escape(claim.text)} `{claim.cell}`" for claim in quotable]
            blocks += ["## Claims to quote", "\n".join(lines)]
        blocks += _table(runs(results))
        return "\n\n".join(blocks) + "\n"


def _section(section: Section, *, titled: bool) -> list[str]:
    questions = charts_of(section)
    blocks = [f"# {escape(section.title)}"] if titled else []
    if questions:
        blocks.append(f"**{escape(next(iter(questions.values()))[0].alt)}**")
    tables = tables_of(section)
    blocks += _table(tables[0])
    for question, charts in questions.items():
        blocks.append(f"## {question}")
        for chart in charts:
            blocks += _chart(chart)
    for table in tables[1:]:
        blocks += _table(table)
        if table.name == "equal":
            blocks += [line for each in tables_under(section) if each.family == "leaderboard" for line in _table(each)]
    if told := facts(section.results, section):
        blocks += ["## Data", "\n".join(f"- {escape(phrase(key))}: {escape(str(told[key]))}" for key in told)]
    return blocks


def _chart(chart: Chart) -> list[str]:
    picture = f"![{escape(chart.alt)}](charts/{chart.name}.svg)"
    return [f"### {escape(chart.title)}", escape(chart.alt), picture, escape(chart.caption)]


def _table(table: Table) -> list[str]:
    rows = [[escape(column.title) for column in table.columns]]
    rows.append(["---" if column.is_text else "---:" for column in table.columns])
    rows += [[escape(cell.plain) for cell in row] for row in table.rows()]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return [f"## {escape(table.title)}", lines, escape(table.caption)]
