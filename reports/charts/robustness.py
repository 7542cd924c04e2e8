"""Does a verdict hang on how one looks? Every pair again under other reasonable choices: a specification curve.

After Simonsohn, Simmons & Nelson, "Specification curve analysis", Nature Human Behaviour 4 (2020). Only the first row
was declared; the others are read to see whether it stands alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy import stats

from .. import formats
from ..analysis.grids import align
from ..analysis.section import Section
from ..analysis.standings import at_equal_length
from ..statistics import Estimate, two_way
from .chart import Chart, Mark, drawing
from .style import GREY, PAGE, Canvas

DECLARED = "as declared"
Grids = tuple[pd.DataFrame, pd.DataFrame]


def robustness(section: Section, canvas: Canvas = PAGE) -> Chart | None:
    """One row a way of looking, one column a pair: which is ahead, and filled where the 95% interval leaves 0."""
    pairs = [(c.a, c.b) for c in section.pairs if c.difference.n_seeds > 1]
    found = {pair: dict(_specifications(section, *pair)) for pair in pairs}
    rows = list(dict.fromkeys(row for specs in found.values() for row in specs))
    if not pairs or len(rows) < 2:
        return None
    sign = 1 if section.higher_is_better else -1
    agree: list[bool] = []
    with drawing(section, canvas, 1.6 + 0.32 * len(rows)) as d:
        for x, (a, b) in enumerate(pairs):
            declared = found[a, b].get(DECLARED)
            for y, row in enumerate(reversed(rows)):
                estimate = found[a, b].get(row)
                if estimate is None or declared is None or np.isnan(estimate.low):
                    continue
                ahead, settled = sign * estimate.mean > 0, estimate.low > 0 or estimate.high < 0
                who = a if ahead else b
                word = "ahead, settled" if settled else "ahead, not settled"
                tip = f"{row}: {who} {word} ({a} − {b} = {formats.fixed(estimate.mean, sign=True)} "
                tip += f"{formats.span(estimate.low, estimate.high, 3, sign=True)})"
                d.dot(who, x, y, tip, size=9, hollow=not settled, marker="^" if ahead else "v")
                d.rows.append({"specification": row, "algorithm": a, "against": b, "difference": estimate.mean}
                              | {"low": estimate.low, "high": estimate.high})  # fmt: skip
                if row != DECLARED:
                    agree.append(_same(estimate, declared))
        d.axes.set_yticks(range(len(rows)), reversed(rows))
        d.axes.set_xticks(range(len(pairs)), [f"{a} / {b}" for a, b in pairs], rotation=50, ha="left",
                          rotation_mode="anchor", fontsize="small")  # fmt: skip
        for text, (a, _) in zip(d.axes.get_xticklabels(), pairs, strict=True):
            text.set_gid(d.gid(Mark(a)))
        d.axes.xaxis.tick_top()
        d.axes.set_xlim(-0.6, len(pairs) - 0.4)
        d.axes.set_ylim(-0.6, len(rows) - 0.4)
        d.axes.axhline(len(rows) - 1.5, color=GREY, linewidth=d.size)
        for side in d.axes.spines.values():
            side.set_visible(False)
        share = float(np.mean(agree)) if agree else 1.0
        alt = f"{share:.0%} of {len(agree)} other looks at the pairs agree with the declared one."
        caption = (
            "Up: the first of the pair is ahead, in its colour; down: the second. Filled: the unadjusted 95% interval "
            "leaves 0. Only the first row was declared before training; the others say whether it stands alone. "
            "Of the seeds, the one without which the evidence is least is left out. Agreeing: the same one settled "
            "ahead, or neither."
        )
        return d.chart("robustness", "Does it hang on how one looks?", alt=alt, caption=caption)


def _same(one: Estimate, other: Estimate) -> bool:
    """Both settle on the same side, or neither settles."""
    sides = [np.sign(e.mean) if e.low > 0 or e.high < 0 else 0.0 for e in (one, other)]
    return bool(sides[0] == sides[1])


def _specifications(section: Section, a: str, b: str) -> Iterator[tuple[str, Estimate]]:
    primary = section.primary.name
    last = align(section.grid(a, primary), section.grid(b, primary))
    if not last[0].size:
        return
    yield DECLARED, _difference(last)
    yield "interquartile mean", _by_seed(last, lambda scores: float(stats.trim_mean(scores, 0.25)))
    yield "median prompt", _by_seed(last, lambda scores: float(np.median(scores)))
    if len(last[0]) > 2:
        without = [_difference((last[0].drop(seed), last[1].drop(seed))) for seed in last[0].index]
        yield (
            "one seed left out",
            min(without, key=lambda e: abs(e.mean) / e.se if e.se > 0 else np.inf),
        )
    earlier = [
        section.grid(name, primary, section.probe_count(name) - 2) for name in (a, b) if section.probe_count(name) > 1
    ]
    if len(earlier) == 2 and (before := align(*earlier))[0].size:
        yield "one evaluation earlier", _difference(before)
    if (nearer := _within_smaller_kl(section, a, b)) is not None:
        yield "within the smaller KL", _difference(nearer)
    for metric in ("win_rate", *(name for name in section.metrics if name.startswith("win_rate@")), "train_reward"):
        other = align(section.grid(a, metric), section.grid(b, metric))
        if metric != primary and metric in section.metrics and other[0].size and not _equal(other, last):
            yield f"by {formats.phrase(metric)}", _difference(other)
    controlled = align(at_equal_length(section, a), at_equal_length(section, b))
    if controlled[0].size:
        yield "by win rate at equal length", _difference(controlled)
    yield from _halves(section, last)


def _within_smaller_kl(section: Section, a: str, b: str) -> Grids | None:
    """Both at their last evaluation whose mean KL is no more than the smaller of their two at the end.

    None where that is the end for both, or one has no evaluation so near.
    """
    curves = {name: section.curve(name, "kl") for name in (a, b)} if "kl" in section.metrics else {}
    if not curves or not all(curves.values()) or section.baseline in curves:
        return None
    cap = min(points[-1].estimate.mean for points in curves.values())
    places = []
    for name, points in curves.items():
        skipped = len(points) - section.probe_count(name)  # the start, which is no probe of its own
        near = [i - skipped for i, point in enumerate(points) if point.estimate.mean <= cap and i >= skipped]
        if not near:
            return None
        places.append(near[-1])
    if all(place == section.probe_count(name) - 1 for name, place in zip((a, b), places, strict=True)):
        return None
    grids = align(*(section.grid(name, section.primary.name, at) for name, at in zip((a, b), places, strict=True)))
    return grids if grids[0].size else None


def _halves(section: Section, grids: Grids) -> Iterator[tuple[str, Estimate]]:
    """Easier and harder prompts, by samples of the reference that no algorithm is compared on."""
    pool, primary = section.results.reference_pool(section.cells["id"]), section.primary.name
    if pool is None or primary not in pool.columns:
        return
    ease = section.direction(primary) * pool.groupby("prompt_id", observed=True)[primary].mean()
    ranks = ease.reindex(grids[0].columns).rank(method="first")
    for name, kept in (("easier half of prompts", ranks > len(ranks) / 2), ("harder half", ranks <= len(ranks) / 2)):
        if kept.sum() > 1:
            yield name, _difference((grids[0].loc[:, kept], grids[1].loc[:, kept]))


def _difference(grids: Grids) -> Estimate:
    return two_way((grids[0] - grids[1]).to_numpy())


def _by_seed(grids: Grids, statistic: Callable[[np.ndarray], float]) -> Estimate:
    """The difference of a statistic over prompts; its interval is over seeds alone."""
    values = [[statistic(a) - statistic(b)] for a, b in zip(*(grid.to_numpy() for grid in grids), strict=True)]
    return two_way(np.array(values))


def _equal(one: Grids, other: Grids) -> bool:
    return all(x.shape == y.shape and np.allclose(x, y) for x, y in zip(one, other, strict=True))
