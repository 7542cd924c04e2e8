"""The parity lock: cells that differ in what must be equal are not compared with the others.

Within a model, task and budget, cells should share weights, tokenizer, template, precision, device, LoRA, rows and
decoding (``parity`` in cell.json). Where they do not, those that most of them share count; the others are left out
of every estimate, with the reason, unless the reader asks to mix them, and then the report says so.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

LOCKED_OUT = "not_comparable"
"""The status of a cell that the lock leaves out."""


def locked_out(cells: Sequence[Mapping[str, Any]], records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """By cell id: why it is left out. ``cells`` are the plan's entries, ``records`` the cell.json of some of them.

    A field that a cell did not record is not compared. Of two groups of equal size the one that the plan names first
    counts.
    """
    groups: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        if (records.get(cell["id"]) or {}).get("parity"):
            groups.setdefault((cell["model"], cell["task"], cell["budget"]), []).append(cell["id"])
    reasons = {}
    for ids in groups.values():
        prints = {name: _print(records[name]["parity"]) for name in ids}
        common = Counter(json.dumps(prints[name], sort_keys=True) for name in ids).most_common(1)[0][0]
        held = json.loads(common)
        for name in ids:
            differs = [
                f"{field} is {value}, the others have {held[field]}"
                for field, value in prints[name].items()
                if field in held and held[field] != value
            ]
            if differs:
                reasons[name] = "not comparable: " + "; ".join(differs)
    return reasons


def _print(parity: Mapping[str, Any]) -> dict[str, str]:
    return {
        field: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for field, value in parity.items()
        if value is not None
    }
