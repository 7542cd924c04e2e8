"""How every chart looks: one colour, marker and line style an algorithm; one ink; the same bytes every time.

Colours are Okabe & Ito's (2008), told apart with any colour vision; marker and line style say the same
again, for print. Figures are made without pyplot, so nothing is global. A ``Canvas`` is what a chart is drawn
for, the page or a column of a paper: same drawing, its own width and its own size of text.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from .. import formats

INK = "#1d1d22"
"""Text, axes and grid. The HTML report replaces it by the page's own text colour."""
PAPER = "#fffffe"
"""The ring around markers; the HTML report replaces it by the page's background."""
GREY = "#85858d"
"""The baseline, in every chart."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#9a8c00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
DASHES: tuple[tuple[int, tuple[float, ...]], ...] = ((0, ()), (0, (5, 1.6)), (0, (1.4, 1.4)), (0, (6, 1.6, 1.4, 1.6)))
RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "bakeoff",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.unicode_minus": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
LABEL_LIMIT = 6
"""Series that are labelled at their ends; more go into a legend."""


class Look(NamedTuple):
    """The fixed appearance of an algorithm."""

    colour: str
    marker: str
    dashes: tuple[int, tuple[float, ...]]


def looks(algorithms: Sequence[str], baseline: str | None) -> dict[str, Look]:
    """A look for each label in the plan's order, the same in every chart of a run; the baseline is grey."""
    styles = zip(cycle(COLOURS), cycle(MARKERS), cycle(DASHES), strict=False)
    trained = [name for name in algorithms if name != baseline]
    found = {name: Look(*style) for name, style in zip(trained, styles, strict=False)}
    return found | ({baseline: Look(GREY, "o", (0, (1, 2)))} if baseline is not None else {})


class Canvas(NamedTuple):
    """What a chart is drawn for: width in inches, text in points, and the scale of lines and markers."""

    width: float
    text: float
    scale: float

    @property
    def wide(self) -> Canvas:
        """For a chart that leads a section: wider on the page; a paper's column stays what it is."""
        return self._replace(width=10.0) if self.width == PAGE.width else self

    def height(self, inches: float) -> float:
        """The height here of a chart that is ``inches`` high on the page; small charts need more of it for text."""
        return inches * min(1.0, self.width / PAGE.width) ** 0.75


PAGE = Canvas(7.2, 11.0, 1.05)
COLUMN = Canvas(3.3, 7.0, 0.62)
"""One column of a two-column paper (ACL, ICML: 3.25 to 3.35 inches); text as small as a caption's."""


@contextmanager
def figure(canvas: Canvas = PAGE, height: float = 4.4, panels: int = 1) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure on ``canvas``, ``height`` as on the page, with styled axes side by side."""
    with matplotlib.rc_context(_rc(canvas)):
        pad = 0.08 * canvas.scale
        made = Figure(
            figsize=(canvas.width, canvas.height(height)),
            layout=ConstrainedLayoutEngine(w_pad=pad, h_pad=pad),
            facecolor="white",
            dpi=220,  # so that text is measured as finely as vectors draw it
        )
        FigureCanvasAgg(made)
        made.patch.set_gid("background")
        drawn = [made.add_subplot(1, panels, 1 + panel) for panel in range(panels)]
        for axes in drawn:
            axes.patch.set_visible(False)
            axes.grid(True, color=INK, alpha=0.11, linewidth=0.8 * canvas.scale)
            axes.tick_params(length=0, pad=5 * canvas.scale)
            for side in ("left", "bottom"):
                axes.spines[side].set_alpha(0.45)
        yield made, drawn


def _rc(canvas: Canvas) -> dict[Any, Any]:
    """``RC`` for a canvas: its text size, and lines and markers to its scale."""
    scaled = {"lines.linewidth": 2.0, "lines.markersize": 6.0, "lines.markeredgewidth": 1.0, "axes.linewidth": 0.8}
    return RC | {"font.size": canvas.text} | {name: size * canvas.scale for name, size in scaled.items()}


def lay_out(made: Figure) -> None:
    """Fix where everything stands, so that all files of a figure share it. Call it with the canvas's sizes in force."""
    engine = made.get_layout_engine()
    assert engine is not None
    for _ in range(4):  # what stands beside the axes is only measured right once they have shrunk for it
        before = [axes.get_position().bounds for axes in made.axes]
        engine.execute(made)
        after = [axes.get_position().bounds for axes in made.axes]
        if max(abs(a - b) for a, b in zip(sum(before, ()), sum(after, ()), strict=True)) < 1e-3:
            break
    made.set_layout_engine("none")


FORMATS: dict[str, dict[str, Any]] = {
    "svg": {"metadata": {"Date": None, "Creator": None}},
    "png": {"metadata": {"Software": None}, "dpi": 180},
    "pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
}


def render(made: Figure, form: str) -> bytes:
    """The figure as "svg", "png" or "pdf", the same bytes for the same figure: no date, ids from a fixed salt."""
    file = io.BytesIO()
    with matplotlib.rc_context(RC):
        made.savefig(file, format=form, **FORMATS[form])
    return file.getvalue()


def format_axis(axes: Axes, which: str, show: Callable[[float], str], *, ticks: int = 6, base: float = 1.0) -> None:
    """Tick labels of the "x" or "y" axis by ``show``, about ``ticks`` of them, at round multiples of ``base``."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    locator = MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10])
    low, high = (limit / base for limit in axis.get_view_interval())
    rounded = [base * float(tick) for tick in locator.tick_values(low, high)[:-1]]
    axis.set_major_locator(locator if base == 1.0 else FixedLocator(rounded))
    axis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))


ROOT = (lambda value: np.sign(value) * np.sqrt(np.abs(value)), lambda root: np.sign(root) * np.square(root))
"""A scale that is even in the root of its value, and back."""


def root_axis(axes: Axes) -> None:
    """Ticks of an x axis that is even in the root of its value, from 0: at the squares of round numbers."""
    high = float(np.sqrt(axes.get_xlim()[1]))
    axes.set_xlim(-((0.03 * high) ** 2), high**2)
    locator = MaxNLocator(7, steps=[1, 2, 5, 10])
    axes.xaxis.set_major_locator(FixedLocator([float(root) ** 2 for root in locator.tick_values(0, high)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def short(value: float) -> str:
    """A tick label without trailing zeros."""
    return formats.fixed(value, 4).rstrip("0").rstrip(".") if value else "0"


def short_si(value: float) -> str:
    """A tick label with an SI prefix, without trailing zeros: ``2.5 T``."""
    number, _, prefix = formats.si(value).partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {prefix}".rstrip()


class Ending(NamedTuple):
    """Where a series ends, in data coordinates, and what it is called."""

    x: float
    y: float
    text: str
    colour: str
    gid: str | None = None
    """The id of the label's element, by which a page knows whose it is."""


def label_ends(
    made: Figure, axes: Axes, endings: Sequence[Ending], avoid: Sequence[tuple[float, ...]], legend: Sequence[Artist]
) -> None:
    """Write each series' name beside its end, clear of the others and of ``avoid``; where that fails, a ``legend``.

    ``avoid`` holds lines to keep clear, (x0, y0, x1, y1) in data coordinates. Call it last: labels are placed for
    the limits that the axes have now.
    """
    if len(endings) > LABEL_LIMIT or not _place(made, axes, endings, avoid):
        axes.legend(handles=legend, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)


OFFSETS = tuple((9, dy) for dy in (0, 10, -10, 18, -18, 27, -27, 36, -36))
"""Where a label may stand from its end, in points, the best first."""


def _place(made: Figure, axes: Axes, endings: Sequence[Ending], avoid: Sequence[tuple[float, ...]]) -> bool:
    """Place every label, or none and return False."""
    engine = made.get_layout_engine()
    assert engine is not None
    engine.execute(made)
    renderer = made.canvas.get_renderer()  # type: ignore[attr-defined]
    pad = 0.4 * float(matplotlib.rcParams["font.size"]) * made.dpi / 72
    lines = [(end.x, end.y, end.x, end.y) for end in endings] + list(avoid)
    corners = [axes.transData.transform([line[:2], line[2:]]) for line in lines]
    taken = [Bbox([low - pad, high + pad]) for low, high in corners]
    placed = []
    reach = float(matplotlib.rcParams["font.size"]) / 10
    for end in sorted(endings, key=lambda end: -end.y):
        text = axes.annotate(
            end.text, (end.x, end.y), (9, 0), textcoords="offset points", va="center",
            color=end.colour, fontweight="bold", fontsize="medium", annotation_clip=False, gid=end.gid,
        )  # fmt: skip
        placed.append(text)
        for offset in OFFSETS:
            text.set_position((offset[0] * reach, offset[1] * reach))
            box = text.get_window_extent(renderer).expanded(1.0, 0.86)
            if not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
        else:
            for label in placed:
                label.remove()
            return False
    return True
