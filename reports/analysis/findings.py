"""What a chart shows, in one sentence computed from its data: the alternative text and the headline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import formats
from ..statistics import Estimate
from ..verdicts import ENOUGH_SEEDS
from .curves import Point
from .section import Section

Rows = list[dict[str, Any]]
"""The data of a chart, a row a mark."""


def forest(section: Section, estimates: Mapping[str, Estimate]) -> str:
    """Who gains most over the baseline, by how much, and who beats it; the best mean where there is none."""
    names, primary = contenders(section, estimates), formats.phrase(section.primary.name)
    best = estimates[names[0]]
    places = formats.decimals([best.mean])
    if not section.effects:
        interval = formats.span(best.low, best.high, places)
        return f"{names[0]} has the best mean {primary}: {formats.fixed(best.mean, places)}, 95% interval {interval}."
    if all(estimates[name].mean == estimates[name].low == estimates[name].high == 0 for name in names):
        return f"No algorithm moved {primary}: every gain over {section.baseline} is 0."
    verdicts = {name: section.effects[name].verdict for name in names}
    beat = [name for name in names if verdicts[name].word == "WIN"]
    lost = [name for name in names if verdicts[name].word == "LOSS"]
    ahead = [name for name in names if verdicts[name].leaning == "ahead"]
    text = f"{names[0]} gains most over {section.baseline}: {formats.fixed(best.mean, places, sign=True)} {primary}, "
    text += f"95% interval {formats.span(best.low, best.high, places, sign=True)}."
    few = f"fewer than {ENOUGH_SEEDS} seeds"
    if all(effect.difference.n_seeds < 2 for effect in section.effects.values()):
        return f"{text} One seed stands for no other, so this decides nothing."
    if not any(verdict.decides for verdict in verdicts.values()) and ahead:
        return f"{text} With {few} this describes and does not decide: ahead of {section.baseline} {_are(ahead)}."
    if len(beat) == len(names) > 1:
        return f"{text} All {len(names)} algorithms beat {section.baseline}."
    text += f" {len(beat)} of {len(names)} algorithms beat{'s' if len(names) == 1 else ''} {section.baseline}"
    text += f"{': ' + listing(beat) if len(beat) > 0 else ''}{'; worse: ' + listing(lost) if lost else ''}."
    return f"{text} Ahead with {few}: {listing(ahead)}." if ahead else text


def _are(names: Sequence[str]) -> str:
    return f"{'is' if len(names) == 1 else 'are'} {listing(names)}"


def frontier(section: Section, rows: Rows) -> str:
    """Who ends highest and who moved least; ``rows`` hold each algorithm's points in training order."""
    rows_by_name = {row["algorithm"]: row for row in rows if row["algorithm"] != section.baseline}
    ends = {name: rows_by_name[name] for name in contenders(section, rows_by_name)}
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


def curve(section: Section, drawn: dict[str, list[Point]], axis: str) -> str:
    """From where to where the best curve goes, and for what."""
    primary = formats.phrase(section.primary.name)
    sign = 1 if section.higher_is_better else -1
    names = contenders(section, drawn)
    best = max(names, key=lambda name: sign * drawn[name][-1].estimate.mean)
    first, last = drawn[best][0], drawn[best][-1]
    places = formats.decimals([first.estimate.mean, last.estimate.mean])
    spent = f"{formats.si(last.spent[axis])} {formats.phrase(axis)}"
    spent = formats.duration(last.spent[axis]) if axis == "seconds" else spent
    return (
        f"{best} goes from {formats.fixed(first.estimate.mean, places)} to {formats.fixed(last.estimate.mean, places)} "
        f"{primary} in {spent}, the best of {len(names)} algorithms."
    )


def cost(section: Section, rows: Rows, axis: str) -> str:
    """What the largest gain cost, and what the cheapest gained."""
    total = f"{axis}_with_shared"

    def spent(row: dict[str, Any]) -> str:
        show = {"seconds": formats.duration, "peak_bytes": formats.size}
        return show[axis](row[total]) if axis in show else f"{formats.si(row[total])} FLOPs"

    def gain(row: dict[str, Any]) -> str:
        return formats.fixed(row["gain"], formats.decimals(r["gain"] for r in rows), sign=True)

    names = contenders(section, [row["algorithm"] for row in rows])
    mine = [row for row in rows if row["algorithm"] in names]
    best = max(mine, key=lambda row: row["gain"] if section.higher_is_better else -row["gain"])
    cheap = min(mine, key=lambda row: row[total])
    text = f"{best['algorithm']} gains most, {gain(best)}, for {spent(best)} in all"
    if spent(best) == spent(cheap):
        return f"{text}, and none is cheaper."
    return f"{text}; {cheap['algorithm']} is cheapest, {spent(cheap)}, and gains {gain(cheap)}."


def contenders(section: Section, names: Iterable[str]) -> list[str]:
    """Those that a sentence may call best, in their order; all where there are controls only."""
    named = list(names)
    return [name for name in named if name not in section.controls] or named


def listing(names: Sequence[str]) -> str:
    """Names as people list them: "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"
