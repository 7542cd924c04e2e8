"""The charts of a report: effects, the reward-KL frontier, learning curves, and cost against gain.

Each is drawn from a ``Section``'s estimates alone, carries the data that it shows, and states its finding
in ``alt``, computed from those data. The frontier follows Fig. 2 of arXiv:2305.18290 (DPO), with every
algorithm's checkpoints along training and exact KL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import formats, style
from .analysis import Point, Section, sections
from .files import slug, write_atomic
from .frame import CURRENCIES, Results
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
    def of(cls, section: Section, name: str, title: str, alt: str, caption: str, made: Figure, rows: list) -> Chart:
        full = f"{section.slug}-{slug(name)}" if section.slug else slug(name)
        return cls(full, title, alt, caption, *style.render(made), pd.DataFrame(rows))


@lru_cache(maxsize=8)
def charts_of(section: Section) -> tuple[Chart, ...]:
    """The charts of a section that its data allow: effects, frontier, learning curves, cost against gain."""
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
    looks, primary = _looks(section), formats.phrase(section.primary.name)
    effects = section.effects
    names = [name for name in section.ranked if not effects or name in effects]
    estimates = {name: effects[name].difference if effects else section.estimate(name, section.primary.name) for name in names}
    by_seed = {name: section.effect_by_seed(name) if effects else _seed_means(section, name) for name in names}
    places = formats.decimals([estimate.mean for estimate in estimates.values()])
    rows = []
    with style.figure(7.2, 1.25 + 0.56 * len(names)) as (made, axes):
        for y, name in enumerate(reversed(names)):
            estimate, look = estimates[name], looks[name]
            seeds = list(by_seed[name].values())
            axes.plot([estimate.low, estimate.high], [y, y], color=look.colour, linewidth=2.6, solid_capstyle="round")
            axes.plot(seeds, [y + 0.26] * len(seeds), "|", color=look.colour, markersize=8, markeredgewidth=1.6, alpha=0.8)
            axes.plot(estimate.mean, y, look.marker, color=look.colour, markersize=8, markeredgecolor=PAPER)
            text = formats.fixed(estimate.mean, places, sign=bool(effects))
            text += f"  {formats.span(estimate.low, estimate.high, places, sign=bool(effects))}"
            beside = {"xycoords": ("axes fraction", "data"), "fontsize": 9, "annotation_clip": False}
            axes.annotate(text, (1.02, y + 0.02), va="bottom" if effects else "center", **beside)
            if effects:
                word = effects[name].verdict.word
                colour = GREY if word == "INCONCLUSIVE" else look.colour
                axes.annotate(word, (1.02, y - 0.04), va="top", color=colour, fontweight="bold", **beside)
            rows.append({"algorithm": name, "mean": estimate.mean, "low": estimate.low, "high": estimate.high}
                        | {f"seed {seed}": value for seed, value in by_seed[name].items()})  # fmt: skip
        axes.set_yticks(range(len(names)), list(reversed(names)), fontweight="bold")
        axes.set_ylim(-0.6, len(names) - 0.35)
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        if effects:
            axes.axvline(0, color=GREY, linewidth=1.4)
            axes.annotate(str(section.baseline), (0, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
                          textcoords="offset points", ha="center", color=GREY, fontsize=9, fontweight="bold")  # fmt: skip
        style.format_axis(axes, "x", style.short)
        axes.set_xlabel(f"{'gain in ' if effects else ''}{primary}{_unit(section)}{_better(section)}")
    what = f"gain over {section.baseline}" if effects else f"mean {primary}"
    caption = f"Dot: {what}. Bar: {_interval(section)} Ticks above a bar: single seeds."
    return Chart.of(section, "effects", f"Gain over {section.baseline}" if effects else primary.capitalize(),
                    _forest_alt(section, names, primary), caption, made, rows)  # fmt: skip


def _seed_means(section: Section, name: str) -> dict[int, float]:
    return {int(k): float(v) for k, v in section.grid(name, section.primary.name).mean(axis=1).items()}


def _forest_alt(section: Section, names: Sequence[str], primary: str) -> str:
    if not section.effects:
        best = names[0]
        return f"{best} has the best mean {primary}, {formats.fixed(section.curve(best, section.primary.name)[-1].estimate.mean)}."
    beat = [name for name in names if section.effects[name].verdict.word == "WIN"]
    lost = [name for name in names if section.effects[name].verdict.word == "LOSS"]
    best = section.effects[names[0]].difference
    places = formats.decimals([best.mean])
    lead = f"{names[0]} gains most over {section.baseline}: {formats.fixed(best.mean, places, sign=True)} {primary}, "
    lead += f"95% interval {formats.span(best.low, best.high, places, sign=True)}."
    if len(beat) == len(names):
        return f"{lead} All {len(names)} algorithms beat {section.baseline}."
    rest = f" {len(beat)} of {len(names)} algorithms beat {section.baseline}"
    return f"{lead}{rest}{': ' + _list(beat) if beat else ''}{'; worse: ' + _list(lost) if lost else ''}."


# ---------------------------------------------------------------------------------- frontier


def frontier(section: Section) -> Chart | None:
    """Primary metric against exact KL, every evaluation along training; faint lines are single seeds."""
    if section.primary.name == "kl" or "kl" not in section.metrics:
        return None
    looks, primary = _looks(section), section.primary.name
    rows, endings, bars = [], [], []
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
            axes.plot([p.estimate.mean for p in xs], [p.estimate.mean for p in ys], color=look.colour, marker=look.marker,
                      linestyle=look.dashes, linewidth=2, markersize=5.5, markeredgecolor=PAPER, label=name)  # fmt: skip
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
    return Chart.of(section, "frontier", "Reward–KL frontier", _frontier_alt(section, rows), caption, made, rows)


def _frontier_alt(section: Section, rows: list[dict]) -> str:
    ends = {row["algorithm"]: row for row in rows if row["algorithm"] != section.baseline}
    if not ends:
        return "No trained algorithm has finished."
    primary = section.primary.name
    sign = 1 if section.higher_is_better else -1
    best, least = max(ends, key=lambda name: sign * ends[name][primary]), min(ends, key=lambda name: ends[name]["kl"])
    places = formats.decimals([ends[best][primary]])
    text = (
        f"{best} ends with the best {formats.phrase(primary)}, {formats.fixed(ends[best][primary], places)}, "
        f"at {formats.fixed(ends[best]['kl'], 1)} nats"
    )
    if least == best:
        return text + ", and moved least from where it started."
    return text + (
        f"; {least} moved least, {formats.fixed(ends[least]['kl'], 1)} nats, "
        f"and ends at {formats.fixed(ends[least][primary], places)}."
    )


# ---------------------------------------------------------------------------- learning curves


def learning_curve(section: Section, axis: str) -> Chart | None:
    """Primary metric against what was spent in one currency; None when no algorithm spends it."""
    looks, primary = _looks(section), section.primary.name
    curves = {name: section.curve(name, primary) for name in section.trained}
    drawn = {name: points for name, points in curves.items() if points and points[-1].spent[axis] > 0}
    if not drawn:
        return None
    rows, endings = [], []
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
                rows.append({"algorithm": name, "fraction": point.fraction, axis: point.spent[axis]} | _numbers(primary, point))
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{UNITS.get(axis, formats.phrase(axis))} spent")
        axes.set_ylabel(_label(section))
        style.format_axis(axes, "x", style.short_si, ticks=7)
        style.format_axis(axes, "y", style.short)
        style.label_ends(made, axes, endings)
    idle = [name for name in curves if name not in drawn]
    caption = f"Mean over seeds; faint lines are single seeds. Bands: {_interval(section, len(section.curve_prompts))} {SAME_PROMPTS}"
    caption += f" Not drawn, since they spend none: {_list(idle)}." if idle else ""
    title = f"Learning curve by {formats.phrase(axis)}"
    return Chart.of(section, f"curve-{axis}", title, _curve_alt(section, drawn, axis), caption, made, rows)


def _curve_alt(section: Section, drawn: dict[str, list[Point]], axis: str) -> str:
    primary = formats.phrase(section.primary.name)
    sign = 1 if section.higher_is_better else -1
    best = max(drawn, key=lambda name: sign * drawn[name][-1].estimate.mean)
    first, last = drawn[best][0], drawn[best][-1]
    places = formats.decimals([first.estimate.mean, last.estimate.mean])
    spent = formats.duration(last.spent[axis]) if axis == "seconds" else f"{formats.si(last.spent[axis])} {formats.phrase(axis)}"
    return (
        f"{best} goes from {formats.fixed(first.estimate.mean, places)} to {formats.fixed(last.estimate.mean, places)} "
        f"{primary} in {spent}, the best of {len(drawn)} algorithms."
    )


# ------------------------------------------------------------------------------ cost and gain


def cost(section: Section, axis: str) -> Chart | None:
    """Gain over the baseline against FLOPs or seconds: filled for training alone, hollow with shared stages."""
    effects = section.effects
    if not effects:
        return None
    looks, rows, endings, bars = _looks(section), [], [], []
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
    best = next(name for name in section.ranked if name in effects)
    cheap = min(rows, key=lambda row: row[f"{axis}_with_shared"])
    show = formats.duration if axis == "seconds" else formats.si
    spent = next(row for row in rows if row["algorithm"] == best)[f"{axis}_with_shared"]
    unit = "" if axis == "seconds" else " FLOPs"
    alt = f"{best} gains most, {formats.fixed(effects[best].difference.mean, 3, sign=True)}, for {show(spent)}{unit} in all; "
    alt += f"{cheap['algorithm']} is cheapest, {show(cheap[f'{axis}_with_shared'])}{unit}, and gains "
    alt += f"{formats.fixed(cheap['gain'], 3, sign=True)}."
    if show(spent) == show(cheap[f"{axis}_with_shared"]):
        gain = formats.fixed(effects[best].difference.mean, 3, sign=True)
        alt = f"{best} gains most, {gain}, for {show(spent)}{unit} in all, and none is cheaper."
    return Chart.of(section, f"cost-{axis}", f"Gain against {formats.phrase(axis)}", alt, caption, made, rows)


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


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"
