"""The sentences that a run supports, each from one cell of a table with its interval and verdict; how to cite it.

They are the only sentences of a report that are meant to be quoted: they name the design and say no more than the cell.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from . import formats
from .analysis.comparisons import Comparison
from .analysis.equality import EqualSection
from .analysis.section import Section, sections
from .frame import Results
from .tables.leaderboard import leaderboard
from .tables.pairs import pairwise
from .tables.table import TONES, Table


@dataclass(frozen=True)
class Claim:
    """``text`` in words; ``cell`` names the table's cell that it says, as ``Table.cell_id`` does."""

    text: str
    table: str
    cell: str
    verdict: str
    """WIN, LOSS, EQUIVALENT or INCONCLUSIVE."""
    label: str
    """As tables print it, "descriptive: ahead" for too few seeds."""
    reason: str
    mean: float
    low: float
    high: float
    seeds: int
    prompts: int
    seeds_needed: int | None
    run: str
    """The run and the hash of what it declared before training."""

    @property
    def tone(self) -> str:
        return TONES.get(self.verdict, "")

    @property
    def quote(self) -> str:
        """The sentence with its source, to paste into a text."""
        return f"{self.text} ({self.run}, {self.cell})"

    def record(self) -> dict[str, Any]:
        """As ``claims.json`` keeps it; numbers unrounded, null where there is none."""
        return {name: None if formats.is_missing(value) else value for name, value in asdict(self).items()}


def claims(results: Results) -> list[Claim]:
    """The claims of every section: gains over the baseline, who is ahead of whom, then who fails to beat a control.

    None is about a control alone, nor about a contender that beats one: that is what anybody would expect of it.
    """
    return [claim for section in sections(results) for claim in _of(section)]


def claims_under(results: Results) -> dict[str, list[Claim]]:
    """The same where all had spent the same of a currency, by currency: exploratory, and each says so."""
    found: dict[str, list[Claim]] = {}
    for section in sections(results):
        for currency, equal in section.equal_by.items():
            found.setdefault(currency, []).extend(_of(equal))
    return found


def _of(section: Section) -> list[Claim]:
    board, paired = leaderboard(section), pairwise(section) if section.pairs else None
    place = {name: row for row, name in enumerate(board.frame["algorithm"], start=1)}
    made = []
    numbered = enumerate(section.pairs, start=1)
    for row, c in sorted(
        numbered, key=lambda pair: (pair[1].b != section.baseline, _with_control(section, pair[1]), place[pair[1].a])
    ):
        won = bool({"WIN", "ahead"} & {c.verdict.word, c.verdict.leaning})
        if c.a in section.controls or (won and _with_control(section, c)):
            continue
        if c.b == section.baseline:
            made.append(_claim(section, c, board, place[c.a], "delta"))
        elif paired is not None:
            made.append(_claim(section, c, paired, row, "difference"))
    return made


def _with_control(section: Section, c: Comparison) -> bool:
    """Whether it is held against a control other than the baseline."""
    return c.b in section.controls and c.b != section.baseline


def _claim(section: Section, c: Comparison, table: Table, row: int, key: str) -> Claim:
    """What stands in a row and column of a table, with as many decimals as there."""
    d, places = c.difference, formats.decimals(table.frame[key])
    cell = f"{section.slug}-{table.cell_id(row, key)}" if section.slug else table.cell_id(row, key)
    number = f"{formats.fixed(d.mean, places, sign=True)} {formats.phrase(section.primary.name)}"
    interval = formats.span(d.low, d.high, places, sign=True)
    over = f"{d.n_seeds} seed{'s' * (d.n_seeds != 1)} × {d.n_prompts} prompts"
    margin = f" of ±{c.margin:g}" if c.margin is not None else ""
    other = f"the control {c.b}" if _with_control(section, c) else c.b
    said = {
        "WIN": f"{c.a} beats {other}: {number}",
        "LOSS": f"{c.a} is worse than {other}: {number}",
        "EQUIVALENT": f"{c.a} and {other} are equivalent within the margin{margin}: {number}",
    }.get(c.verdict.word, f"{c.a} against {other} is not decided: {number}")
    under, p = "", f"Holm p {_p(c.p_holm)}"
    if isinstance(section, EqualSection):
        under, p = f" at equal {formats.phrase(section.currency)} ({section.each})", f"exploratory, p {_p(c.p)}"
    text = (
        f"On {section.task} with {section.model} under the budget {section.budget}{under}, {said} "
        f"(95% interval {interval or 'none'}, {over}, paired; {p}): {c.verdict.label}"
        f"{', ' + c.verdict.reason if c.verdict.reason else ''}."
    )
    plan = section.results.declaration
    source = f"{section.results.plan['name']}, declared {plan['hash']}"
    verdict = (c.verdict.word, c.verdict.label, c.verdict.reason)
    values = (d.mean, d.low, d.high)
    return Claim(text, table.title, cell, *verdict, *values, d.n_seeds, d.n_prompts, c.verdict.seeds_needed, source)


def _p(value: float) -> str:
    shown = formats.p_value(value)
    return shown if shown.startswith("<") or shown == formats.MISSING else f"= {shown}"


def bibtex(results: Results) -> str:
    """Entries for the run and for bakeoff, for a paper's bibliography."""
    plan = results.plan
    year = str(plan.get("created", ""))[:4]
    version, declared = results.environment_or({}).get("packages", {}).get("bakeoff", ""), results.declaration["hash"]
    key = re.sub(r"[^a-z0-9]+", "", str(plan["name"]).lower()) or "run"
    title, command = (_braced(str(plan.get(field, ""))) for field in ("name", "command"))
    run = [
        f"@misc{{bakeoff-run-{key},",
        f"  title = {{{{{title}}}: a comparison of post-training algorithms under one budget}},",
        *([f"  year = {{{year}}},"] if year.isdigit() else []),
        f"  note = {{Run of bakeoff{' ' + version if version else ''}, {len(results.cells)} cells, declared {declared}."
        f"{' Command: ' + command if command else ''}}},",
        "}",
    ]
    software = [
        "@software{bakeoff,",
        "  title = {{bakeoff}: post-training algorithms under one budget, with honest intervals},",
        *([f"  version = {{{version}}},"] if version else []),
        "}",
    ]
    return "\n".join([*run, "", *software]) + "\n"


def _braced(text: str) -> str:
    """``text`` inside a BibTeX field: braces balanced by leaving them out, TeX's own characters escaped."""
    plain = re.sub(r"[{}\\]", "", " ".join(text.split()))
    return re.sub(r"([&%$#_])", r"\\\1", plain).replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")
