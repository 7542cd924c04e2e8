"""Reward models: what a policy makes of them along training, and whether their confidence is earned.

The first chart is Fig. 1 of arXiv:2210.10760 (Gao, Schulman and Hilton) with training for its axis; the second is the
reliability diagram of arXiv:1706.04599 (Guo et al.).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .. import formats
from ..analysis.curves import Point
from ..analysis.section import Section
from ..tables.table import spread
from . import style
from .chart import Chart, Drawing, drawing, interval, ranged
from .style import GREY, PAGE, Canvas

DASHED = (0, (4, 1.6))
BINS = 10
PANELS = 4
"""What a row has room for."""


def over_optimisation(section: Section, canvas: Canvas = PAGE) -> Chart | None:
    """Gain of the training reward and of the gold one since the start, along training: one panel a contender."""
    if not {"proxy_gain", "gold_gain"} <= set(section.metrics):
        return None
    curves = {
        name: (section.curve(name, "proxy_gain"), section.curve(name, "gold_gain")) for name in section.contenders
    }
    curves = {name: pair for name, pair in curves.items() if pair[0] and len(pair[0]) == len(pair[1])}
    if not curves:
        return None
    widest = sorted(curves, key=lambda name: _gap(*curves[name]), reverse=True)[:PANELS]
    drawn = {name: pair for name, pair in curves.items() if name in widest}
    with drawing(section, canvas.wide, 3.6, panels=len(drawn)) as d:
        for axes, (name, (proxies, golds)) in zip(d.panels, drawn.items(), strict=True):
            if axes is not d.axes:
                axes.sharey(d.axes)
            axes.axhline(0, color=GREY, linewidth=1.2 * d.size)
            _gains(d, axes, name, proxies, hollow=True)
            _gains(d, axes, name, golds, hollow=False)
            for proxy, gold in zip(proxies, golds, strict=True):
                row = {"algorithm": name, "fraction": gold.fraction}
                d.rows.append(row | spread("proxy_gain", proxy.estimate) | spread("gold_gain", gold.estimate))
            d.text(name, name, 0.5, 1.04, axes, transform=axes.transAxes, ha="center", fontweight="bold")
            axes.set_xlabel("share of the budget")
            axes.set_xlim(0, 1.04)
            style.format_axis(axes, "x", style.short, ticks=4)
            style.format_axis(axes, "y", style.short)
        d.axes.set_ylabel("gain since the start, SD")
        kinds: dict[str, dict[str, Any]] = {
            "training reward": {"linestyle": DASHED, "markerfacecolor": "none"},
            "gold reward": {},
        }
        key = [Line2D([], [], color=GREY, marker="o", label=kind, **look) for kind, look in kinds.items()]
        d.axes.legend(handles=key, loc="upper left", fontsize="small")
        caption = (
            "Hollow markers on dashed lines: the reward that training optimised; filled ones: the gold reward. Both "
            "are gains over the start's samples, in standard deviations of these: lines that part show a proxy that is "
            f"over-optimised. Bands: {interval(section, len(section.curve_prompts))}"
        )
        if len(drawn) < len(curves):
            caption += f" Drawn: the {PANELS} of {len(curves)} contenders whose lines part most."
        alt = _parting(widest[0], *curves[widest[0]])
        return d.chart("over-optimisation", "Proxy and gold along training", alt=alt, caption=caption)


def _gains(d: Drawing, axes: Axes, name: str, points: list[Point], *, hollow: bool) -> None:
    what = "training reward" if hollow else "gold reward"
    # The start gained nothing, by definition.
    shares = [(0.0, 0.0, 0.0, 0.0)] if points[0].fraction > 0 else []
    shares += [(p.fraction, p.estimate.mean, p.estimate.low, p.estimate.high) for p in points]
    xs, ys, low, high = zip(*shares, strict=True)
    d.line(name, xs, ys, axes, **({"linestyle": DASHED} if hollow else {}))
    d.band(name, xs, low, high, axes)
    for point in points:
        gain = ranged(point.estimate.mean, point.estimate.low, point.estimate.high, 2, sign=True)
        tip = f"{name}, {point.fraction:.0%} of the budget: {what} {gain} SD"
        d.dot(name, point.fraction, point.estimate.mean, tip, axes, hollow=hollow, size=5 if hollow else 6)


def _gap(proxies: list[Point], golds: list[Point]) -> float:
    """How much more the training reward gained than the gold one, at the end."""
    return proxies[-1].estimate.mean - golds[-1].estimate.mean


def _parting(name: str, proxies: list[Point], golds: list[Point]) -> str:
    """How far proxy and gold end up apart, and what became of the gold since its best."""
    proxy, gains = proxies[-1].estimate.mean, [point.estimate.mean for point in golds]
    text = (
        f"{name} ends with the widest gap: the training reward gained {formats.fixed(proxy, 2, sign=True)} standard "
        f"deviations and the gold reward {formats.fixed(gains[-1], 2, sign=True)}"
    )
    lost = max(gains) - gains[-1]
    return f"{text}, {formats.fixed(lost, 2)} below its best." if lost > 0 else f"{text}, its best so far."


def reliability(section: Section, canvas: Canvas = PAGE) -> Chart | None:
    """Accuracy of each reward model in bins of its confidence: on the line, it is as sure as it is right."""
    if not {"pair_confidence", "pair_accuracy"} <= set(section.metrics):
        return None
    edges = np.linspace(0.5, 1.0, BINS + 1)
    with drawing(section, canvas, 4.4) as d:
        d.axes.plot([0.5, 1], [0.5, 1], color=GREY, linewidth=1.2 * d.size, linestyle=(0, (1, 2)))
        for name in section.algorithms:
            confidence, right = (section.values(name, metric) for metric in ("pair_confidence", "pair_accuracy"))
            if not len(confidence) or len(confidence) != len(right):
                continue
            bins = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, BINS - 1)
            found: list[dict[str, Any]] = []
            for number in np.unique(bins):
                inside = bins == number
                row: dict[str, Any] = {
                    "algorithm": name, "confidence": float(confidence[inside].mean()),
                    "accuracy": float(right[inside].mean()), "pairs": int(inside.sum()),
                }  # fmt: skip
                found.append(row)
                tip = f"{name}: of {row['pairs']} pairs at {row['confidence']:.2f}, {row['accuracy']:.0%} right"
                d.dot(name, row["confidence"], row["accuracy"], tip, size=4 + 5 * inside.mean() ** 0.5)
            d.line(name, [row["confidence"] for row in found], [row["accuracy"] for row in found],
                   linestyle=d.looks[name].dashes)  # fmt: skip
            d.end(name, found[-1]["confidence"], found[-1]["accuracy"])
            d.rows += found
        if not d.rows:
            return None
        d.axes.set_xlabel("probability given to the preferred side")
        d.axes.set_ylabel("share of pairs that are right")
        style.format_axis(d.axes, "x", style.short)
        style.format_axis(d.axes, "y", style.short)
        d.name_ends()
        errors = _calibration_errors(d)
        worst, best = max(errors, key=lambda name: errors[name]), min(errors, key=lambda name: errors[name])
        alt = f"Expected calibration error: {errors[best]:.3f} for {best}"
        alt += "." if worst == best else f", the least; {errors[worst]:.3f} for {worst}, the most."
        caption = (
            "Held-out pairs of all seeds in ten bins of the probability that the reward model gives to the side it "
            "prefers; larger markers hold more pairs. On the dotted line it is as sure as it is right; below, too sure."
        )
        return d.chart("reliability", "Confidence of reward models", alt=alt, caption=caption)


def _calibration_errors(d: Drawing) -> dict[str, float]:
    """Mean over pairs of |confidence - accuracy| of their bin."""
    errors = {}
    for name in dict.fromkeys(row["algorithm"] for row in d.rows):
        own = [row for row in d.rows if row["algorithm"] == name]
        total = sum(row["pairs"] for row in own)
        errors[name] = sum(row["pairs"] * abs(row["confidence"] - row["accuracy"]) for row in own) / total
    return errors
