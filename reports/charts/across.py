"""Several tasks at once: how many runs reach how much, and how likely a run is to beat its start.

Fig. 7 and section 4.3 of arXiv:2108.13264 (Agarwal et al.): run-score distributions and probability of improvement.
"""

from __future__ import annotations

import numpy as np

from ..aggregates import performance_profile
from ..analysis.section import Section
from ..resampling import stratified_bootstrap
from ..statistics import Floats
from ..tables.across import across, groups, on_one_scale, run_means
from .chart import Chart, Drawing, drawing
from .style import GREY, PAGE, Canvas, format_axis, short

TASKS = 4
"""Below which a profile is a few steps and says nothing that the tasks' own charts do not."""
THRESHOLDS = 61
DRAWS = 500
SEED = 0


def profiles(section: Section, canvas: Canvas = PAGE) -> Chart | None:
    """Of all tasks of the section's model and budget; drawn once, with the first of them."""
    group = next((group for group in groups(section.results) if group[0] is section), [])
    if len(group) < TASKS:
        return None
    table = across(group, "across").frame
    if table.empty:
        return None
    scores = {name: _scores(group, name) for name in table["algorithm"]}
    scores = {name: tasks for name, tasks in scores.items() if len(tasks) == len(group)}
    with drawing(section, canvas, max(3.9, 1.5 + 0.42 * len(table)), panels=1 + bool(scores)) as d:
        bars, rows = d.panels[-1], []
        for y, row in enumerate(reversed(table.to_dict("records"))):
            name, value = row["algorithm"], row["improvement"]
            low, high = row["improvement_low"], row["improvement_high"]
            d.line(name, [low, high], [y, y], bars, linewidth=2.6 * d.size)
            tip = f"{name}: a run beats one of the start in {value:.0%} [{low:.0%}, {high:.0%}]"
            d.dot(name, value, y, tip, bars, size=8)
            rows.append({"algorithm": name, "improvement": value, "low": low, "high": high})
        d.row_names([row["algorithm"] for row in rows], bars)
        bars.axvline(0.5, color=GREY, linewidth=1.4 * d.size)
        bars.set_xlim(-0.03, 1.03)
        bars.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
        bars.set_xlabel("P(a run improves on the start)")
        if scores:
            rows += _profiles(d, scores)
        d.rows = rows
        best = max(rows[: len(table)], key=lambda row: row["improvement"])
        alt = f"Over {len(group)} tasks a run of {best['algorithm']} beats one of the start most often: "
        alt += f"{best['improvement']:.0%} [{best['low']:.0%}, {best['high']:.0%}]."
        caption = f"Over {len(group)} tasks: {', '.join(each.task for each in group)}. "
        if scores:
            caption += "Left: the share of runs that score above a level, mean over tasks; 0 is the start's mean "
            caption += "reward, 1 that of the best of its samples. Right: how "
        caption += (
            f"{'' if scores else 'How '}often a run beats one of the start on the same task. Bands and bars: 95% "
            "intervals, runs drawn anew within each task; too narrow below five seeds."
        )
        return d.chart("across", "Across tasks", alt=alt, caption=caption)


def _scores(group: list[Section], name: str) -> list[Floats]:
    """The runs of each task on one scale; fewer than there are tasks where one has none."""
    scaled = (on_one_scale(each, run_means(each, name)) for each in group)
    return [task for task in scaled if task is not None]


def _profiles(d: Drawing, scores: dict[str, list[Floats]]) -> list[dict[str, float | str]]:
    every = np.concatenate([task for tasks in scores.values() for task in tasks])
    levels = np.linspace(min(0.0, every.min()), max(1.0, every.max()), THRESHOLDS)
    rows: list[dict[str, float | str]] = []
    for name, tasks in scores.items():
        found = stratified_bootstrap(
            lambda drawn: performance_profile(drawn, levels), tasks, rng=np.random.default_rng(SEED), draws=DRAWS
        )
        shares = [each.value for each in found]
        d.band(name, levels, [each.low for each in found], [each.high for each in found])
        d.line(name, levels, shares, linestyle=d.looks[name].dashes)
        middle = THRESHOLDS // 2
        tip = f"{name}: {shares[middle]:.0%} of runs score above {levels[middle]:.2f}"
        d.dot(name, float(levels[middle]), shares[middle], tip, size=6)
        for level, each in zip(levels, found, strict=True):
            interval = {"above": each.value, "above_low": each.low, "above_high": each.high}
            rows.append({"algorithm": name, "level": float(level), **interval})
    d.axes.set_ylim(-0.03, 1.03)
    d.axes.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"])
    d.axes.set_ylabel("runs above")
    d.axes.set_xlabel("score: 0 start, 1 best sample")
    format_axis(d.axes, "x", short, ticks=5)
    return rows
