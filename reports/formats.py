"""Numbers as people read them. One function a kind; NaN and None are always an en dash."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

MISSING = "–"


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def decimals(values: Iterable[float]) -> int:
    """Decimals that show three significant digits of the largest of ``values``, at most four."""
    largest = max((abs(v) for v in values if not is_missing(v) and math.isfinite(v)), default=0.0)
    return 2 if largest == 0 else min(4, max(0, 2 - math.floor(math.log10(largest))))


def fixed(value: float, places: int = 3, *, sign: bool = False) -> str:
    """``value`` with ``places`` decimals and a true minus; ``sign`` shows a plus too. No negative zero."""
    if is_missing(value):
        return MISSING
    text = f"{value:+.{places}f}" if sign else f"{value:.{places}f}"
    if not any(digit in "123456789" for digit in text):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def span(low: float, high: float, places: int, *, sign: bool = False) -> str:
    """An interval: ``[0.12, 0.34]``; empty where there is none."""
    if is_missing(low) or is_missing(high):
        return ""
    return f"[{fixed(low, places, sign=sign)}, {fixed(high, places, sign=sign)}]"


def percent(value: float, places: int = 0) -> str:
    return MISSING if is_missing(value) else fixed(100 * value, places) + "%"


def whole(value: float) -> str:
    return MISSING if is_missing(value) else f"{value:,.0f}".replace(",", "\u2009")


def si(value: float) -> str:
    """Three significant digits and an SI prefix: ``5.98 T``."""
    if is_missing(value):
        return MISSING
    if value == 0:
        return "0"
    for prefix, scale in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * scale:
            scaled = float(f"{value / scale:.3g}")  # 999.9 k is 1.00 M: round before counting decimals
            return f"{fixed(scaled, decimals([scaled]))} {prefix}"
    return fixed(value, 0 if float(value).is_integer() else decimals([value]))


def size(value: float) -> str:
    """Bytes in binary units: ``1.21 GiB``."""
    if is_missing(value):
        return MISSING
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= scale:
            return f"{value / scale:.{decimals([value / scale])}f} {unit}"
    return f"{value:.0f} B"


def duration(value: float) -> str:
    """Seconds as ``41.2 s``, ``3 min 12 s`` or ``1 h 03 min``."""
    if is_missing(value):
        return MISSING
    if value < 99.95:
        return f"{value:.1f} s" if value else "0 s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def p_value(value: float) -> str:
    if is_missing(value):
        return MISSING
    return "< 0.001" if value < 0.001 else fixed(value, 3)


def phrase(name: str) -> str:
    """A metric's or currency's name in words: ``gold_reward`` to "gold reward", ``kl`` to "KL"."""
    words = {"kl": "KL", "flops": "FLOPs", "eos": "EOS"}
    return " ".join(words.get(word, word) for word in name.split("_"))
