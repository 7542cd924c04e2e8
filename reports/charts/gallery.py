"""Every chart of a section, in the order in which a report asks its questions, and their files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..analysis.section import Section, sections
from ..files import write_atomic
from ..frame import Results
from . import across, design, drift, effects, judges, prompts, reward, training
from . import robustness as looks
from .chart import Chart
from .style import COLUMN, PAGE, Canvas

Draw = Callable[..., Chart | None]
WINNERS = "Who wins, and how sure is that?"
"""The question that is answered under an equal amount of each currency too."""
QUESTIONS: dict[str, tuple[Draw, ...]] = {
    WINNERS: (effects.forest, effects.versus, effects.wins, effects.seeds),
    "At what price?": (
        training.frontier,
        drift.profile,
        *(partial(training.learning_curve, axis=axis) for axis in training.AXES),
        *(partial(training.cost, axis=axis) for axis in training.COSTS),
    ),
    "Is the gain real?": (
        prompts.gains,
        prompts.distribution,
        reward.over_optimisation,
        training.proxy,
        training.efficiency,
        prompts.completion_lengths,
        prompts.lengths,
        design.best_of,
        reward.reliability,
        *(partial(judges.audit, number=number) for number in range(judges.MOST)),
    ),
    "What would more data say, or another look?": (
        design.variance,
        design.power,
        looks.robustness,
        across.profiles,
    ),
}
"""What a reader asks, and the charts that answer."""


def charts_of(section: Section, canvas: Canvas = PAGE) -> dict[str, tuple[Chart, ...]]:
    """The charts of a section as run that its data allow, by question, drawn once a canvas."""
    key = f"charts {section.slug} {canvas}"
    if key not in section.results.memo:
        drawn = {question: _draw(section, draws, canvas) for question, draws in QUESTIONS.items()}
        section.results.memo[key] = {question: charts for question, charts in drawn.items() if charts}
    made: dict[str, tuple[Chart, ...]] = section.results.memo[key]
    return made


def charts_under(section: Section, canvas: Canvas = PAGE) -> tuple[Chart, ...]:
    """Who wins, under an equal amount of each currency; drawn once a canvas. A paper's column has the gains alone."""
    key = f"charts under {section.slug} {canvas}"
    if key not in section.results.memo:
        draws = (effects.forest,) if canvas == COLUMN else QUESTIONS[WINNERS]
        drawn = [_draw(equal, draws, canvas) for equal in section.equal_by.values()]
        section.results.memo[key] = tuple(chart for charts in drawn for chart in charts)
    made: tuple[Chart, ...] = section.results.memo[key]
    return made


def _draw(section: Section, draws: tuple[Draw, ...], canvas: Canvas) -> tuple[Chart, ...]:
    if not section.finished:
        return ()
    charts = (draw(section, canvas=canvas) for draw in draws)
    return tuple(chart for chart in charts if chart is not None)


def all_charts(section: Section, canvas: Canvas = PAGE) -> list[Chart]:
    """``charts_of`` as one list, and ``charts_under``."""
    as_run = [chart for charts in charts_of(section, canvas).values() for chart in charts]
    return [*as_run, *charts_under(section, canvas)]


def write_charts(results: Results, to: Path) -> list[Path]:
    """Write ``charts/<name>.svg`` and ``.png`` of every section under ``to``."""
    written = []
    for section in sections(results):
        for chart in all_charts(section):
            written.append(write_atomic(to / "charts" / f"{chart.name}.svg", chart.svg))
            written.append(write_atomic(to / "charts" / f"{chart.name}.png", chart.png))
    return written


def write_column_charts(results: Results, to: Path) -> list[Path]:
    """Write ``charts/<name>.pdf`` of every section under ``to``: one column of a paper wide, text as vectors."""
    return [
        write_atomic(to / "charts" / f"{chart.name}.pdf", chart.pdf)
        for section in sections(results)
        for chart in all_charts(section, COLUMN)
    ]
