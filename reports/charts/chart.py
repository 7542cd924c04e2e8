"""What a chart is: a figure of one section, the numbers on it, its finding in words, and marks to point at.

Charts are drawn from a ``Section``'s estimates alone and state their finding in ``alt``, computed from the same
rows that ``data`` shows. ``gallery.py`` lists them by question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .. import formats
from ..analysis.findings import Rows
from ..analysis.section import Section
from ..files import slug
from ..tables.leaderboard import interval_note
from . import style
from .style import COLUMN, PAGE, PAPER, Canvas, Ending, Look


class Mark(NamedTuple):
    """What an element of a chart stands for. The page dims it with its algorithm, shows ``tip``, opens the prompt."""

    algorithm: str
    tip: str = ""
    """What a reader sees on pointing at it; empty for a part that is not pointed at."""
    seed: int | None = None
    prompt: str = ""


OUTLOOK = 0.75
"""How far beyond what it is of an interval is drawn, in spans of what is drawn."""
CUT = " An interval that leaves the picture goes on beyond it; its ends are in the data."


@dataclass(frozen=True, eq=False)
class Chart:
    """A drawn chart. ``name`` is its file name without suffix; ``data`` is every number that it shows."""

    name: str
    title: str
    alt: str
    caption: str
    data: pd.DataFrame
    marks: dict[str, Mark]
    """By the id of the element in the SVG."""
    figure: Figure
    family: str
    """What a page calls it: the title, or that of all charts which differ from it in their axis alone."""
    axis: str
    """What it is read against, of its family: "flops"; empty for a family's first or only chart."""

    @property
    def wide(self) -> bool:
        """Whether it leads its part of the page."""
        return bool(self.figure.get_figwidth() > PAGE.width)

    @cached_property
    def svg(self) -> str:
        return style.render(self.figure, "svg").decode()

    @cached_property
    def png(self) -> bytes:
        return style.render(self.figure, "png")

    @cached_property
    def pdf(self) -> bytes:
        return style.render(self.figure, "pdf")


class Drawing:
    """A chart in the making."""

    def __init__(self, section: Section, canvas: Canvas, figure: Figure, panels: list[Axes]) -> None:
        self.section, self.canvas, self.figure, self.panels = section, canvas, figure, panels
        self.axes = panels[0]
        self.looks: dict[str, Look] = style.looks(
            list(dict.fromkeys(section.results.cells["algorithm"])), section.baseline
        )
        self.rows: Rows = []
        self.marks: dict[str, Mark] = {}
        self.endings: list[Ending] = []
        self.cut = False
        """Whether an interval goes on beyond the axes."""

    @property
    def size(self) -> float:
        """The scale of lines and markers."""
        return self.canvas.scale

    def label(self, prefix: str = "", suffix: str = "") -> str:
        """The primary metric as an axis label, with its unit where there is room."""
        metric = self.section.metrics.get(self.section.primary.name)
        unit = f" ({metric.unit})" if metric and metric.unit and self.canvas != COLUMN else ""
        return f"{prefix}{formats.phrase(self.section.primary.name)}{suffix}{unit}{better(self.section)}"

    def gid(self, mark: Mark) -> str:
        """The id for an element that stands for ``mark``."""
        name = f"m{len(self.marks)}"
        self.marks[name] = mark
        return name

    def tag(self, artist: Artist, algorithm: str, tip: str = "", *, seed: int | None = None, prompt: str = "") -> None:
        """Say whose an artist is, and what a reader sees on pointing at it."""
        artist.set_gid(self.gid(Mark(algorithm, tip, seed, prompt)))

    def line(self, algorithm: str, xs: Any, ys: Any, axes: Axes | None = None, **style: Any) -> None:
        """A line in the algorithm's colour that nobody points at."""
        own = {"color": self.looks[algorithm].colour, "solid_capstyle": "round"}
        (artist,) = (axes or self.axes).plot(xs, ys, **(own | style))
        self.tag(artist, algorithm)

    def band(self, algorithm: str, xs: Any, low: Any, high: Any, axes: Axes | None = None) -> None:
        """An interval along a line."""
        colour = self.looks[algorithm].colour
        self.tag((axes or self.axes).fill_between(xs, low, high, color=colour, alpha=0.1, linewidth=0), algorithm)

    def dot(
        self, algorithm: str, x: float, y: float, tip: str, axes: Axes | None = None, *, size: float = 6.0,
        hollow: bool = False, marker: str = "", seed: int | None = None, prompt: str = "", **style: Any,
    ) -> None:  # fmt: skip
        """A marker that a reader can point at."""
        look = self.looks[algorithm]
        own: dict[str, Any] = {"color": look.colour, "markersize": size * self.size, "linestyle": "none"}
        own |= {"markerfacecolor": "none"} if hollow else {"markeredgecolor": PAPER}
        (artist,) = (axes or self.axes).plot(x, y, marker or look.marker, **(own | style))
        self.tag(artist, algorithm, tip, seed=seed, prompt=prompt)

    def text(self, algorithm: str, text: str, x: float, y: float, axes: Axes | None = None, **style: Any) -> None:
        """A label in the algorithm's colour."""
        own = {"color": self.looks[algorithm].colour, "fontsize": "small"}
        self.tag((axes or self.axes).text(x, y, text, **(own | style)), algorithm)

    def beside(self, algorithm: str, text: str, y: float, align: str, **style: Any) -> None:
        """Text to the right of the axes, at the height ``y`` of the data."""
        artist = self.axes.annotate(
            text, (1.02, y), xycoords=("axes fraction", "data"), va=align, fontsize="small", annotation_clip=False,
            **style,
        )  # fmt: skip
        self.tag(artist, algorithm)

    def row_names(self, names: Sequence[str], axes: Axes | None = None) -> None:
        """Algorithms down the y axis, the first at 0."""
        axes = axes or self.axes
        axes.set_yticks(range(len(names)), names, fontweight="bold")
        for label, name in zip(axes.get_yticklabels(), names, strict=True):
            self.tag(label, name)
        axes.set_ylim(-0.6, len(names) - 0.35)
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)

    def end(self, algorithm: str, x: float, y: float) -> None:
        """Where a series ends, to be named there by ``name_ends``."""
        gid = self.gid(Mark(algorithm))
        self.endings.append(Ending(x, y, algorithm, self.looks[algorithm].colour, gid))

    def name_ends(self, avoid: Sequence[tuple[float, ...]] = (), axes: Axes | None = None) -> None:
        """Name each series at its end, clear of the lines ``avoid``; in a legend where there is no room."""
        style.label_ends(self.figure, axes or self.axes, self.endings, avoid, self.handles())

    def focus(self, which: str, points: Sequence[float], ends: Sequence[float]) -> None:
        """Limits of the "x" or "y" axis that show all ``points``, and the ``ends`` of intervals where there is room.

        Intervals of two seeds can be twenty times as wide as what they are of; the caption says where they are cut.
        """
        low, high = min(points), max(points)
        room = OUTLOOK * ((high - low) or 0.1 * abs(high) or 1.0)
        known = [end for end in ends if np.isfinite(end)]
        shown = max(min([low, *known]), low - room), min(max([high, *known]), high + room)
        self.cut |= shown != (min([low, *known]), max([high, *known]))
        pad = 0.05 * (shown[1] - shown[0] or 1.0)
        (self.axes.set_xlim if which == "x" else self.axes.set_ylim)(shown[0] - pad, shown[1] + pad)

    def handles(self) -> list[Line2D]:
        """Legend entries of the algorithms that were drawn."""
        drawn = {mark.algorithm for mark in self.marks.values()}
        looks = {name: look for name, look in self.looks.items() if name in drawn}
        return [
            Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.dashes, label=name)
            for name, look in looks.items()
        ]

    def chart(self, name: str, title: str, *, alt: str, caption: str, family: str = "", axis: str = "") -> Chart:
        """The finished chart. Call it last, inside ``drawing``: the figure is laid out with the canvas's sizes."""
        style.lay_out(self.figure)
        section, name = self.section, slug(f"{name}{self.section.suffix}")
        full = f"{section.slug}-{name}" if section.slug else name
        data = pd.DataFrame(self.rows)
        caption += CUT if self.cut else ""
        caption = f"{section.preface}{caption}{' Not adjusted.' if section.currency else ''}"
        family, axis = family or title, axis or section.currency
        return Chart(full, title + section.under, alt, caption, data, self.marks, self.figure, family, axis)


def pieces(xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, ...]]:
    """A line in short pieces, for the labels of others to keep clear of."""
    steps = np.linspace(0, len(xs) - 1, 8 * (len(xs) - 1) + 1)
    x, y = (np.interp(steps, np.arange(len(xs)), values) for values in (xs, ys))
    # The last pieces lie under the beginning of the line's own label.
    return [(*a, *b) for a, b in pairwise(zip(x[:-2], y[:-2], strict=True))]


@contextmanager
def drawing(section: Section, canvas: Canvas = PAGE, height: float = 4.4, panels: int = 1) -> Iterator[Drawing]:
    """A chart of ``section`` to draw; ``height`` in inches, as on the page."""
    with style.figure(canvas, height, panels) as (figure, axes):
        yield Drawing(section, canvas, figure, axes)


# ------------------------------------------------------------------------------- words on charts


def better(section: Section) -> str:
    return "  → better" if section.higher_is_better else "  ← better"


def interval(section: Section, prompts: int | None = None) -> str:
    """What the intervals are, to go on in the middle of a caption."""
    note = interval_note(section, prompts)
    return note[0].lower() + note[1:]


def ranged(mean: float, low: float, high: float, places: int = 3, *, sign: bool = False) -> str:
    """``0.36 [0.30, 0.42]``, the interval left out where there is none."""
    return f"{formats.fixed(mean, places, sign=sign)} {formats.span(low, high, places, sign=sign)}".rstrip()
