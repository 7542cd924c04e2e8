"""What a run declares before it trains: the question, how it will be decided, and a hash of both.

plan.json holds every declaration in order. One that is made before any cell has a result takes the place of the
last; after that a change is an amendment, kept beside what was declared first, and reports say so.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bakeoff.spec import MatrixSpec

CHECKPOINT = "last"
"""Which checkpoint is reported: never the best of several, so nothing is chosen on the held-out prompts."""
RULES = ("include", "exclude")
STAMPS = ("hash", "declared", "results")
"""Fields of a declaration that are about it and not of it."""


def declared(matrix: MatrixSpec) -> dict[str, Any]:
    """What a matrix declares: the analysis section, and the design that its intervals stand on.

    Rules are part of the design where there are any: which seeds of what are run is said before they are.
    """
    return {
        **matrix.analysis.model_dump(mode="json"),
        "seeds": list(matrix.seeds),
        "prompts": matrix.evaluation.prompts,
        "samples": matrix.evaluation.samples,
        "checkpoint": CHECKPOINT,
        **{key: [dict(rule) for rule in rules] for key in RULES if (rules := getattr(matrix, key))},
    }


def digest(declaration: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of sha256 over everything in a declaration but its stamps."""
    fields = {key: value for key, value in declaration.items() if key not in STAMPS}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def declare(matrix: MatrixSpec, earlier: Sequence[Mapping[str, Any]], *, results: int) -> list[dict[str, Any]]:
    """The run's declarations with this matrix's as the last. ``results`` is how many cells have a result by now.

    Each has its ``hash``, when it was ``declared``, and how many ``results`` there were to look at.
    """
    kept = [dict(one) for one in earlier]
    new = declared(matrix)
    if kept and kept[-1]["hash"] == digest(new):
        return kept
    if not results:
        kept = []
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return [*kept, {**new, "hash": digest(new), "declared": now, "results": results}]


def amendments(declarations: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a change that was made after results were there, and one for each that does not match its hash."""
    lines = [
        f"the declaration of {one['declared']} was changed by hand: its hash is not {one['hash']}"
        for one in declarations
        if digest(one) != one["hash"]
    ]
    for before, after in itertools.pairwise(declarations):
        keys = [key for key in {**before, **after} if key not in STAMPS and after.get(key) != before.get(key)]
        changes = ", ".join(f"{key} from {_told(before.get(key))} to {_told(after.get(key))}" for key in keys)
        lines.append(f"amended {after['declared']}, with {after['results']} cells to look at: {changes}")
    return lines


def summary(declaration: Mapping[str, Any]) -> str:
    """A declaration in one line, as ``bakeoff run`` prints it."""
    rules = [declaration.get(key) for key in RULES]
    margin = "2% of the range" if declaration["margin"] is None else f"{declaration['margin']:g}"
    return (
        f"Declared {declaration['hash']}: {declaration['primary_metric']} decides, {declaration['family']}, margin "
        f"{margin}, {len(declaration['seeds'])} seeds × {declaration['prompts']} prompts, "
        f"{declaration['checkpoint']} checkpoint{', less what its rules leave out' if any(rules) else ''}"
    )


def _told(value: Any) -> str:
    return f"{len(value)} {value}" if isinstance(value, list) else str(value)
