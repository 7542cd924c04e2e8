"""What a section's cells say about their data, in words: source, counts, what was left out, what was derived."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..analysis.section import Section
from ..frame import Results

EXAMPLES = 3
"""Bad rows that are named; cell.json names more."""


def facts(results: Results, section: Section) -> dict[str, Any]:
    """Name and value of each fact, in order; empty when no cell has got as far as its data.

    The cells share their rows, so the first one speaks for all; but each derives only what it consumes.
    """
    records = [record["data"] for cell in section.cells["id"] if (record := results.record(cell)).get("data")]
    if not records:
        return {}
    told = {key: value for key, value in records[0].items() if isinstance(value, str | int) and key != "bad_rows"}
    if left_out := records[0].get("left_out"):
        told["left_out"] = _left_out(left_out)
    if overlap := records[0].get("overlap"):
        told["overlap_with_training"] = (
            f"{overlap['exact']} test prompts are equal to a training prompt, {overlap['near']} nearly so"
        )
    if records[0].get("bad_rows"):
        told["bad_rows"] = _bad_rows(records[0])
    derived: dict[str, list[str]] = {}
    for record in records:
        for name, how in record.get("derived", {}).items():
            if how not in derived.setdefault(name, []):
                derived[name].append(how)
    return told | {f"derived_{name}": "; ".join(ways) for name, ways in derived.items()}


def _left_out(counts: Mapping[str, int]) -> str:
    reasons = ", ".join(f"{count} with {reason}" for reason, count in counts.items())
    return f"{_rows(sum(counts.values()))} left out: {reasons}"


def _bad_rows(data: Mapping[str, Any]) -> str:
    examples = data["bad_row_examples"][:EXAMPLES]
    named = "; ".join(f"{row['file']}:{row['line']} {row['reason']}" for row in examples)
    more = "; …" if data["bad_rows"] > len(examples) else ""
    return f"{_rows(data['bad_rows'])} could not be used: {named}{more}"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
