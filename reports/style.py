"""How every chart looks: one colour, marker and line style an algorithm; one ink; the same bytes every time.

Colours are Okabe & Ito's (2008), told apart with any colour vision; marker and line style say the same
again, for print. Figures are made without pyplot, so nothing is global.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import Bbox

from . import formats

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


@contextmanager
def figure(width: float = 7.2, height: float = 4.4) -> Iterator[tuple[Figure, Axes]]:
    """A figure in inches with one styled axes."""
    with matplotlib.rc_context(RC):
        made = Figure(
            figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08), facecolor="white"
        )
        FigureCanvasAgg(made)
        made.patch.set_gid("background")
        axes = made.add_subplot()
        axes.patch.set_visible(False)
        axes.grid(True, color=INK, alpha=0.11, linewidth=0.8)
        axes.tick_params(length=0, pad=5)
        for side in ("left", "bottom"):
            axes.spines[side].set_alpha(0.45)
        yield made, axes


def render(made: Figure) -> tuple[str, bytes]:
    """(SVG text, PNG bytes at 180 dpi), the same for the same figure: no date, ids from a fixed salt."""
    svg, png = io.StringIO(), io.BytesIO()
    with matplotlib.rc_context(RC):
        made.draw_without_rendering()
        made.set_layout_engine("none")  # laid out now; both files share it
        made.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        made.savefig(png, format="png", dpi=180, metadata={"Software": None})
    return svg.getvalue(), png.getvalue()


def format_axis(axes: Axes, which: str, show: Callable[[float], str], *, ticks: int = 6) -> None:
    """Tick labels of the "x" or "y" axis by ``show``, at most about ``ticks`` of them."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))


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


def label_ends(made: Figure, axes: Axes, endings: Sequence[Ending], avoid: Sequence[tuple[float, ...]] = ()) -> None:
    """Write each series' name beside its end, clear of the others and of ``avoid``; a legend where that fails.

    ``avoid`` holds lines to keep clear, (x0, y0, x1, y1) in data coordinates. Call it last: labels are placed for
    the limits that the axes have now.
    """
    if len(endings) > LABEL_LIMIT or not _place(made, axes, endings, avoid):
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)


OFFSETS = tuple((9, dy) for dy in (0, 10, -10, 18, -18, 27, -27, 36, -36))
"""Where a label may stand from its end, in points, the best first."""


def _place(made: Figure, axes: Axes, endings: Sequence[Ending], avoid: Sequence[tuple[float, ...]]) -> bool:
    """Place every label, or none and return False."""
    made.draw_without_rendering()
    renderer = made.canvas.get_renderer()  # type: ignore[attr-defined]
    pad = 4 * made.dpi / 72
    lines = [(end.x, end.y, end.x, end.y) for end in endings] + list(avoid)
    corners = [axes.transData.transform([line[:2], line[2:]]) for line in lines]
    taken = [Bbox([low - pad, high + pad]) for low, high in corners]
    placed = []
    for end in sorted(endings, key=lambda end: -end.y):
        text = axes.annotate(
            end.text, (end.x, end.y), (9, 0), textcoords="offset points", va="center",
            color=end.colour, fontweight="bold", fontsize=9.5, annotation_clip=False,
        )  # fmt: skip
        placed.append(text)
        for offset in OFFSETS:
            text.set_position(offset)
            box = text.get_window_extent(renderer).expanded(1.0, 0.86)
            if not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
        else:
            for label in placed:
                label.remove()
            return False
    return True
