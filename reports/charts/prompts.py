"""Where the gain comes from: prompt by prompt, over the whole distribution, and against the length of the answer."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .. import formats
from ..analysis.section import Section
from ..preferences import logistic_fit
from . import style
from .chart import Chart, Drawing, drawing, pieces
from .style import GREY, PAGE, Canvas

POINTED = 12
"""Prompts a side, best and worst, that a reader can point at for one algorithm; those between are one line."""
BINS = 8
"""Of equal count, over the log ratio of lengths."""
TICKS = 8
"""On the axis of lengths, at most."""
CURVE = 40
"""Points of a fitted line."""
LENGTH = "length_tokens"
NARROWEST = float(np.log2(1.12))
"""Of the axis of lengths, to either side: what is a hundredth longer stands at the middle."""


def gains(section: Section, canvas: Canvas = PAGE) -> Chart | None:
    """Each prompt's gain over the baseline, mean over seeds, from best to worst: do few prompts carry the mean?"""
    if section.baseline is None or not section.effects:
        return None
    with drawing(section, canvas, 4.2) as d:
        for name in section.effects:
            gain = prompt_gains(section, name).sort_values(ascending=False)
            if section.higher_is_better is False:
                gain = gain[::-1]
            shares = (np.arange(len(gain)) + 0.5) / len(gain)
            d.line(name, shares, gain.to_numpy(), linewidth=1.5 * d.size, linestyle=d.looks[name].dashes)
            for i, (prompt, value) in enumerate(gain.items()):
                d.rows.append({"algorithm": name, "prompt_id": prompt, "gain": float(value)})
                if min(i, len(gain) - 1 - i) < POINTED:
                    tip = f"{name}, prompt {prompt}: {formats.fixed(float(value), sign=True)}"
                    d.dot(name, shares[i], float(value), tip, size=4.5, prompt=str(prompt), markeredgewidth=0.4)
            d.end(name, float(shares[-1]), float(gain.iloc[-1]))
        d.axes.axhline(0, color=GREY, linewidth=1.4 * d.size)
        d.axes.set_xlim(0, 1)
        d.axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        d.axes.set_xlabel("share of prompts, each algorithm's best first")
        d.axes.set_ylabel(f"gain over {section.baseline}")
        style.format_axis(d.axes, "y", style.short)
        d.name_ends()
        frame = pd.DataFrame(d.rows)
        good = frame["gain"] > 0 if section.higher_is_better else frame["gain"] < 0
        shares_of = good.groupby(frame["algorithm"]).mean()
        best = str(shares_of.idxmax())
        alt = f"{best} improves most prompts: {shares_of[best]:.0%} of them; the least is {shares_of.min():.0%}."
        if not shares_of[best]:
            alt = f"No algorithm improves any prompt over {section.baseline}."
        caption = (
            "One point a held-out prompt, its gain averaged over seeds. A curve that falls to 0 early says that few "
            "prompts carry the mean. A point opens its completions."
        )
        return d.chart("gains", "Gain, prompt by prompt", alt=alt, caption=caption)


def prompt_gains(section: Section, name: str) -> pd.Series[float]:
    """Mean over seeds of an algorithm's gain over the baseline on each prompt that both have."""
    primary = section.primary.name
    own, base = section.grid(name, primary), section.grid(str(section.baseline), primary)
    seeds, prompts = own.index.intersection(base.index), own.columns.intersection(base.columns)
    return (own.loc[seeds, prompts] - base.loc[seeds, prompts]).mean()


def distribution(section: Section, canvas: Canvas = PAGE) -> Chart | None:
    """The share of prompts that score at most so much: a mean hides whether the worst or the best prompts moved."""
    primary = section.primary.name
    with drawing(section, canvas, 4.0) as d:
        medians = {}
        for name in section.finished:
            values = section.grid(name, primary).mean().to_numpy()
            medians[name] = _shares(d, name, values, primary, "prompts score at most")
        if not medians:
            return None
        d.axes.set_xlabel(d.label(suffix=" of a prompt"))
        d.axes.set_ylabel("share of prompts at or below")
        _share_axes(d)
        order = sorted(medians, key=lambda name: medians[name], reverse=section.higher_is_better)
        alt = f"{order[0]} has the best median prompt, {formats.fixed(medians[order[0]])}; {order[-1]} the worst, "
        alt += f"{formats.fixed(medians[order[-1]])}."
        caption = "Markers: the 10th, 25th, 50th, 75th and 90th of a hundred prompts. Further right is better."
        caption = caption if section.higher_is_better else caption.replace("right", "left")
        return d.chart("distribution", "All prompts, not the mean alone", alt=alt, caption=caption)


def _shares(d: Drawing, name: str, values: np.ndarray, metric: str, what: str) -> float:
    """An algorithm's line of shares at or below a value, with marks at some; gives the median."""
    ordered = np.sort(values)
    shares = np.arange(1, len(ordered) + 1) / len(ordered)
    d.line(name, ordered, shares, linestyle=d.looks[name].dashes, drawstyle="steps-post")
    for q in (0.1, 0.25, 0.5, 0.75, 0.9):
        value = float(np.quantile(ordered, q))
        d.dot(name, value, q, f"{name}: {q:.0%} of {what} {formats.fixed(value)}", size=5)
        d.rows.append({"algorithm": name, "share": q, metric: value})
    return float(np.median(ordered))


def _share_axes(d: Drawing) -> None:
    d.axes.set_ylim(0, 1.02)
    d.axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    style.format_axis(d.axes, "x", style.short, ticks=8)
    d.axes.legend(handles=d.handles(), loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)


def completion_lengths(section: Section, canvas: Canvas = PAGE) -> Chart | None:
    """The share of completions that are at most so long; none where all but a twentieth of each are of one length."""
    writers = [name for name in section.finished if name not in section.idle or name == section.baseline]
    lengths = {name: section.values(name, LENGTH).to_numpy(float) for name in writers if LENGTH in section.metrics}
    lengths = {name: values for name, values in lengths.items() if len(values)}
    longest = max((values.max() for values in lengths.values()), default=0.0)
    if all(np.quantile(values, 0.05) == longest for values in lengths.values()):
        return None
    with drawing(section, canvas, 4.0) as d:
        medians = {
            name: _shares(d, name, values, LENGTH, "completions have at most, in tokens,")
            for name, values in lengths.items()
        }
        d.axes.set_xlabel("length of a completion, tokens")
        d.axes.set_ylabel("share of completions at or below")
        _share_axes(d)
        long, short = (pick(medians, key=lambda name: medians[name]) for pick in (max, min))
        alt = f"{long} writes the longest completions, {formats.fixed(medians[long], 0)} tokens in the median; {short} "
        alt += f"the shortest, {formats.fixed(medians[short], 0)}."
        if medians[long] == medians[short]:
            alt = f"All have the same median length, {formats.fixed(medians[long], 0)} tokens."
        caption = (
            "Every completion at the end of training, of all seeds. Markers: the 10th, 25th, 50th, 75th and 90th of "
        )
        caption += "a hundred. An upright line at the right is the length limit."
        return d.chart("lengths", "How long the completions are", alt=alt, caption=caption)


def lengths(section: Section, canvas: Canvas = PAGE) -> Chart | None:
    """Win rate against how much longer the answer is than the baseline's: does length win?"""
    if section.baseline is None or not {"win_rate", LENGTH} <= set(section.metrics):
        return None
    start = section.grid(section.baseline, LENGTH)
    with drawing(section, canvas, 4.0) as d:
        slopes, drawn = {}, []
        for name in section.trained:
            own, won = section.grid(name, LENGTH), section.grid(name, "win_rate")
            seeds = own.index.intersection(start.index).intersection(won.index)
            prompts = own.columns.intersection(start.columns).intersection(won.columns)
            long, short, y = (frame.loc[seeds, prompts].to_numpy(float).ravel() for frame in (own, start, won))
            kept = (long > 0) & (short > 0)
            ratio, y = np.log2(long[kept] / short[kept]), y[kept]
            if len(y) < 2 * BINS or np.ptp(ratio) == 0:
                continue
            points = _binned(ratio, y)
            if len(points) < 2:
                continue
            fit = logistic_fit(np.stack([np.ones(len(y)), ratio], axis=1), y)
            xs = np.linspace(points[0, 0], points[-1, 0], CURVE)
            curve = 1 / (1 + np.exp(-(fit[0] + fit[1] * xs)))
            d.line(name, xs, curve, linestyle=d.looks[name].dashes, linewidth=1.6 * d.size)
            for x, rate, count in points:
                tip = f"{name}: {rate:.0%} of {count:.0f} comparisons won at {2**x:.2f} times the length"
                d.dot(name, x, rate, tip, size=6)
                d.rows.append({"algorithm": name, "log2_ratio": x, "win_rate": rate, "comparisons": int(count)})
            slopes[name] = float(np.corrcoef(ratio, y)[0, 1]) if np.ptp(y) else 0.0
            d.end(name, float(xs[-1]), float(curve[-1]))
            drawn += pieces(xs.tolist(), curve.tolist())
            _at_equal_length(d, name)
        if not slopes:
            return None
        d.axes.axhline(0.5, color=GREY, linewidth=1.2 * d.size)
        d.axes.axvline(0, color=GREY, linewidth=1.2 * d.size)
        d.axes.set_ylim(-0.03, 1.03)
        d.axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        low, high = d.axes.get_xlim()
        d.axes.set_xlim(min(low, -NARROWEST), max(high, NARROWEST))
        ratios = ratio_ticks(*d.axes.get_xlim())
        d.axes.set_xticks(np.log2(ratios), [f"×{ratio:.3g}" for ratio in ratios])
        d.axes.set_xlabel(f"length of the answer, times that of {section.baseline}")
        d.axes.set_ylabel("win rate  → better")
        d.name_ends(drawn)
        most = max(slopes, key=lambda name: abs(slopes[name]))
        sense = "longer" if slopes[most] > 0 else "shorter"
        alt = f"Length matters most for {most}: winning and being {sense} correlate with r = {abs(slopes[most]):.2f}."
        caption = (
            f"Markers: up to {BINS} groups of about equally many comparisons; line: a logistic fit. Flat: the judge "
            "does not reward length; on the upright line both answers are equally long."
        )
        if section.length_controlled:
            caption += " Hollow on it: the win rate at equal length, with its 95% interval."
        return d.chart("win-length", "Does length win?", alt=alt, caption=caption)


def _at_equal_length(d: Drawing, name: str) -> None:
    """The length-controlled win rate, on the line where both answers are equally long."""
    controlled = d.section.length_controlled.get(name)
    if controlled is not None:
        rate = controlled.win_rate
        d.line(name, [0, 0], [rate.low, rate.high], linewidth=1.3 * d.size, alpha=0.75)
        tip = f"{name} at equal length: {rate.value:.0%} {formats.span(100 * rate.low, 100 * rate.high, 0)}"
        d.dot(name, 0.0, rate.value, tip, size=7, marker="D", hollow=True)
        d.rows.append({"algorithm": name, "log2_ratio": 0.0, "win_rate": rate.value, "at_equal_length": True})


def ratio_ticks(low: float, high: float) -> np.ndarray:
    """Round ratios between two logarithms to base 2: about six, no two of them alike."""
    powers = np.arange(np.ceil(low), np.floor(high) + 1)
    spaced = powers[powers % max(1, -(-len(powers) // TICKS)) == 0]
    halves = np.sort(np.concatenate([powers, np.log2(0.75) + np.arange(np.floor(low), np.ceil(high) + 2)]))
    halves = halves[(halves >= low) & (halves <= high)]
    if high - low > 1.5:
        return np.asarray(2.0 ** (halves if len(halves) <= TICKS else spaced))
    for step in (0.05, 0.1, 0.25):
        ratios = step * np.arange(np.ceil(2**low / step), np.floor(2**high / step) + 1)
        if len(ratios) <= TICKS:
            break
    return np.asarray(ratios)


def _binned(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(bins, 3): mean x, mean y and count of groups in the order of x; ties of x stay together.

    They are of equal count but for the ties: a group that these leave with less than half of its share goes to its
    neighbour, for the win rate of an answer or two says nothing.
    """
    groups = pd.qcut(x, BINS, labels=False, duplicates="drop")
    sizes = np.bincount(groups)
    merged, held = np.zeros(len(sizes), int), 0
    for group in range(1, len(sizes)):
        held += sizes[group - 1]
        rest = sizes[group:].sum()
        enough = min(held, rest) * 2 * BINS >= len(x)
        merged[group], held = merged[group - 1] + enough, 0 if enough else held
    frame = pd.DataFrame({"x": x, "y": y}).groupby(merged[groups])
    return np.stack([frame["x"].mean(), frame["y"].mean(), frame["x"].count()], axis=1)
