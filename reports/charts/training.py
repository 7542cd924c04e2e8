"""What the gain cost: the reward-KL frontier, learning curves by currency, cost against gain, length, and the proxy.

The frontier follows Fig. 2 of arXiv:2305.18290 (DPO), with every algorithm's evaluations along training and exact KL;
the proxy's chart follows arXiv:2210.10760 (Gao et al.). Their axis is even in √KL, in which
the gain of a small change is linear.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from .. import formats
from ..analysis import findings
from ..analysis.curves import Point
from ..analysis.frontier import on_prompts
from ..analysis.section import Section
from ..frame import CURRENCIES
from ..statistics import Floats
from ..tables.table import spread
from . import style
from .chart import Chart, Drawing, better, drawing, interval, pieces, ranged
from .style import GREY, INK, PAGE, Canvas

AXES = tuple(name for name in CURRENCIES if name != "tokens_scored")
"""The budget axes that a learning curve can be read against."""
COSTS = {"flops": "FLOPs", "seconds": "training time in seconds", "peak_bytes": "peak memory, worst seed"}
UNITS = {"flops": "FLOPs", "seconds": "training time in seconds"}
SAME_PROMPTS = "All points are on these same prompts."


def frontier(section: Section, canvas: Canvas = PAGE) -> Chart | None:
    """Primary metric against exact KL, every evaluation along training; faint lines are single seeds."""
    if section.primary.name == "kl" or "kl" not in section.metrics:
        return None
    with drawing(section, canvas.wide, 5.2) as d:
        d.axes.set_xscale("function", functions=style.ROOT)
        pool = _attainable(d)
        _trajectories(d, "kl", "KL", "nats", section.finished)
        d.axes.set_xlabel("KL from where training started, nats a sequence (exact; the axis is even in √KL)")
        alt = findings.frontier(section, d.rows)
        caption = _trajectory_caption(section)
        if pool:
            caption += (
                f" Dark line: the most that any policy could reach, from {pool} samples a prompt of the reference; it "
                "ends where they are too few to say. Crosses near it: best of n."
            )
        return d.chart("frontier", "Reward–KL frontier", alt=alt, caption=caption)


def _attainable(d: Drawing) -> int:
    """The attainable frontier and best-of-n behind the trajectories, on their prompts; how many samples it is from."""
    found = on_prompts(d.section, d.section.curve_prompts)
    if found is None or len(found[0].kl) < 2:
        return 0
    curve, best, _ = found
    d.axes.plot(curve.kl, curve.reward, color=INK, linewidth=1.6 * d.size, alpha=0.75)
    d.axes.annotate("attainable", (curve.kl[-1], curve.reward[-1]), (0, 34), textcoords="offset points",
                    fontsize="small", color=INK, ha="center", va="bottom",
                    arrowprops={"arrowstyle": "-", "color": INK, "alpha": 0.5, "linewidth": 0.8 * d.size})  # fmt: skip
    d.axes.annotate(f"best of {best.n[-1]:.0f}", (best.kl[-1], best.reward[-1]), (7, 0), textcoords="offset points",
                    fontsize="small", color=INK, va="center")  # fmt: skip
    name = d.section.baseline or d.section.finished[0]
    for n, kl, reward in zip(best.n, best.kl, best.reward, strict=True):
        if n > 1:
            told = f"best of {n:.0f}: {formats.fixed(float(reward))} at no more than {kl:.2f} nats"
            ink: dict[str, Any] = {"color": INK, "markeredgecolor": INK}
            d.dot(name, float(kl), float(reward), told, marker="x", size=5.5, **ink)
    return int(best.n[-1])


def efficiency(section: Section, canvas: Canvas = PAGE) -> Chart | None:
    """Primary metric against the mean length of a completion, along training: is the gain only length?"""
    if "length_tokens" not in section.metrics:
        return None
    with drawing(section, canvas, 4.0) as d:
        untrained = section.idle - {section.baseline}
        _trajectories(d, "length_tokens", "length", "tokens", [n for n in section.finished if n not in untrained])
        if not d.rows:
            return None
        d.axes.set_xlabel("mean length of a completion, tokens")
        ends = {row["algorithm"]: row for row in d.rows}
        starts = {row["algorithm"]: row for row in reversed(d.rows)}
        grown = [name for name in section.trained if name in ends]
        growth = {name: ends[name]["length_tokens"] - starts[name]["length_tokens"] for name in grown}
        if not growth:
            return None
        most = max(growth, key=lambda name: abs(growth[name]))
        change = "longer" if growth[most] > 0 else "shorter"
        alt = f"{most} changes length most: its completions are {abs(growth[most]):.1f} tokens {change} at the end."
        if abs(growth[most]) < 0.05 * starts[most]["length_tokens"]:
            alt = "No algorithm changes the mean length of its completions by a twentieth."
        caption = _trajectory_caption(section)
        caption += f" Not drawn, since they train nothing: {findings.listing(sorted(untrained))}." if untrained else ""
        return d.chart("length", "Reward against length", alt=alt, caption=caption)


def _trajectories(d: Drawing, against: str, short: str, unit: str, names: list[str]) -> None:
    """Each algorithm's path through (``against``, primary metric); the end larger, with both intervals."""
    section, primary = d.section, d.section.primary.name
    bars, bounds = [], d.axes.dataLim
    shown_x, shown_y = ([*ends] if d.axes.has_data() else [] for ends in (bounds.intervalx, bounds.intervaly))
    for name in names:
        ys, xs, look = section.curve(name, primary), section.curve(name, against), d.looks[name]
        if not ys or len(xs) != len(ys):
            continue
        for seed in xs[-1].by_seed:
            pairs = [(x.by_seed.get(seed), y.by_seed.get(seed)) for x, y in zip(xs, ys, strict=True)]
            kept = np.array([pair for pair in pairs if None not in pair], dtype=float)
            d.line(name, kept[:, 0], kept[:, 1], linewidth=0.9 * d.size, alpha=0.28)
            shown_x += kept[:, 0].tolist()
            shown_y += kept[:, 1].tolist()
        x, y = xs[-1].estimate, ys[-1].estimate
        d.line(name, [x.low, x.high], [y.mean] * 2, linewidth=1.3 * d.size, alpha=0.75)
        d.line(name, [x.mean] * 2, [y.low, y.high], linewidth=1.3 * d.size, alpha=0.75)
        d.line(name, [p.estimate.mean for p in xs], [p.estimate.mean for p in ys], linestyle=look.dashes)
        for x_point, y_point in zip(xs, ys, strict=True):
            last = y_point is ys[-1]
            tip = (
                f"{name}, {y_point.fraction:.0%} of the budget: {formats.phrase(primary)} {_ranged(y_point)}, {short} "
            )
            tip += f"{_ranged(x_point, 1)} {unit}"
            d.dot(name, x_point.estimate.mean, y_point.estimate.mean, tip, size=9.5 if last else 5.5)
            row = {"algorithm": name, "fraction": y_point.fraction}
            d.rows.append(row | spread(against, x_point.estimate) | spread(primary, y_point.estimate))
        d.end(name, x.mean, y.mean)
        bars += [(x.low, y.mean, x.high, y.mean), (x.mean, y.low, x.mean, y.high)]
        shown_x += [point.estimate.mean for point in xs]
        shown_y += [point.estimate.mean for point in ys]
    d.axes.set_ylabel(d.label())
    if d.rows:
        if against == "length_tokens":  # a hundredth of a token is no change of length
            middle = sum(shown_x) / len(shown_x)
            shown_x += [0.95 * middle - 0.5, 1.05 * middle + 0.5]
        d.focus("x", shown_x, [bar[end] for bar in bars for end in (0, 2)])
        d.focus("y", shown_y, [bar[end] for bar in bars for end in (1, 3)])
    if against == "kl":
        style.root_axis(d.axes)
    else:
        style.format_axis(d.axes, "x", style.short, ticks=8)
    style.format_axis(d.axes, "y", style.short)
    d.name_ends(bars)


def _trajectory_caption(section: Section) -> str:
    return (
        "Each marker is an evaluation along training, the last one larger; faint lines are single seeds. "
        f"Crosses on the last: {interval(section, len(section.curve_prompts))} {SAME_PROMPTS}"
    )


def proxy(section: Section, canvas: Canvas = PAGE) -> Chart | None:
    """The reward that training optimised beside the gold reward, against sqrt(KL), and one against the other."""
    gold, optimised = section.primary.name, "train_reward"
    if "proxy_gain" in section.metrics:  # their chart has both in one unit
        return None
    if gold == optimised or not {optimised, "kl"} <= set(section.metrics) or _same(section, gold, optimised):
        return None
    with drawing(section, canvas, 3.9, panels=2) as d:
        left, right = d.panels
        for name in section.finished:
            kl, ys, proxies = (section.curve(name, metric) for metric in ("kl", gold, optimised))
            if not ys or not len(kl) == len(ys) == len(proxies):
                continue
            roots = [float(np.sqrt(max(0.0, point.estimate.mean))) for point in kl]
            golds, optimised_means = ([p.estimate.mean for p in points] for points in (ys, proxies))
            d.line(name, roots, golds, left)
            d.line(name, roots, optimised_means, left, linestyle=(0, (4, 1.6)), linewidth=1.4 * d.size)
            d.line(name, optimised_means, golds, right, linestyle=d.looks[name].dashes)
            fitted = _fit(d, left, name, golds[0], np.array(roots))
            for root, g, o, point in zip(roots, golds, optimised_means, ys, strict=True):
                tip = f"{name}, {point.fraction:.0%} of the budget: gold {formats.fixed(g)}, train {formats.fixed(o)}"
                d.dot(name, root, g, tip, left)
                d.dot(name, root, o, tip, left, hollow=True, size=5)
                d.dot(name, o, g, tip, right)
                row = {"algorithm": name, "fraction": point.fraction, "sqrt_kl": root, gold: g, optimised: o}
                d.rows.append(row | ({"fitted": float(fitted(np.array(root)))} if fitted and root > 0 else {}))
            d.end(name, optimised_means[-1], golds[-1])
        if not d.rows:
            return None
        low, high = (f(row[key] for row in d.rows for key in (gold, optimised)) for f in (min, max))
        right.plot([low, high], [low, high], color=GREY, linewidth=1.2 * d.size, linestyle=(0, (1, 2)))
        left.set_xlabel("√KL")
        left.set_ylabel(d.label())
        right.set_xlabel("training reward")
        right.set_ylabel(formats.phrase(gold))
        for axes in d.panels:
            style.format_axis(axes, "x", style.short, ticks=5)
            style.format_axis(axes, "y", style.short)
        d.name_ends(axes=right)
        ends = {name: [section.estimate(name, metric) for metric in (optimised, gold)] for name in section.trained}
        gaps = {name: o.mean - g.mean for name, (o, g) in ends.items() if o is not None and g is not None}
        widest = max(gaps, key=lambda name: gaps[name], default="")
        alt = "Nobody ends with a training reward above its gold reward."
        if widest and gaps[widest] > 0:
            alt = f"{widest} ends with the widest gap: on all prompts its training reward is "
            alt += f"{formats.fixed(gaps[widest])} above its gold reward."
        caption = (
            "Left: filled markers are the gold reward, hollow ones on dashed lines the reward that training optimised. "
            "Thin: gain = d (a − b log d), d = √KL, fitted to the gold reward where it explains most of it; a stroke "
            "across it is where it turns. "
            "Right: on the dotted line both are equal; a path that bends below it buys proxy without gold. "
            f"Means over seeds and the {len(section.curve_prompts)} held-out prompts that every evaluation asked."
        )
        return d.chart("proxy", "Proxy against gold reward", alt=alt, caption=caption)


def _fit(d: Drawing, axes: Axes, name: str, start: float, roots: Floats) -> Callable[[Floats], Floats] | None:
    """Draw Gao's form through an algorithm's gold reward, as far as it went, and where it turns; None if it is none."""
    found = d.section.overoptimised.get(name)
    fit = found.fit if found and d.section.primary.name == "gold_reward" else None
    if fit is None or not fit.r_squared > 0.5:
        return None

    def at(root: Floats) -> Floats:
        return np.asarray(start + root * (fit.a - fit.b * np.log(root)))

    path = np.linspace(0.02, 1.0, 60) * roots.max()
    d.line(name, path, at(path), axes, linewidth=0.9 * d.size, alpha=0.5)
    if np.isfinite(fit.d_peak):
        tip = f"{name}: the fitted gold reward turns at √KL = {fit.d_peak:.2f}"
        own: dict[str, Any] = {"markeredgecolor": d.looks[name].colour, "markeredgewidth": 1.4 * d.size}
        d.dot(name, fit.d_peak, float(at(np.array(fit.d_peak))), tip, axes, marker="|", size=14, **own)
    return at


def _same(section: Section, a: str, b: str) -> bool:
    """Whether two metrics are one number under two names."""
    grids = [(section.grid(name, a), section.grid(name, b)) for name in section.finished]
    return all(x.shape == y.shape and np.allclose(x, y) for x, y in grids)


def learning_curve(section: Section, axis: str, canvas: Canvas = PAGE) -> Chart | None:
    """Primary metric against what was spent in one currency; None when no algorithm spends it."""
    primary = section.primary.name
    curves = {name: section.curve(name, primary) for name in section.trained}
    drawn = {name: points for name, points in curves.items() if points and points[-1].spent[axis] > 0}
    if not drawn:
        return None
    lines: list[tuple[float, ...]] = []
    with drawing(section, canvas) as d:
        if section.baseline is not None:
            base = section.curve(section.baseline, primary)[0].estimate.mean
            last = max(points[-1].spent[axis] for points in drawn.values())
            d.line(section.baseline, [0, last], [base, base], linewidth=1.4 * d.size, linestyle=(0, (1, 2)))
            d.end(section.baseline, last, base)
        for name, points in drawn.items():
            xs, estimates = [point.spent[axis] for point in points], [point.estimate for point in points]
            d.band(name, xs, [e.low for e in estimates], [e.high for e in estimates])
            for seed in points[-1].by_seed:
                kept = [p for p in points if seed in p.by_seed and seed in p.spent_by_seed]
                d.line(name, [p.spent_by_seed[seed][axis] for p in kept], [p.by_seed[seed] for p in kept],
                       linewidth=0.9 * d.size, alpha=0.28)  # fmt: skip
            d.line(name, xs, [e.mean for e in estimates], linestyle=d.looks[name].dashes, label=name)
            for point in points:
                spent = point.spent[axis]
                d.dot(name, spent, point.estimate.mean, f"{name}, {_spent(spent, axis)}: {_ranged(point)}")
                row = {"algorithm": name, "fraction": point.fraction, axis: spent}
                d.rows.append(row | spread(primary, point.estimate))
            d.end(name, xs[-1], estimates[-1].mean)
            lines += pieces(xs, [e.mean for e in estimates])
        seen = [value for points in drawn.values() for p in points for value in (p.estimate.mean, *p.by_seed.values())]
        d.focus(
            "y", seen, [end for points in drawn.values() for p in points for end in (p.estimate.low, p.estimate.high)]
        )
        d.axes.set_xlim(left=0)
        d.axes.set_xlabel(f"{UNITS.get(axis, formats.phrase(axis))} spent")
        d.axes.set_ylabel(d.label())
        style.format_axis(d.axes, "x", style.short_si, ticks=7)
        style.format_axis(d.axes, "y", style.short)
        d.name_ends(lines)
        idle = [name for name in curves if name not in drawn]
        caption = (
            f"Mean over seeds; faint lines are single seeds. Bands: {interval(section, len(section.curve_prompts))}"
        )
        caption += f" {SAME_PROMPTS}"
        caption += f" Not drawn, since they spend none: {findings.listing(idle)}." if idle else ""
        title, alt = f"Learning curve by {formats.phrase(axis)}", findings.curve(section, drawn, axis)
        return d.chart(f"curve-{axis}", title, alt=alt, caption=caption, family="Learning curve", axis=axis)


def cost(section: Section, axis: str, canvas: Canvas = PAGE) -> Chart | None:
    """Gain over the baseline against FLOPs, seconds or peak memory; hollow with shared stages, ringed if unbeaten."""
    effects = section.effects
    if not effects:
        return None
    bars = []
    with drawing(section, canvas, 4.2) as d:
        for name, comparison in effects.items():
            own, full = _cost(section, name, axis)
            if np.isnan(own):
                return None
            gain = comparison.difference
            d.line(name, [own, own], [gain.low, gain.high], linewidth=1.6 * d.size, alpha=0.8)
            tip = f"{name}: {ranged(gain.mean, gain.low, gain.high, sign=True)} for {_spent(own, axis)}"
            if full > own:
                tip += f", {_spent(full, axis)} with shared stages"
                d.line(name, [own, full], [gain.mean] * 2, linewidth=1.1 * d.size, alpha=0.6)
                d.dot(name, full, gain.mean, tip, size=9, hollow=True)
            d.dot(name, own, gain.mean, tip, size=10)
            d.end(name, full, gain.mean)
            bars += [(own, gain.low, own, gain.high), (own, gain.mean, full, gain.mean)]
            costs = {axis: own} if axis == "peak_bytes" else {f"{axis}_training": own, f"{axis}_with_shared": full}
            d.rows.append({"algorithm": name} | costs | {"gain": gain.mean, "low": gain.low, "high": gain.high})
        total = f"{axis}_with_shared"
        totals = [float(row[total] if total in row else row[axis]) for row in d.rows]
        gains = [row["gain"] if section.higher_is_better else -row["gain"] for row in d.rows]
        for i, row in enumerate(d.rows):
            rivals = zip(totals, gains, strict=True)
            if not any(t <= totals[i] and g >= gains[i] and (t, g) != (totals[i], gains[i]) for t, g in rivals):
                d.dot(row["algorithm"], totals[i], row["gain"], "", size=16, hollow=True, marker="o", color=INK,
                      markeredgewidth=0.9 * d.size)  # fmt: skip
        d.axes.axhline(0, color=GREY, linewidth=1.4 * d.size)
        d.focus("y", [0.0, *(row["gain"] for row in d.rows)], [row[end] for row in d.rows for end in ("low", "high")])
        d.axes.set_xlim(0, 1.12 * max(totals) or 1.0)
        d.axes.set_xlabel(COSTS[axis])
        d.axes.set_ylabel(f"gain over {section.baseline}{better(section)}")
        if axis == "peak_bytes":
            style.format_axis(d.axes, "x", lambda value: f"{value / 2**30:.3g} GiB", base=2**30)
        else:
            style.format_axis(d.axes, "x", style.short_si)
        style.format_axis(d.axes, "y", style.short)
        d.name_ends(bars)
        shared = "" if axis == "peak_bytes" else (
            "Filled: training alone. Hollow: with the stages that it needs (demonstrations, pairs, reward model) "
            "charged to it in full. "
        )  # fmt: skip
        caption = f"{shared}Thin ring: no other gains as much for less. Bars: {interval(section)}"
        title = f"Gain against {'peak memory' if axis == 'peak_bytes' else formats.phrase(axis)}"
        alt = findings.cost(section, _totalled(d.rows, axis), axis)
        return d.chart(f"cost-{axis}", title, alt=alt, caption=caption, family="Gain against cost", axis=axis)


def _cost(section: Section, name: str, axis: str) -> tuple[float, float]:
    """(own, with shared stages) mean over the seeds that ended well; of memory the worst seed, which nobody shares."""
    done = section.cells[(section.cells["algorithm"] == name) & (section.cells["status"] == "ok")]
    if axis == "peak_bytes":
        worst = float(done["peak_bytes"].astype(float).max())
        return worst, worst
    own = float(done[f"spent_{axis}"].mean())
    return own, own + float(done[f"shared_{axis}"].mean())


def _totalled(rows: findings.Rows, axis: str) -> findings.Rows:
    return rows if axis != "peak_bytes" else [row | {f"{axis}_with_shared": row[axis]} for row in rows]


def _spent(value: float, axis: str) -> str:
    if axis == "peak_bytes":
        return formats.size(value)
    return formats.duration(value) if axis == "seconds" else f"{formats.si(value)} {formats.phrase(axis)}"


def _ranged(point: Point, places: int = 3) -> str:
    return ranged(point.estimate.mean, point.estimate.low, point.estimate.high, places)
