"""Two runs side by side: which verdicts changed, and what of all that was recorded differs and may be why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bakeoff.declaration import STAMPS
from bakeoff.errors import StoreError

from .analysis.section import Section, sections
from .flags import blocking
from .formats import fixed
from .frame import Results

ABSENT = "absent"
"""Stands for the verdict of a pair that a run does not have."""
LOCAL = ("label", "folder", "gguf", "timeout_s", "checkpoint_s", "seed")
"""Keys of a cell's spec that name things, say where they lie or how fast they come."""
CHANCE = "nothing that was recorded differs: chance"


@dataclass(frozen=True)
class Change:
    """A pair whose verdict is another one. Differences are of the primary metric, ``a`` less ``b``."""

    section: str
    a: str
    b: str
    before: str
    after: str
    difference_before: float | None
    difference_after: float | None
    why: tuple[str, ...]

    def told(self) -> tuple[str, ...]:
        """As cells of a table: where, who, both verdicts with their differences, why."""
        sides = (
            f"{word} {fixed(mean, sign=True)}" if mean is not None else word
            for word, mean in ((self.before, self.difference_before), (self.after, self.difference_after))
        )
        return (self.section, f"{self.a} against {self.b}", *sides, "; ".join(self.why))


def changes(before: Results, after: Results) -> list[Change]:
    """The pairs of both runs whose verdicts differ, section by section."""
    old, new = ({section.title: section for section in sections(results)} for results in (before, after))
    found = []
    for title in dict.fromkeys([*old, *new]):
        verdicts = [_verdicts(run.get(title)) for run in (old, new)]
        for pair in dict.fromkeys([*verdicts[0], *verdicts[1]]):
            (was, d_was), (now, d_now) = (side.get(pair, (ABSENT, None)) for side in verdicts)
            if was != now:
                why = [*_why(old.get(title), new.get(title), pair)] or differences(before, after) or [CHANCE]
                found.append(Change(title, *pair, was, now, d_was, d_now, tuple(why)))
    return found


def differences(before: Results, after: Results) -> list[str]:
    """What differs between the runs as a whole: the declaration, versions, commit, machine."""
    declared = [
        dict(_flat({key: value for key, value in results.declaration.items() if key not in STAMPS}))
        for results in (before, after)
    ]
    return [*_differing(*declared), *_differing(*map(_machine, (before, after)))]


def _verdicts(section: Section | None) -> dict[tuple[str, str], tuple[str, float | None]]:
    """Word and difference of each pair, the pair in alphabetical order so that both runs have it the same way."""
    found: dict[tuple[str, str], tuple[str, float | None]] = {}
    for pair in section.pairs if section else ():
        mean = pair.difference.mean
        if pair.a < pair.b:
            found[pair.a, pair.b] = pair.verdict.label, mean
        else:
            found[pair.b, pair.a] = pair.verdict.turned().label, -mean
    return found


def _why(old: Section | None, new: Section | None, pair: tuple[str, str]) -> Iterator[str]:
    """What is recorded otherwise of the cells of one pair; what differs between the runs is told apart from that."""
    if old is None or new is None:
        yield f"this task, model and budget are in {'the second' if old is None else 'the first'} run alone"
        return
    for name in pair:
        lists = [section.cells[section.cells["algorithm"] == name] for section in (old, new)]
        if any(rows.empty for rows in lists):
            yield f"{name} is in {'the second' if lists[0].empty else 'the first'} run alone"
            continue
        done = [sorted(rows.loc[rows["status"] == "ok", "seed"].tolist()) for rows in lists]
        if done[0] != done[1]:
            yield f"{name}: seeds that ended well {_listed(done[0])} → {_listed(done[1])}"
        failed = [Counter(rows.loc[rows["status"] != "ok", "status"]) for rows in lists]
        if failed[0] != failed[1]:
            yield f"{name}: not well {_counted(failed[0])} → {_counted(failed[1])}"
        records = [_recorded(section, rows) for section, rows in zip((old, new), lists, strict=True)]
        yield from (f"{name}: {difference}" for difference in _differing(*records))
    flags = [blocking(section, *pair, section.primary.name) for section in (old, new)]
    if (flags[0] and flags[0].text) != (flags[1] and flags[1].text):
        yield f"red flags: {flags[0].text if flags[0] else 'none'} → {flags[1].text if flags[1] else 'none'}"


def _recorded(section: Section, rows: Any) -> dict[str, str]:
    """What cell.json says of the first cell of an algorithm that has one, flat: settings, budget, rows, parity."""
    for cell in rows["id"]:
        record = section.results.record(cell)
        if record:
            spec = dict(record.get("spec") or {"algorithm": {"settings": record.get("settings", {})}})
            facts = {"data": (record.get("data") or {}).get("fingerprint"), "parity": record.get("parity")}
            return dict(_flat({**spec, **facts}))
    return {}


def _machine(results: Results) -> dict[str, str]:
    try:
        where = results.environment
    except StoreError:
        return {}
    kept = {name: where.get(name) for name in ("python", "platform", "cpu", "gpu", "packages", "git")}
    return dict(_flat(kept))


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in LOCAL:
                yield from _flat(inner, f"{place}.{key}" if place else str(key))
    elif value is not None:
        yield place, value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _differing(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    if old and new:
        for name in dict.fromkeys([*old, *new]):
            if old.get(name) != new.get(name):
                yield f"{name} {old.get(name, 'unset')} → {new.get(name, 'unset')}"


def _listed(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds)) or "none"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.items()) or "none"
