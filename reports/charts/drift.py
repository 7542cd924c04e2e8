"""Where in a completion a policy leaves its reference: at its first tokens, a change of format, or all along it."""

from __future__ import annotations

from ..analysis.profile import profiles
from ..analysis.section import Section
from . import style
from .chart import Chart, drawing, interval, ranged
from .style import PAGE, Canvas

DOTS = 12
"""Positions a line, about, that a reader can point at."""


def profile(section: Section, canvas: Canvas = PAGE) -> Chart | None:
    """Exact KL at each token position, mean over the completions that get so far."""
    found = {name: made for name, made in profiles(section).items() if len(made.bands) > 1}
    if not found:
        return None
    with drawing(section, canvas, 4.2) as d:
        for name, made in found.items():
            xs = [(band.first + band.last) / 2 for band in made.bands]
            ys = [band.kl.mean for band in made.bands]
            d.band(name, xs, [band.kl.low for band in made.bands], [band.kl.high for band in made.bands])
            d.line(name, xs, ys, linestyle=d.looks[name].dashes)
            every = max(1, len(xs) // DOTS)
            for i, (x, band) in enumerate(zip(xs, made.bands, strict=True)):
                where = str(band.first) if band.first == band.last else f"{band.first}–{band.last}"
                if i % every == 0:
                    tip = f"{name}, token {where}: {ranged(band.kl.mean, band.kl.low, band.kl.high)} nats, "
                    d.dot(name, x, band.kl.mean, f"{tip}reached by {band.reached:.0%} of completions", size=5)
                d.rows.append({"algorithm": name, "token": where, "kl": band.kl.mean, "kl_low": band.kl.low}
                              | {"kl_high": band.kl.high, "reached": band.reached})  # fmt: skip
        d.axes.set_ylim(bottom=0)
        d.axes.set_xlim(1, max(made.bands[-1].last for made in found.values()))
        d.axes.set_xlabel("token of the completion")
        d.axes.set_ylabel("KL at that token, nats")
        style.format_axis(d.axes, "x", style.short, ticks=8)
        style.format_axis(d.axes, "y", style.short)
        d.axes.legend(handles=d.handles(), loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
        half = {name: made.half for name, made in found.items() if made.half}
        alt = "No algorithm has left the start."
        if half:
            first, last = min(half, key=lambda name: half[name]), max(half, key=lambda name: half[name])
            alt = f"{first} has spent half of its KL by token {half[first]} of at most {found[first].longest}"
            alt += f", the earliest; {last} by token {half[last]}." if half[last] > half[first] else "."
        caption = (
            "Mean of the exact KL at a token over the completions that get so far; a line ends where fewer than a "
            "tenth do. High at the first tokens and low after: the policy opens its answers otherwise and goes on as "
            f"before. Bands: {interval(section)}"
        )
        return d.chart("kl-profile", "KL, token by token", alt=alt, caption=caption)
