"""report.md."""

import re

from bakeoff.reports.analysis.section import sections
from bakeoff.reports.charts.gallery import charts_of
from bakeoff.reports.formats import phrase
from bakeoff.reports.markdown import Markdown, escape


def test_report_has_the_tables_and_links_charts_that_exist(results, tmp_path):
    """Every chart as run is linked to a file beside it, each currency has its leaderboard, and no row breaks."""
    written = Markdown().write(results, tmp_path)
    text = written[0].read_text()
    links = re.findall(r"\]\((charts/[^)]+)\)", text)
    (section,) = sections(results)
    assert links == [f"charts/{chart.name}.svg" for charts in charts_of(section).values() for chart in charts]
    assert all((tmp_path / link).is_file() for link in links)
    for equal in ("", *(f", equal {phrase(currency)}" for currency in section.equal_by)):
        assert f"## Leaderboard{equal}\n" in text
    assert "## All runs" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    board = rows[: next(i for i, row in enumerate(rows) if row.startswith("| row against"))]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in board}) == 1


def test_text_cannot_become_markup():
    """Pipes, HTML, links, emphasis and line breaks in a label are shown, not obeyed."""
    assert escape("a|b\n<b> [x](y) *z* `c` \u202e&") == r"a\|b &lt;b&gt; \[x\](y) \*z\* \`c\` \u202e&amp;".replace(
        r"\u202e", "\\\\u202e"
    )


def test_failed_cells_and_parity_are_in_the_text(run, tmp_path):
    """The failure's reason is escaped and there; a cell that is locked out is announced above all numbers."""
    run.edit(run.path("dpo", 1) / "cell.json", parity={"device": "cuda"})
    text = Markdown().render(run.results())
    assert "&lt;b&gt;of 8&lt;/b&gt;" in text
    assert text.index("dpo seed 1 is left out") < text.index("## Leaderboard")
