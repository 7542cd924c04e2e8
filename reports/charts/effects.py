"""Who wins, and how sure that is: gains with intervals, every run, wins and losses, everyone against everyone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import formats
from ..analysis import findings
from ..analysis.equality import EqualSection
from ..analysis.section import Section
from ..statistics import Estimate
from ..verdicts import Verdict
from . import style
from .chart import Chart, Mark, drawing, interval, ranged
from .style import GREY, INK, PAGE, PAPER, Canvas

AGAINST, FOR = "#d55e00", "#0072b2"
"""The ends of a scale from losing to winning, told apart with any colour vision; between them it fades to nothing."""


def forest(section: Section, canvas: Canvas = PAGE) -> Chart:
    """Gain over the baseline, dot and interval an algorithm, seeds as ticks; the metric itself without a baseline.

    Under an equal amount of a currency a hollow dot says how it was as run.
    """
    primary, effects, estimates = formats.phrase(section.primary.name), section.effects, _estimates(section)
    ran = _estimates(section.whole) if isinstance(section, EqualSection) else {}
    names = list(reversed(estimates))
    places = formats.decimals([estimate.mean for estimate in estimates.values()])
    with drawing(section, canvas, 1.25 + 0.56 * len(names)) as d:
        axes = d.axes
        for y, name in enumerate(names):
            estimate, colour, seeds = estimates[name], d.looks[name].colour, section.by_seed(name)
            d.line(name, [estimate.low, estimate.high], [y, y], linewidth=2.6 * d.size)
            for seed, value in seeds.items():
                tip = f"{name}, seed {seed}: {formats.fixed(value, places, sign=bool(effects))}"
                d.dot(name, value, y + 0.26, tip, size=8, marker="|", seed=seed, markeredgewidth=1.6 * d.size,
                      markeredgecolor=colour)  # fmt: skip
            shown = ranged(estimate.mean, estimate.low, estimate.high, places, sign=bool(effects))
            if name in ran:
                as_run = formats.fixed(ran[name].mean, places, sign=bool(effects))
                d.dot(name, ran[name].mean, y, f"{name} as run: {as_run}", size=8, hollow=True)
            d.dot(name, estimate.mean, y, f"{name}: {shown}", size=8)
            d.beside(name, shown.replace(" [", "  ["), y + 0.02, "bottom" if effects else "center")
            if effects:
                verdict = effects[name].verdict
                tone = colour if verdict.decides else GREY
                d.beside(name, verdict.label, y - 0.04, "top", color=tone, fontweight="bold")
            row = {"algorithm": name, "mean": estimate.mean, "low": estimate.low, "high": estimate.high}
            d.rows.insert(0, row | {f"seed {seed}": value for seed, value in seeds.items()})
        d.row_names(names)
        margin = section.margin(section.primary.name) if effects else None
        if margin is not None:
            axes.axvspan(-margin, margin, color=GREY, alpha=0.16, linewidth=0)
        if effects:
            axes.axvline(0, color=GREY, linewidth=1.4 * d.size)
            axes.annotate(
                str(section.baseline), (0, 1), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
                ha="center", color=GREY, fontsize="small", fontweight="bold",
            )  # fmt: skip
        style.format_axis(axes, "x", style.short)
        axes.set_xlabel(d.label("gain in " if effects else ""))
        what = f"gain over {section.baseline}" if effects else f"mean {primary}"
        caption = f"Dot: {what}. Bar: {interval(section)} Ticks above a bar: single seeds."
        caption += " Hollow: as run, on all prompts." if ran else ""
        caption += f" Grey: differences up to {margin:g}, declared not to matter." if margin is not None else ""
        title = f"Gain over {section.baseline}" if effects else primary.capitalize()
        return d.chart("effects", title, alt=findings.forest(section, estimates), caption=caption)


def _estimates(section: Section) -> dict[str, Estimate]:
    """What the forest shows, best first: gains over the baseline, or means where there is none."""
    if section.effects:
        return {name: section.effects[name].difference for name in section.ranked if name in section.effects}
    means: Mapping[str, Estimate | None] = {n: section.estimate(n, section.primary.name) for n in section.ranked}
    return {name: estimate for name, estimate in means.items() if estimate is not None}


def seeds(section: Section, canvas: Canvas = PAGE) -> Chart | None:
    """Every run's mean of the primary metric, one dot each; a run that did not end well is a cross at the left."""
    names = [*reversed(section.ranked)]
    names = [name for name in section.algorithms if name not in section.finished] + names
    primary = section.primary.name
    with drawing(section, canvas, 1.15 + 0.42 * len(names)) as d:
        for y, name in enumerate(names):
            grid = section.grid(name, primary)
            means = grid.mean(axis=1)
            if len(means):
                d.line(name, [means.min(), means.max()], [y, y], linewidth=1.2 * d.size, alpha=0.45)
            for seed, value in zip(means.index.tolist(), means, strict=True):
                shown = formats.fixed(float(value), 3)
                d.dot(name, float(value), y, f"{name}, seed {seed}: {shown}", size=7, seed=int(seed), alpha=0.85)
                d.rows.append({"algorithm": name, "seed": int(seed), primary: float(value), "status": "ok"})
            lost = section.cells[(section.cells["algorithm"] == name) & (section.cells["status"] != "ok")]
            for place, (seed, status) in enumerate(zip(lost["seed"], lost["status"], strict=True)):
                artist = d.axes.annotate(
                    "×", (0.012 + 0.03 * place, y), xycoords=("axes fraction", "data"), va="center", ha="center",
                    color=d.looks[name].colour, fontweight="bold", fontsize="large",
                )  # fmt: skip
                d.tag(artist, name, f"{name}, seed {seed}: {status}")
                d.rows.append({"algorithm": name, "seed": int(seed), primary: float("nan"), "status": status})
        d.row_names(names)
        d.axes.margins(x=0.1)
        style.format_axis(d.axes, "x", style.short)
        d.axes.set_xlabel(d.label())
        if not section.trained:
            return None
        means_of = {name: section.grid(name, primary).mean(axis=1) for name in section.trained}
        spreads = {name: float(np.ptp(means)) for name, means in means_of.items() if len(means) > 1}
        alt = "One run of each: what another seed would give is not known."
        if spreads:
            widest = max(spreads, key=lambda name: spreads[name])
            alt = f"{widest} varies most from seed to seed: its runs span {formats.fixed(spreads[widest], 3)}."
        missing = int((section.cells["status"] != "ok").sum())
        lost_note = f" Crosses at the left: {missing} run{'s' * (missing != 1)} without a result." if missing else ""
        caption = f"One dot a run, its mean over the prompts.{lost_note} Two clusters in a row would mean that an"
        caption += " interval over so few seeds cannot be trusted."
        return d.chart("seeds", "Every run", alt=alt, caption=caption)


def wins(section: Section, canvas: Canvas = PAGE) -> Chart | None:
    """Wins, ties and losses against where the policy started, by the judge; whisker: the win rate's interval."""
    if "win_rate" not in section.metrics:
        return None
    names = [name for name in reversed(section.ranked) if name != section.baseline]
    measured = [name for name in names if section.estimate(name, "win_rate")]
    if not measured or (section.currency and set(section.contenders) - set(measured)):  # not the winner of a part
        return None
    names = measured
    with drawing(section, canvas, 1.15 + 0.46 * len(names)) as d:
        for y, name in enumerate(names):
            estimate = section.estimate(name, "win_rate")
            assert estimate is not None
            won = section.share(name, "win_rate", lambda rates: rates > 0.5)
            lost = section.share(name, "win_rate", lambda rates: rates < 0.5)
            tied = 1 - won - lost
            tip = f"{name}: {won:.0%} won, {tied:.0%} tied, {lost:.0%} lost; win rate " + ranged(
                100 * estimate.mean, 100 * estimate.low, 100 * estimate.high, 0
            )
            for left, width, alpha in ((0.0, won, 0.95), (won, tied, 0.45), (won + tied, lost, 0.14)):
                (bar,) = d.axes.barh(y, width, 0.56, left, color=d.looks[name].colour, alpha=alpha, linewidth=0)
                d.tag(bar, name, tip)
            ink: dict[str, Any] = {"color": INK, "linewidth": 1.4 * d.size}
            d.line(name, [estimate.low, estimate.high], [y, y], **ink)
            d.dot(name, estimate.mean, y, tip, size=7, marker="D", markerfacecolor=PAPER, markeredgecolor=INK)
            row = {"algorithm": name, "won": won, "tied": tied, "lost": lost, "win_rate": estimate.mean}
            row |= {"low": estimate.low, "high": estimate.high}
            controlled = section.length_controlled.get(name)
            if controlled is not None:
                rate = controlled.win_rate.value
                told = f"{name}: {rate:.0%} at equal length"
                d.dot(name, rate, y - 0.36, told, size=5.5, marker="^", color=INK)
                row["win_rate_at_equal_length"] = rate
            d.rows.insert(0, row)
        d.row_names(names)
        d.axes.axvline(0.5, color=GREY, linewidth=1.2 * d.size)
        d.axes.set_xlim(0, 1)
        d.axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        d.axes.set_xlabel("share of comparisons: full colour won, half tied, faint lost")
        named = findings.contenders(section, [row["algorithm"] for row in d.rows])
        best = max((row for row in d.rows if row["algorithm"] in named), key=lambda row: row["win_rate"])
        alt = f"{best['algorithm']} wins most often against its start: {best['win_rate']:.0%}, ties counted half."
        caption = "Judged against the start of training on the same prompts. Diamond: wins and half the ties; whisker: "
        caption += interval(section)
        caption += " Triangle below: the rate at equal length." if section.length_controlled else ""
        return d.chart("wins", "Wins, ties and losses", alt=alt, caption=caption)


def versus(section: Section, canvas: Canvas = PAGE) -> Chart | None:
    """P(row scores higher than column) for every pair; bold where their difference is settled."""
    names = [name for name in section.ranked if any(name in (c.a, c.b) for c in section.pairs)]
    if len(names) < 3:
        return None
    rate: dict[tuple[str, str], float] = {}
    word: dict[tuple[str, str], Verdict] = {}
    for c in section.pairs:
        rate[c.a, c.b], rate[c.b, c.a] = c.win_rate.mean, 1 - c.win_rate.mean
        word[c.a, c.b], word[c.b, c.a] = c.verdict, c.verdict.turned()
    size = len(names)
    with drawing(section, canvas, 1.0 + 0.62 * size) as d:
        for i, a in enumerate(names):
            for j, b in enumerate(names):
                if (a, b) not in rate:
                    continue
                value, settled = rate[a, b], word[a, b].decides
                mark = Mark(a, f"{a} scores higher than {b} on {value:.0%} of prompts: {word[a, b].label}")
                # Never so strong that ink on it would not be read, on a light page or a dark one.
                d.axes.barh(i, 0.94, 0.94, j - 0.47, color=FOR if value > 0.5 else AGAINST, linewidth=0,
                            alpha=0.04 + abs(value - 0.5), gid=d.gid(mark))  # fmt: skip
                d.axes.text(j, i, f"{value:.0%}", ha="center", va="center", fontweight="bold" if settled else "normal",
                            color=INK, fontsize="medium" if settled else "small",
                            gid=d.gid(Mark(a)))  # fmt: skip
                d.rows.append({"algorithm": a, "against": b, "win_rate": value, "verdict": word[a, b].label})
        d.row_names(names)
        slant: dict[str, Any] = {} if size < 7 else {"rotation": 40, "ha": "left", "rotation_mode": "anchor"}
        d.axes.set_xticks(range(size), names, fontweight="bold", **slant)
        d.axes.xaxis.tick_top()
        d.axes.set_xlim(-0.55, size - 0.45)
        d.axes.set_ylim(size - 0.45, -0.55)
        d.axes.grid(False)
        for side in d.axes.spines.values():
            side.set_visible(False)
        unsettled = sum(not c.verdict.decides for c in section.pairs)
        settled_pairs = f"{len(section.pairs) - unsettled} of {len(section.pairs)} pairs are settled"
        best, *others = findings.contenders(section, names)
        means = {name: float(section.grid(name, section.primary.name).to_numpy().mean()) for name in (best, *others)}
        alt = f"{settled_pairs}; {best} has the best mean."
        if others and len(set(means.values())) == 1:
            alt = f"{settled_pairs}; all have the same mean."
        caption = (
            f"How often the row has the higher {formats.phrase(section.primary.name)} than the column on one prompt, "
            "ties counted half. Bold: the pair's difference is settled; light: it is not."
        )
        return d.chart("versus", "Everyone against everyone", alt=alt, caption=caption)
