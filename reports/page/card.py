"""The provenance card: everything a reader must know to trust a run and to run it again, on one card."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .. import formats
from ..analysis.section import sections
from ..frame import Results
from ..tables.data import facts


@dataclass(frozen=True)
class Entry:
    name: str
    value: str
    code: bool = False
    tone: str = ""


@dataclass(frozen=True)
class Group:
    title: str
    entries: list[Entry]


PARITY_WORDS = {"model_sha": "weights", "tokenizer_sha": "tokenizer", "template_sha": "chat template",
                "train_rows_sha": "training rows", "test_rows_sha": "held-out rows", "lora": "LoRA"}  # fmt: skip


def card(results: Results) -> list[Group]:
    """The groups of the card; a fact that a run did not record is left out."""
    groups = [_question(results), _equal(results), _algorithms(results), *_data(results), _machine(results)]
    return [group for group in groups if group.entries]


def _question(results: Results) -> Group:
    plan, cells, declared = results.plan, results.cells, results.declaration
    # One margin a run where one was declared; else a share of the range, which only some metrics have.
    margins = {section.margin(section.primary.name) for section in sections(results)} or {declared["margin"]}
    margin = ", ".join("none" if each is None else f"±{each:g}" for each in margins)
    entries = [
        Entry("compared", ", ".join(dict.fromkeys(cells["algorithm"]))),
        Entry("decided by", f"{formats.phrase(declared['primary_metric'])}, margin of equivalence {margin}"),
        Entry("p adjusted over", declared["family"].replace("-", " ")),
        Entry("design", _design(declared)),
        Entry("declared", f"{declared['hash']}, {str(declared['declared'])[:16].replace('T', ' ')}", code=True),
        *(Entry("amended", line, tone="loss") for line in results.amendments),
        Entry("budget", "; ".join(_budget(budget) for budget in plan.get("matrix", {}).get("budgets", ()))),
        Entry("run again", str(plan.get("command", "")), code=True),
        Entry("planned", str(plan.get("created", ""))[:16].replace("T", " ")),
    ]
    return Group("Question and plan", [entry for entry in entries if entry.value])


def _design(declared: dict[str, Any]) -> str:
    seeds, prompts, samples = len(declared["seeds"]), declared["prompts"], declared["samples"]
    return f"{seeds} seeds × {prompts} prompts × {samples} samples, {declared['checkpoint']} checkpoint"


def _budget(budget: dict[str, Any]) -> str:
    limits = [f"{formats.si(value)} {formats.phrase(key)}" for key, value in budget.items()
              if key not in ("name", "version") and isinstance(value, int | float)]  # fmt: skip
    return f"{budget.get('name', '')}: {', '.join(limits) or 'unlimited'}"


def _equal(results: Results) -> Group:
    """What every cell has in common, and whether it does."""
    values: dict[str, list[str]] = {}
    for cell in results.cells["id"]:
        for key, value in (results.record(cell).get("parity") or {}).items():
            text = _told(value) if isinstance(value, dict) else str(value)
            if value is not None and text not in values.setdefault(key, []):
                values[key].append(text)
    problems = len(results.parity())
    agree = "cells of one comparison agree in everything recorded"
    verdict = f"{problems} difference{'s' * (problems != 1)}: see the flags" if problems else agree
    entries = [Entry("parity", verdict, tone="loss" if problems else "win")]
    for key, found in values.items():
        name = PARITY_WORDS.get(key, formats.phrase(key))
        entries.append(Entry(name, "; ".join(found), code=key.endswith("sha")))
    return Group("Held equal", entries)


def _algorithms(results: Results) -> Group:
    """Each algorithm with the settings that it trained with."""
    entries = []
    for name, rows in results.cells.groupby("algorithm", sort=False):
        known = (results.record(cell).get("settings") for cell in rows["id"])
        settings: dict[str, Any] = next(filter(None, known), {})
        title = str(rows["title"].iloc[0])
        entries.append(Entry(str(name), f"{title}{': ' + _told(settings) if settings else ''}"))
    return Group("Algorithms and their settings", entries)


def _told(settings: dict[str, Any]) -> str:
    """Settings as people write them: no quotes around a word."""
    shown = {key: value if isinstance(value, str) and value else json.dumps(value) for key, value in settings.items()}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def _data(results: Results) -> list[Group]:
    told = [(section.title, facts(results, section)) for section in sections(results)]
    groups = []
    for title, items in told:
        entries = [Entry(formats.phrase(name), str(value), code=name == "fingerprint") for name, value in items.items()]
        groups.append(Group(f"Data: {title}" if len(told) > 1 else "Data", entries))
    return groups


def _machine(results: Results) -> Group:
    where = results.environment_or({"missing": "environment.json is missing"})
    told = [key for key in ("missing", "python", "platform", "cpu", "threads") if key in where]
    entries = [Entry(key, str(where[key])) for key in told]
    if "memory_bytes" in where:
        entries.append(Entry("memory", formats.size(where["memory_bytes"])))
    if "gpu" in where:
        entries.append(Entry("GPU", ", ".join(map(str, where["gpu"])) or "none"))
    if git := where.get("git"):
        dirty = ", with uncommitted changes" if git["dirty"] else ""
        entries.append(Entry("commit", f"{git['commit']}{dirty}", code=True))
    if packages := where.get("packages"):
        entries.append(Entry("packages", ", ".join(f"{name} {version}" for name, version in packages.items())))
    return Group("Where it ran", entries)
