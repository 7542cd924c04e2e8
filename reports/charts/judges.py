"""Can the judge be believed, pair by pair: does the order decide, and does it see what the gold reward sees?

Swapping the order after Zheng et al. (arXiv:2306.05685), section 3.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy import stats

from ..analysis.section import Section
from ..files import slug
from ..statistics import LEVEL
from ..tables.judged import Judged, judged
from . import style
from .chart import Chart, Drawing, drawing
from .style import GREY, INK, PAGE, Canvas

MOST = 3
"""Judges with a chart of their own; the table of audits has all."""
PAIRS = 12
"""Drawn of a judge, those first on which the order of reading weighs most."""
BINS = 6
"""Of equal count, over the difference in gold reward."""


def audit(section: Section, number: int, canvas: Canvas = PAGE) -> Chart | None:
    """The ``number``-th judge: how often the order turned its verdict, and how often it sides with the gold reward."""
    each = next(iter(judged(section)[number : number + 1]), None)
    rows = list(_by_pair(each)) if each else []
    if each is None or not rows:
        return None
    agreed = _by_gap(each)
    worst = sorted(rows, key=lambda row: (-row["flipped"], -abs(np.nan_to_num(row["first"], nan=0.5) - 0.5)))
    drawn = [row for row in rows if row in worst[:PAIRS]]
    # A paper's column has no room for a second panel beside the names of pairs.
    beside = len(agreed) > 1 and canvas.width >= PAGE.width
    with drawing(section, canvas, 1.5 + 0.34 * len(drawn), panels=1 + beside) as d:
        _pairs(d, drawn)
        label, turned = each.scoring.label, worst[0]
        alt = f"Judge {label} turns most on {turned['a']} / {turned['b']}: the order decides {turned['flipped']:.0%}."
        if not turned["flipped"]:
            alt = f"Judge {label} never turns with the order of reading."
        caption = (
            f"{'Left: filled' if beside else 'Filled'}, the share of comparisons whose verdict follows the order of "
            "reading, which count as ties; hollow, how often the text read first wins where one does: one half is no "
            "preference. Bars: 95% Wilson intervals, comparisons taken as independent."
        )
        if len(drawn) < len(rows):
            caption += f" The {len(drawn)} of {len(rows)} pairs on which the order weighs most; all are in the data."
        if beside:
            _agreement(d, agreed)
            alt += f" Where the gold reward differs most, it sides with it in {agreed[-1]['agreement']:.0%}."
            caption += (
                f" Right: how often it sides with the gold reward, ties half, in {len(agreed)} groups of equally many "
                "comparisons by how far the two rewards lie apart: a coin stays at one half."
            )
        d.rows = [row | {"judge": label} for row in [*rows, *agreed]]
        return d.chart(f"judge-{slug(label)}", f"Judge {label}, pair by pair", alt=alt, caption=caption)


def _by_pair(each: Judged) -> Iterator[dict[str, Any]]:
    """Of each pair of algorithms: comparisons, share turned by the order, share for the first text, with intervals."""
    valid = each.verdicts[each.verdicts["value"].notna()]
    for (a, b), met in valid.groupby(["algorithm_a", "algorithm_b"], sort=False, observed=True):
        flips = int(((met["forward"] == met["backward"]) & (met["forward"] != "tie")).sum())
        orders = pd.concat([met["forward"], met["backward"]])
        first, second = (int((orders == side).sum()) for side in ("a", "b"))
        row = {"a": str(a), "b": str(b), "comparisons": len(met)} | _share("flipped", flips, len(met))
        yield row | _share("first", first, first + second)


def _share(key: str, count: int, total: int) -> dict[str, float]:
    if not total:
        return dict.fromkeys((key, f"{key}_low", f"{key}_high"), float("nan"))
    low, high = stats.binomtest(count, total).proportion_ci(LEVEL, method="wilson")
    return {key: count / total, f"{key}_low": float(low), f"{key}_high": float(high)}


def _by_gap(each: Judged) -> list[dict[str, Any]]:
    """How often the judge sides with the gold reward, by how far its two rewards lie apart; empty without gold."""
    sides = each.verdicts[each.verdicts["value"].notna()]
    keys = ["prompt_id", "sample"]
    for side in ("a", "b"):
        gold = each.samples[["id", *keys, "gold_reward"]]
        sides = sides.merge(gold.rename(columns={"id": side, "gold_reward": f"gold_{side}"}), on=[side, *keys])
    gap = (sides["gold_a"] - sides["gold_b"]).astype(float)
    agrees = sides["value"].astype(float).where(gap > 0, 1 - sides["value"].astype(float))
    known = gap.abs() > 1e-9
    if known.sum() < 2 * BINS:
        return []
    frame = pd.DataFrame({"gap": gap[known].abs(), "agreement": agrees[known]})
    groups = frame.groupby(pd.qcut(frame["gap"], BINS, labels=False, duplicates="drop"))
    found = groups.agg(gold_gap=("gap", "mean"), agreement=("agreement", "mean"), comparisons=("gap", "size"))
    return [{str(key): value for key, value in row.items()} for row in found.to_dict("records")]


def _pairs(d: Drawing, rows: list[dict[str, Any]]) -> None:
    for y, row in enumerate(reversed(rows)):
        name, pair = row["a"], f"{row['a']} / {row['b']}"
        for key, at, hollow, told in (
            ("flipped", y + 0.14, False, f"{row['flipped']:.0%} of {row['comparisons']} turned by the order"),
            ("first", y - 0.14, True, f"the first wins {row['first']:.0%} of decided verdicts"),
        ):
            if np.isnan(row[key]):
                continue
            d.line(name, [row[f"{key}_low"], row[f"{key}_high"]], [at, at], linewidth=1.4 * d.size, alpha=0.7)
            d.dot(name, row[key], at, f"{pair}: {told}", size=6, hollow=hollow, marker="D" if hollow else "o")
    d.axes.set_yticks(range(len(rows)), [f"{row['a']} / {row['b']}" for row in reversed(rows)])
    d.axes.set_ylim(-0.6, len(rows) - 0.4)
    d.axes.grid(False, axis="y")
    d.axes.axvline(0.5, color=GREY, linewidth=1.2 * d.size)
    _percent(d.axes, "x")
    d.axes.set_xlabel("share")
    handles = [
        Line2D([], [], color=GREY, marker="o", linestyle="none", label="turned by order"),
        Line2D([], [], color=GREY, marker="D", linestyle="none", markerfacecolor="none", label="for the first"),
    ]
    d.axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize="small")


def _agreement(d: Drawing, agreed: list[dict[str, Any]]) -> None:
    axes, name = d.panels[1], d.section.baseline or d.section.finished[0]
    gaps, shares = [row["gold_gap"] for row in agreed], [row["agreement"] for row in agreed]
    axes.plot(gaps, shares, color=INK, linewidth=1.6 * d.size)
    axes.axhline(0.5, color=GREY, linewidth=1.2 * d.size)
    for row in agreed:
        tip = f"{row['comparisons']} comparisons {row['gold_gap']:.2g} apart: {row['agreement']:.0%} as gold"
        d.dot(name, row["gold_gap"], row["agreement"], tip, axes, color=INK, marker="o")
    axes.set_xlim(left=0)
    axes.set_xlabel("difference in gold reward")
    axes.set_ylabel("sides with gold")
    style.format_axis(axes, "x", style.short, ticks=5)
    _percent(axes, "y")


def _percent(axes: Axes, which: str) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xlim if which == "x" else axes.set_ylim)(-0.03, 1.03)
    axis.set_ticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
