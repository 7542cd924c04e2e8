"""What more data would say: where the error comes from, what a larger design could see, what best-of-n is worth."""

from __future__ import annotations

import math

import numpy as np

from .. import formats
from ..analysis.section import Section
from ..statistics import Components, detectable_effect, expected_error, variance_components
from ..verdicts import ENOUGH_SEEDS
from . import style
from .chart import Chart, drawing, pieces, ranged
from .style import INK, PAGE, Canvas

PARTS = {"seed": "training seed", "prompt": "prompt", "interaction": "seed × prompt, and one sample's luck",
         "noise": "sampling"}  # fmt: skip
SHADES = (1.0, 0.6, 0.3, 0.14)
MOST_SEEDS = 20
"""Of the power curve's axis, unless the run has more."""


def variance(section: Section, canvas: Canvas = PAGE) -> Chart | None:
    """The variance of each algorithm's mean by source: what to buy next, seeds, prompts or samples."""
    shares: dict[str, dict[str, float]] = {}
    for name in reversed(section.ranked):
        parts = section.components(name)
        if parts is None:
            continue
        seeds, prompts, samples = section.cube(name, section.primary.name).values.shape
        of_mean = {
            "seed": parts.seed / seeds, "prompt": parts.prompt / prompts,
            "interaction": parts.interaction / (seeds * prompts),
            "noise": 0.0 if math.isnan(parts.noise) else parts.noise / (seeds * prompts * samples),
        }  # fmt: skip
        if sum(of_mean.values()) > 0:
            shares[name] = of_mean
    if not shares:
        return None
    with drawing(section, canvas, 1.35 + 0.46 * len(shares)) as d:
        for y, (name, of_mean) in enumerate(shares.items()):
            left, total = 0.0, sum(of_mean.values())
            for (part, value), shade in zip(of_mean.items(), SHADES, strict=True):
                if value > 0:
                    (bar,) = d.axes.barh(
                        y, value / total, 0.56, left, color=d.looks[name].colour, alpha=shade, linewidth=0
                    )
                    d.tag(bar, name, f"{name}: {value / total:.0%} of the mean's variance is from the {PARTS[part]}")
                left += value / total
            sd = math.sqrt(total)
            d.beside(name, f"SE {formats.fixed(sd, 3)}", y, "center")
            d.rows.insert(0, {"algorithm": name} | {f"variance_{part}": value for part, value in of_mean.items()})
        d.row_names(list(shares))
        d.axes.set_xlim(0, 1)
        d.axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        d.axes.set_xlabel("share of the mean's variance: seed, prompt, seed × prompt, sampling")
        seeds_of = {name: of_mean["seed"] / sum(of_mean.values()) for name, of_mean in shares.items()}
        most = max(seeds_of, key=lambda name: seeds_of[name])
        alt = f"For {most} {seeds_of[most]:.0%} of the error is from training seeds: more prompts would not mend that."
        if seeds_of[most] < 0.5:
            alt = f"Training seeds make at most {seeds_of[most]:.0%} of the error, for {most}: prompts weigh more."
        caption = (
            "From full colour to faint: training seed, prompt, their interaction, and sampling where a prompt has "
            "several samples. Of the mean, so divided by how many of each there are."
        )
        return d.chart("variance", "Where the error comes from", alt=alt, caption=caption)


def power(section: Section, canvas: Canvas = PAGE) -> Chart | None:
    """The smallest difference that would be seen against the number of seeds, for the best two trained algorithms."""
    found = _closest(section)
    if found is None:
        return None
    a, b, difference, parts, prompts = found
    seeds, now = np.arange(2, max(MOST_SEEDS, difference[1]) + 1), difference[1]
    with drawing(section, canvas, 4.0) as d:
        counts = (prompts, 4 * prompts, 16 * prompts)
        for count, alpha, dashes in zip(counts, (1.0, 0.62, 0.38), style.DASHES, strict=False):
            effects = [detectable_effect(*expected_error(parts, int(k), count)) for k in seeds]
            d.axes.plot(seeds, effects, color=INK, alpha=alpha, linestyle=dashes, label=f"{count} prompts")
            points = zip(seeds, effects, strict=True)
            d.rows += [{"seeds": int(k), "prompts": count, "detectable": effect} for k, effect in points]
        gap = abs(difference[0])
        at_now = detectable_effect(*expected_error(parts, now, prompts)) if now > 1 else math.nan
        d.axes.axhline(gap, color=style.COLOURS[0], linewidth=1.6 * d.size, linestyle=(0, (5, 2)))
        shown = f"this run: {now} seeds × {prompts} prompts see {formats.fixed(at_now)}"
        d.dot(a, now, at_now, shown, size=9, marker="o", color=INK)
        top = 1.15 * max(gap, float(np.nanmax([at_now, d.rows[min(1, len(d.rows) - 1)]["detectable"]])))
        d.axes.set_ylim(0, top or 1.0)
        d.axes.set_xlim(1.6, seeds[-1] + 0.4)
        # At the right, where the curves have ended below the line, or have not come down to it.
        under = d.rows[-1]["detectable"] > gap > 0.1 * top
        d.axes.annotate(f"|{a} − {b}| = {formats.fixed(gap)}", (1, gap), (-4, -4 if under else 4),
                        xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
                        va="top" if under else "bottom", color=style.COLOURS[0], fontsize="small")  # fmt: skip
        d.axes.set_xlabel("training seeds")
        d.axes.set_ylabel("smallest difference seen")
        style.format_axis(d.axes, "x", lambda value: f"{value:.0f}")
        style.format_axis(d.axes, "y", style.short)
        d.axes.legend(loc="best")
        seen = {int(k): detectable_effect(*expected_error(parts, int(k), prompts)) for k in seeds}
        enough = next((k for k, effect in seen.items() if effect <= gap), None)
        needed = f"{max(enough, ENOUGH_SEEDS)} seeds" if enough else f"more than {seeds[-1]} seeds"
        alt = f"To tell {a} from {b}, were their difference the true one, takes {needed} with these {prompts} prompts."
        caption = (
            f"With 80% power at p < 0.05, from the variances of the paired difference {a} − {b}; the dot is this run, "
            "the coloured line the difference that it estimates, which may be larger than the true one."
        )
        return d.chart("power", "What more seeds would see", alt=alt, caption=caption)


def _closest(section: Section) -> tuple[str, str, tuple[float, int], Components, int] | None:
    """The best two contenders, or one and the baseline: (a, b, (difference, seeds), variances, prompts)."""
    order = [name for name in section.ranked if name in section.contenders]
    if not order:
        return None
    a, b = order[0], order[1] if len(order) > 1 else section.baseline
    pair = next((pair for pair in section.pairs if {pair.a, pair.b} == {a, b}), None)
    if pair is None or b is None:
        return None
    left, right = section.grid(pair.a, section.primary.name), section.grid(pair.b, section.primary.name)
    seeds, prompts = left.index.intersection(right.index), left.columns.intersection(right.columns)
    if min(len(seeds), len(prompts)) < 2:
        return None
    parts = variance_components((left.loc[seeds, prompts] - right.loc[seeds, prompts]).to_numpy())
    return pair.a, pair.b, (pair.difference.mean, len(seeds)), parts, len(prompts)


def best_of(section: Section, canvas: Canvas = PAGE) -> Chart | None:
    """Best-of-n of the reference against n; each trained policy is a level: how many samples is it worth?"""
    frontier = section.frontier
    if frontier is None or len(frontier.best_of_n.n) < 2:
        return None
    best, lines = frontier.best_of_n, []
    with drawing(section, canvas, 4.2) as d:
        name = section.baseline or section.finished[0]
        d.axes.plot(best.n, best.reward, color=INK, linewidth=2 * d.size)
        lines += pieces([float(n) for n in best.n], [float(r) for r in best.reward])
        for n, reward in zip(best.n, best.reward, strict=True):
            told = f"best of {n:.0f}: {formats.fixed(float(reward))}"
            d.dot(name, float(n), float(reward), told, color=INK, marker="o")
            d.rows.append({"series": "best of n", "n": float(n), section.primary.name: float(reward)})
        for policy, place in frontier.policies.items():
            reward, worth = place.reward, place.worth.value
            crossing = min(worth, float(best.n[-1]))
            d.line(policy, [crossing, best.n[-1]], [reward.mean] * 2, linestyle=d.looks[policy].dashes, alpha=0.6)
            d.line(policy, [crossing] * 2, [reward.low, reward.high], linewidth=1.8 * d.size)
            tip = f"{policy}: {ranged(reward.mean, reward.low, reward.high)}, {place.claim}"
            d.dot(policy, crossing, reward.mean, tip, size=9)
            d.end(policy, float(best.n[-1]), reward.mean)
            d.rows.append({"series": policy, "n": worth, section.primary.name: reward.mean})
        rewards = [place.reward for place in frontier.policies.values()]
        d.focus(
            "y", [*map(float, best.reward), *(r.mean for r in rewards)], [e for r in rewards for e in (r.low, r.high)]
        )
        d.axes.set_xscale("log", base=2)
        d.axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
        d.axes.set_xlabel("n, samples of the reference that the best is chosen from")
        d.axes.set_ylabel(d.label())
        style.format_axis(d.axes, "y", style.short)
        d.name_ends(lines)
        top = next((each for each in section.ranked if each in frontier.policies), "")
        alt = f"{top} is {frontier.policies[top].claim} of the reference." if top else "No policy has a KL."
        caption = (
            f"Every subset of {frontier.samples} samples of the reference counted, on {frontier.prompts} prompts; "
            "needs no training, costs n samples an answer. Marker: where a trained policy meets the curve; "
            "bar: its 95% interval."
        )
        return d.chart("best-of-n", "Worth best of n", alt=alt, caption=caption)
