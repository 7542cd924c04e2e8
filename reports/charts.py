"""The charts of a report: effects, the reward-KL frontier, learning curves, and cost against gain.

Each is drawn from a ``Section``'s estimates alone, carries the data that it shows, and states its finding
in ``alt``, computed from those data. The frontier follows Fig. 2 of arXiv:2305.18290 (DPO), with every
algorithm's checkpoints along training and exact KL.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import findings, formats, style
from .analysis import Point, Section, sections
from .files import slug, write_atomic
from .findings import Rows
from .frame import CURRENCIES, Results
from .statistics import Estimate
from .style import GREY, PAPER, Ending, Look
from .tables import interval_note

AXES = tuple(name for name in CURRENCIES if name != "tokens_scored")
"""The budget axes that a learning curve can be read against."""
SAME_PROMPTS = "All points are on these same prompts."
UNITS = {"flops": "FLOPs", "seconds": "training time in seconds"}


@dataclass(frozen=True, eq=False)
class Chart:
    """A drawn chart. ``name`` is its file name without suffix; ``data`` is every number that it shows."""

    name: str
    title: str
    alt: str
    caption: str
    svg: str
    png: bytes
    data: pd.DataFrame

    @classmethod
    def of(cls, section: Section, name: str, title: str, *, alt: str, caption: str, made: Figure, rows: Rows) -> Chart:
        full = f"{section.slug}-{slug(name)}" if section.slug else slug(name)
        svg, png = style.render(made)
        return cls(full, title, alt, caption, svg, png, pd.DataFrame(rows))


def charts_of(section: Section) -> tuple[Chart, ...]:
    """The charts that a section's data allow, drawn once: effects, frontier, learning curves, cost against gain."""
    key = f"charts {section.slug}"
    if key not in section.results.memo:
        section.results.memo[key] = _draw(section)
    drawn: tuple[Chart, ...] = section.results.memo[key]
    return drawn


def _draw(section: Section) -> tuple[Chart, ...]:
    if not section.finished:
        return ()
    made = [forest(section), frontier(section)]
    made += [learning_curve(section, axis) for axis in AXES]
    made += [cost(section, axis) for axis in ("flops", "seconds")]
    return tuple(chart for chart in made if chart is not None)


def write_charts(results: Results, to: Path) -> list[Path]:
    """Write ``charts/<name>.svg`` and ``.png`` of every section under ``to``."""
    written = []
    for section in sections(results):
        for chart in charts_of(section):
            written.append(write_atomic(to / "charts" / f"{chart.name}.svg", chart.svg))
            written.append(write_atomic(to / "charts" / f"{chart.name}.png", chart.png))
    return written


# ----------------------------------------------------------------------------------- effects


def forest(section: Section) -> Chart:
    """Gain over the baseline, dot and interval an algorithm, seeds as ticks; the metric itself without a baseline."""
    looks, primary, effects = _looks(section), formats.phrase(section.primary.name), section.effects
    estimates = _estimates(section)
    names = list(reversed(estimates))
    places = formats.decimals([estimate.mean for estimate in estimates.values()])
    rows: Rows = []
    with style.figure(7.2, 1.25 + 0.56 * len(names)) as (made, axes):
        for y, name in enumerate(names):
            estimate, colour, seeds = estimates[name], looks[name].colour, section.by_seed(name)
            axes.plot([estimate.low, estimate.high], [y, y], color=colour, linewidth=2.6, solid_capstyle="round")
            axes.plot(
                list(seeds.values()), [y + 0.26] * len(seeds), "|", color=colour, markersize=8, markeredgewidth=1.6
            )
            axes.plot(estimate.mean, y, looks[name].marker, color=colour, markersize=8, markeredgecolor=PAPER)
            text = formats.fixed(estimate.mean, places, sign=bool(effects))
            text += f"  {formats.span(estimate.low, estimate.high, places, sign=bool(effects))}"
            _beside(axes, text, y + 0.02, "bottom" if effects else "center")
            if effects:
                word = effects[name].verdict.word
                _beside(
                    axes, word, y - 0.04, "top", color=GREY if word == "INCONCLUSIVE" else colour, fontweight="bold"
                )
            row = {"algorithm": name, "mean": estimate.mean, "low": estimate.low, "high": estimate.high}
            rows.insert(0, row | {f"seed {seed}": value for seed, value in seeds.items()})
        axes.set_yticks(range(len(names)), names, fontweight="bold")
        axes.set_ylim(-0.6, len(names) - 0.35)
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        if effects:
            axes.axvline(0, color=GREY, linewidth=1.4)
            axes.annotate(
                str(section.baseline), (0, 1), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
                ha="center", color=GREY, fontsize=9, fontweight="bold",
            )  # fmt: skip
        style.format_axis(axes, "x", style.short)
        axes.set_xlabel(f"{'gain in ' if effects else ''}{primary}{_unit(section)}{_better(section)}")
    what = f"gain over {section.baseline}" if effects else f"mean {primary}"
    caption = f"Dot: {what}. Bar: {_interval(section)} Ticks above a bar: single seeds."
    title = f"Gain over {section.baseline}" if effects else primary.capitalize()
    alt = findings.forest(section, estimates)
    return Chart.of(section, "effects", title, alt=alt, caption=caption, made=made, rows=rows)


def _estimates(section: Section) -> dict[str, Estimate]:
    """What the forest shows, best first: gains over the baseline, or means where there is none."""
    if section.effects:
        return {name: section.effects[name].difference for name in section.ranked if name in section.effects}
    means = {name: section.estimate(name, section.primary.name) for name in section.ranked}
    return {name: estimate for name, estimate in means.items() if estimate is not None}


def _beside(axes: Axes, text: str, y: float, align: str, **style: Any) -> None:
    """Text to the right of the axes, at the height ``y`` of the data."""
    axes.annotate(
        text, (1.02, y), xycoords=("axes fraction", "data"), va=align, fontsize=9, annotation_clip=False, **style
    )


# ---------------------------------------------------------------------------------- frontier


def frontier(section: Section) -> Chart | None:
    """Primary metric against exact KL, every evaluation along training; faint lines are single seeds."""
    if section.primary.name == "kl" or "kl" not in section.metrics:
        return None
    looks, primary = _looks(section), section.primary.name
    rows: Rows = []
    endings, bars = [], []
    with style.figure(7.2, 4.8) as (made, axes):
        for name in section.finished:
            ys, xs, look = section.curve(name, primary), section.curve(name, "kl"), looks[name]
            if not ys or len(xs) != len(ys):
                continue
            for seed in xs[-1].by_seed:
                pairs = [(x.by_seed.get(seed), y.by_seed.get(seed)) for x, y in zip(xs, ys, strict=True)]
                kept = np.array([pair for pair in pairs if None not in pair], dtype=float)
                axes.plot(kept[:, 0], kept[:, 1], color=look.colour, linewidth=0.9, alpha=0.28)
            x, y = xs[-1].estimate, ys[-1].estimate
            axes.plot([x.low, x.high], [y.mean] * 2, color=look.colour, linewidth=1.3, alpha=0.75)
            axes.plot([x.mean] * 2, [y.low, y.high], color=look.colour, linewidth=1.3, alpha=0.75)
            axes.plot(
                [point.estimate.mean for point in xs], [point.estimate.mean for point in ys], label=name,
                color=look.colour, marker=look.marker, linestyle=look.dashes, linewidth=2,
                markersize=5.5, markeredgecolor=PAPER,
            )  # fmt: skip
            axes.plot(x.mean, y.mean, look.marker, color=look.colour, markersize=9.5, markeredgecolor=PAPER)
            endings.append(Ending(x.mean, y.mean, name, look.colour))
            bars += [(x.low, y.mean, x.high, y.mean), (x.mean, y.low, x.mean, y.high)]
            for x_point, y_point in zip(xs, ys, strict=True):
                row = {"algorithm": name, "fraction": y_point.fraction}
                rows.append(row | _numbers("kl", x_point) | _numbers(primary, y_point))
        axes.set_xlabel("KL from where training started, nats per sequence (exact)")
        axes.set_ylabel(_label(section))
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]) if rows else None)
        style.format_axis(axes, "x", style.short, ticks=8)
        style.format_axis(axes, "y", style.short)
        style.label_ends(made, axes, endings, bars)
    caption = (
        "Each marker is an evaluation along training, the last one larger; faint lines are single seeds. "
        f"Crosses on the last: {_interval(section, len(section.curve_prompts))} {SAME_PROMPTS}"
    )
    alt = findings.frontier(section, rows)
    return Chart.of(section, "frontier", "Reward–KL frontier", alt=alt, caption=caption, made=made, rows=rows)


# ---------------------------------------------------------------------------- learning curves


def learning_curve(section: Section, axis: str) -> Chart | None:
    """Primary metric against what was spent in one currency; None when no algorithm spends it."""
    looks, primary = _looks(section), section.primary.name
    curves = {name: section.curve(name, primary) for name in section.trained}
    drawn = {name: points for name, points in curves.items() if points and points[-1].spent[axis] > 0}
    if not drawn:
        return None
    rows: Rows = []
    endings = []
    with style.figure(7.2, 4.4) as (made, axes):
        if section.baseline is not None:
            base = section.curve(section.baseline, primary)[0].estimate.mean
            end = max(points[-1].spent[axis] for points in drawn.values())
            axes.plot([0, end], [base, base], color=GREY, linewidth=1.4, linestyle=(0, (1, 2)), label=section.baseline)
            endings.append(Ending(end, base, section.baseline, GREY))
        for name, points in drawn.items():
            look, xs = looks[name], [point.spent[axis] for point in points]
            estimates = [point.estimate for point in points]
            axes.fill_between(xs, [e.low for e in estimates], [e.high for e in estimates], color=look.colour,
                              alpha=0.1, linewidth=0)  # fmt: skip
            for seed in points[-1].by_seed:
                kept = [p for p in points if seed in p.by_seed and seed in p.spent_by_seed]
                axes.plot([p.spent_by_seed[seed][axis] for p in kept], [p.by_seed[seed] for p in kept],
                          color=look.colour, linewidth=0.9, alpha=0.28)  # fmt: skip
            axes.plot(xs, [e.mean for e in estimates], color=look.colour, marker=look.marker, linestyle=look.dashes,
                      linewidth=2, markersize=6, markeredgecolor=PAPER, label=name)  # fmt: skip
            endings.append(Ending(xs[-1], estimates[-1].mean, name, look.colour))
            for point in points:
                row = {"algorithm": name, "fraction": point.fraction, axis: point.spent[axis]}
                rows.append(row | _numbers(primary, point))
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{UNITS.get(axis, formats.phrase(axis))} spent")
        axes.set_ylabel(_label(section))
        style.format_axis(axes, "x", style.short_si, ticks=7)
        style.format_axis(axes, "y", style.short)
        style.label_ends(made, axes, endings)
    idle = [name for name in curves if name not in drawn]
    interval = _interval(section, len(section.curve_prompts))
    caption = f"Mean over seeds; faint lines are single seeds. Bands: {interval} {SAME_PROMPTS}"
    caption += f" Not drawn, since they spend none: {findings.listing(idle)}." if idle else ""
    title = f"Learning curve by {formats.phrase(axis)}"
    alt = findings.curve(section, drawn, axis)
    return Chart.of(section, f"curve-{axis}", title, alt=alt, caption=caption, made=made, rows=rows)


# ------------------------------------------------------------------------------ cost and gain


def cost(section: Section, axis: str) -> Chart | None:
    """Gain over the baseline against FLOPs or seconds: filled for training alone, hollow with shared stages."""
    effects = section.effects
    if not effects:
        return None
    looks, endings, bars = _looks(section), [], []
    rows: Rows = []
    with style.figure(7.2, 4.2) as (made, axes):
        for name, comparison in effects.items():
            done = section.cells[(section.cells["algorithm"] == name) & (section.cells["status"] == "ok")]
            own = float(done[f"spent_{axis}"].mean())
            full = own + float(done[f"shared_{axis}"].mean())
            gain, look = comparison.difference, looks[name]
            axes.plot([own, own], [gain.low, gain.high], color=look.colour, linewidth=1.6, alpha=0.8)
            if full > own:
                axes.plot([own, full], [gain.mean] * 2, color=look.colour, linewidth=1.1, alpha=0.6)
                axes.plot(full, gain.mean, look.marker, markerfacecolor="none", color=look.colour, markersize=9)
            axes.plot(own, gain.mean, look.marker, color=look.colour, markersize=10, markeredgecolor=PAPER,
                      linestyle="none", label=name)  # fmt: skip
            endings.append(Ending(full, gain.mean, name, look.colour))
            bars += [(own, gain.low, own, gain.high), (own, gain.mean, full, gain.mean)]
            rows.append({"algorithm": name, f"{axis}_training": own, f"{axis}_with_shared": full}
                        | {"gain": gain.mean, "low": gain.low, "high": gain.high})  # fmt: skip
        axes.axhline(0, color=GREY, linewidth=1.4)
        axes.set_xlim(0, 1.12 * max(row[f"{axis}_with_shared"] for row in rows) or 1.0)
        axes.set_xlabel(UNITS[axis])
        axes.set_ylabel(f"gain in {formats.phrase(section.primary.name)} over {section.baseline}{_better(section)}")
        style.format_axis(axes, "x", style.short_si)
        style.format_axis(axes, "y", style.short)
        style.label_ends(made, axes, endings, bars)
    caption = (
        "Filled: training alone. Hollow: with the stages that it needs (demonstrations, pairs, reward model) "
        f"charged to it in full. Bars: {_interval(section)}"
    )
    title, alt = f"Gain against {formats.phrase(axis)}", findings.cost(section, rows, axis)
    return Chart.of(section, f"cost-{axis}", title, alt=alt, caption=caption, made=made, rows=rows)


# ------------------------------------------------------------------------------------ helpers


def _looks(section: Section) -> dict[str, Look]:
    labels = list(dict.fromkeys(section.results.cells["algorithm"]))
    return style.looks(labels, section.baseline)


def _numbers(key: str, point: Point) -> dict[str, float]:
    return {key: point.estimate.mean, f"{key}_low": point.estimate.low, f"{key}_high": point.estimate.high}


def _unit(section: Section) -> str:
    metric = section.metrics.get(section.primary.name)
    return f" ({metric.unit})" if metric and metric.unit else ""


def _better(section: Section) -> str:
    return "  → better" if section.higher_is_better else "  ← better"


def _label(section: Section) -> str:
    return f"{formats.phrase(section.primary.name)}{_unit(section)}{_better(section)}"


def _interval(section: Section, prompts: int | None = None) -> str:
    note = interval_note(section, prompts)
    return note[0].lower() + note[1:]
