"""The tables of a report: a frame of raw numbers and a declaration of how each column reads.

HTML, Markdown, LaTeX, CSV and the terminal all print these and nothing else, so they cannot disagree.
A failed or missing cell is a row with its status, never an absence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from . import formats
from .analysis import Section, sections
from .files import slug
from .frame import CURRENCIES, Results
from .statistics import ENOUGH_SEEDS, Estimate

Kind = Literal[
    "text", "verdict", "status", "whole", "number", "signed", "percent", "share", "si", "size", "duration", "p"
]
TEXT_KINDS = ("text", "verdict", "status")
PLAIN: dict[str, Callable[[float], str]] = {
    "whole": formats.whole,
    "percent": formats.percent,
    "share": lambda value: formats.percent(value, 1),
    "si": formats.si,
    "size": formats.size,
    "duration": formats.duration,
    "p": formats.p_value,
}
ARROWS = {"higher": "\u00a0↑", "lower": "\u00a0↓", "none": ""}
TONES = {
    "WIN": "win",
    "LOSS": "loss",
    "INCONCLUSIVE": "open",
    "ok": "",
    "running": "open",
    "not_run": "open",
    "incompatible": "open",
}


@dataclass(frozen=True)
class Column:
    """How one column of a table reads. With ``interval`` the frame also has ``<key>_low`` and ``<key>_high``."""

    key: str
    title: str
    kind: Kind = "text"
    interval: bool = False
    help: str = ""

    @property
    def is_text(self) -> bool:
        return self.kind in TEXT_KINDS


class Cell(NamedTuple):
    """A formatted value: what is read first, the interval behind it, what to sort by, and a tone for colour."""

    text: str
    detail: str
    order: float | str
    tone: str

    @property
    def plain(self) -> str:
        return f"{self.text} {self.detail}".rstrip()


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of ``frame`` shown by ``columns``. The frame may hold more columns than are shown: CSV writes them all."""

    name: str
    title: str
    caption: str
    frame: pd.DataFrame
    columns: tuple[Column, ...]

    def cell_id(self, row: int, key: str) -> str:
        """What a cell is called, in the page and in claims: table, row from 1 as in the CSV file, column."""
        return f"{self.name}-{row}-{slug(key)}"

    def rows(self) -> list[list[Cell]]:
        """The formatted cells, row by row."""
        by_column = [self._format(column) for column in self.columns]
        return [list(row) for row in zip(*by_column, strict=True)]

    def _format(self, column: Column) -> list[Cell]:
        values = self.frame[column.key]
        if column.is_text:
            texts = ["" if formats.is_missing(value) else str(value) for value in values]
            words = [text.split(" ")[0] for text in texts]
            toned = column.kind != "text"
            tones = [TONES.get(word, "loss" if column.kind == "status" else "") if toned else "" for word in words]
            return [Cell(text or formats.MISSING, "", text, tone) for text, tone in zip(texts, tones, strict=True)]
        blank = pd.Series(np.nan, index=values.index)
        low = self.frame[f"{column.key}_low"] if column.interval else blank
        high = self.frame[f"{column.key}_high"] if column.interval else blank
        places, sign = formats.decimals(values), column.kind == "signed"
        cells = []
        for value, lower, upper in zip(values.astype(float), low.astype(float), high.astype(float), strict=True):
            if column.kind in PLAIN:
                shown = PLAIN[column.kind]
                text = shown(value)
                ends = not (formats.is_missing(lower) or formats.is_missing(upper))
                detail = f"[{shown(lower).removesuffix('%')}, {shown(upper).removesuffix('%')}]" if ends else ""
            else:
                text = formats.fixed(value, places, sign=sign)
                detail = formats.span(lower, upper, places, sign=sign)
            cells.append(Cell(text, detail, value, "missing" if text == formats.MISSING else ""))
        return cells


def tables_of(section: Section) -> list[Table]:
    """Every table of a section that has something to say."""
    made = [leaderboard(section)]
    if section.pairs:
        made += [square(section), pairwise(section)]
    if section.metrics:
        made.append(metrics(section))
    from . import judged

    made += judged.tables_of(section)
    made.append(ledger(section))
    if section.results.references.get(section.task):
        made.append(references(section))
    return made


def all_tables(results: Results) -> list[tuple[Section | None, Table]]:
    """Every table of a run; section by section, then those of the whole run."""
    found: list[tuple[Section | None, Table]] = [(s, table) for s in sections(results) for table in tables_of(s)]
    return [*found, (None, runs(results))]


def leaderboard(section: Section) -> Table:
    """One row an algorithm: how good, how sure, how far from the base, at what cost."""
    unfinished = [name for name in section.algorithms if name not in section.finished]
    rows = [_standing(section, name) for name in [*section.ranked, *unfinished]]
    primary = section.metrics.get(section.primary.name)
    arrow = ARROWS[primary.direction] if primary else ""
    columns = [
        Column("algorithm", "algorithm"),
        Column("seeds", "seeds", help="seeds that ended well / planned"),
        Column("primary", formats.phrase(section.primary.name) + arrow, "number", True),
    ]
    if section.baseline is not None:
        columns.append(Column("delta", f"Δ {section.baseline}", "signed", True, "paired gain over the baseline"))
        columns.append(Column("verdict", "verdict", "verdict", help="Holm-adjusted p < 0.05 over all gains"))
    optional = (
        Column("win_rate", "win rate", "percent", True, "against where the policy started; ties count half"),
        Column("kl", "KL", "number", True, "exact KL from where the policy started, nats a sequence"),
        Column("length_tokens", "length", "number", help="tokens a completion"),
        Column("ended_eos", "EOS", "percent", help="completions that end by themselves"),
    )
    columns += [column for column in optional if column.key in section.metrics and column.key != section.primary.name]
    columns += [
        Column("flops", "FLOPs", "si", help="training alone, mean over seeds"),
        Column("flops_shared", "+\u00a0shared", "si", help="with the stages that it needs charged to it in full"),
        Column("seconds", "time", "duration", help="training alone, mean over seeds"),
        Column("peak_bytes", "memory", "size", help="peak, worst seed"),
    ]
    return Table("leaderboard", "Leaderboard", _leaderboard_caption(section), pd.DataFrame(rows), tuple(columns))


def _standing(section: Section, name: str) -> dict[str, Any]:
    ok, planned = section.seeds(name)
    cells = section.cells[section.cells["algorithm"] == name]
    done = cells[cells["status"] == "ok"]
    failed = cells.loc[cells["status"] != "ok", "status"].value_counts()
    row: dict[str, Any] = {"algorithm": name, "title": cells["title"].iloc[0], "seeds_ok": ok, "seeds_planned": planned}
    row["seeds"] = " · ".join([f"{ok}/{planned}", *(f"{count}\u00a0{status}" for status, count in failed.items())])
    row |= _spread("primary", section.estimate(name, section.primary.name))
    effect = section.effects.get(name)
    row |= _spread("delta", effect.difference if effect else None)
    row |= {"p_holm": effect.p_holm if effect else np.nan, "verdict": effect.verdict.word if effect else ""}
    for metric in ("win_rate", "kl", "length_tokens", "ended_eos"):
        row |= _spread(metric, section.estimate(name, metric))
    row["flops"], row["seconds"] = done["spent_flops"].mean(), done["spent_seconds"].mean()
    row["flops_shared"] = (done["spent_flops"] + done["shared_flops"]).mean()
    row["seconds_shared"] = (done["spent_seconds"] + done["shared_seconds"]).mean()
    row["peak_bytes"] = done["peak_bytes"].max()
    return row


def _spread(key: str, estimate: Estimate | None) -> dict[str, float]:
    if estimate is None:
        return {key: np.nan, f"{key}_low": np.nan, f"{key}_high": np.nan}
    return {key: estimate.mean, f"{key}_low": estimate.low, f"{key}_high": estimate.high}


def interval_note(section: Section, prompts_drawn: int | None = None) -> str:
    """What the intervals of a section are over, for captions; of ``prompts_drawn`` prompts where not of all."""
    shapes = [section.grid(name, section.primary.name).shape for name in section.finished]
    if not shapes:
        return "No cell has finished."
    seeds, prompts = (_between(counts) for counts in zip(*shapes, strict=True))
    prompts = prompts if prompts_drawn is None else str(prompts_drawn)
    if seeds == "1":
        return (
            f"95% t intervals over {prompts} held-out prompts, conditional on this run: one seed stands for no other."
        )
    return f"95% two-way (seed × prompt) random-effects t intervals over {seeds} seeds and {prompts} held-out prompts."


def _between(counts: tuple[int, ...]) -> str:
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)}–{max(counts)}"


def _leaderboard_caption(section: Section) -> str:
    parts = [interval_note(section)]
    if section.primary.note:
        parts.append(f"{formats.phrase(section.primary.name).capitalize()}: {section.primary.note}.")
    scores = section.results.references.get(section.task, {})
    parts += [f"For comparison, {name} scores {formats.fixed(score)}." for name, score in scores.items()]
    if any(comparison.verdict.flag for comparison in section.effects.values()):
        parts.append(f"With fewer than {ENOUGH_SEEDS} seeds a verdict is descriptive.")
    return " ".join(parts)


def pairwise(section: Section) -> Table:
    """Each pair of algorithms: difference, win rate, adjusted p, verdict and what could have been detected."""
    rows = [
        {"a": c.a, "b": c.b, "family": c.family}
        | _spread("difference", c.difference)
        | _spread("win_rate", c.win_rate)
        | {"p": c.difference.p, "p_holm": c.p_holm, "verdict": c.verdict.word, "flag": c.verdict.flag}
        | {"detectable": c.difference.detectable, "seeds": c.difference.n_seeds, "prompts": c.difference.n_prompts}
        for c in section.pairs
    ]
    columns = (
        Column("a", "algorithm"),
        Column("b", "against"),
        Column("difference", f"Δ {formats.phrase(section.primary.name)}", "signed", True),
        Column("win_rate", "win rate", "percent", True, "share of prompts on which it scores higher; ties count half"),
        Column("p_holm", "Holm p", "p"),
        Column("verdict", "verdict", "verdict"),
        Column("detectable", "detectable", "number", help="smallest true difference seen with 80% power"),
        Column("family", "family", help="the family that Holm's adjustment is over"),
        Column("flag", "note"),
    )
    caption = (
        "Paired differences and win rates by the primary metric, on the same seeds and prompts. "
        "Holm's adjustment is over each family alone. INCONCLUSIVE is not 'equal'."
    )
    return Table("pairwise", "Pairwise verdicts", caption, pd.DataFrame(rows), columns)


def square(section: Section) -> Table:
    """The same verdicts as a matrix: the row against the column."""
    places = formats.decimals([c.difference.mean for c in section.pairs])
    found: dict[tuple[str, str], str] = {}
    for c in section.pairs:
        turned = {"WIN": "LOSS", "LOSS": "WIN"}.get(c.verdict.word, c.verdict.word)
        found[c.a, c.b] = f"{c.verdict.word} {formats.fixed(c.difference.mean, places, sign=True)}"
        found[c.b, c.a] = f"{turned} {formats.fixed(-c.difference.mean, places, sign=True)}"
    rows = [{"algorithm": a} | {f"against {b}": found.get((a, b), "") for b in section.ranked} for a in section.ranked]
    against = (Column(f"against {b}", b, "verdict") for b in section.ranked)
    columns = (Column("algorithm", "row against column"), *against)
    caption = f"Difference in {formats.phrase(section.primary.name)}, row minus column, with its Holm-adjusted verdict."
    return Table("verdicts", "Who beats whom", caption, pd.DataFrame(rows), columns)


def metrics(section: Section) -> Table:
    """Every metric that any evaluator declared, health included: one row an algorithm."""
    rows = []
    for name in section.ranked:
        row: dict[str, Any] = {"algorithm": name}
        for metric in section.metrics:
            row |= _spread(f"metric_{metric}", section.estimate(name, metric))
        rows.append(row)
    columns = [Column("algorithm", "algorithm")]
    for declared in section.metrics.values():
        title = f"{formats.phrase(declared.name)}{ARROWS[declared.direction]}"
        about = f"{declared.description} ({declared.unit})"
        columns.append(Column(f"metric_{declared.name}", title, "number", True, about))
    frame = pd.DataFrame(rows, columns=None if rows else ["algorithm"])
    return Table("metrics", "Every metric", f"At the end of training. {interval_note(section)}", frame, tuple(columns))


def ledger(section: Section) -> Table:
    """What each algorithm spent in every currency, mean over seeds, and what its shared stages cost."""
    rows = []
    for name in section.algorithms:
        done = section.cells[(section.cells["algorithm"] == name) & (section.cells["status"] == "ok")]
        row: dict[str, Any] = {"algorithm": name, "seeds": len(done)}
        row |= {currency: done[f"spent_{currency}"].mean() for currency in CURRENCIES}
        shares = [row[currency] / limit for currency, limit in section.limits.items()]
        row["spent"] = max((share for share in shares if not np.isnan(share)), default=np.nan)
        row["overshoot"] = done["overshoot"].max()
        costs = ("shared_flops", "amortised_flops", "shared_seconds", "amortised_seconds")
        row |= {key: done[key].mean() for key in (*costs, "trainable_policy", "trainable_auxiliary")}
        rows.append(row)
    kinds: dict[str, Kind] = {"flops": "si", "seconds": "duration"}
    currencies = [Column(name, formats.phrase(name), kinds.get(name, "si")) for name in CURRENCIES]
    columns = (
        Column("algorithm", "algorithm"),
        *currencies,
        Column("spent", "of budget", "share", help="largest share of a limit"),
        Column("overshoot", "overshoot", "share", help="worst seed; at most one step is allowed"),
        Column("shared_flops", "shared FLOPs", "si", help="stages that it needs, charged to it alone"),
        Column("amortised_flops", "… split", "si", help="the same, split evenly among the cells that used them"),
        Column("shared_seconds", "shared time", "duration"),
        Column("trainable_policy", "policy params", "si"),
        Column("trainable_auxiliary", "auxiliary params", "si", help="a critic or another head that the policy needs"),
    )
    kinds_of_limit = [f"{formats.si(limit)} {formats.phrase(name)}" for name, limit in section.limits.items()]
    limits = f"Budget {section.budget}: {', '.join(kinds_of_limit) or 'unlimited'}"
    caption = f"{limits}; training stops at the first limit reached. Means over seeds that ended well."
    return Table("ledger", "Budget ledger", caption, pd.DataFrame(rows), columns)


def references(section: Section) -> Table:
    """Named scores of the task to hold a policy against, e.g. the best constant answer."""
    scores = section.results.references[section.task]
    rows = [{"reference": name, "score": score} for name, score in scores.items()]
    columns = (Column("reference", "reference"), Column("score", "gold score", "number"))
    caption = "Scores on the same test rows that need no learning: a policy below them has learnt nothing."
    return Table("references", "Task references", caption, pd.DataFrame(rows), columns)


def runs(results: Results) -> Table:
    """Every planned cell with its status and, where it did not end well, the reason."""
    varied = [key for key in ("task", "model", "budget") if results.cells[key].nunique() > 1]
    columns = (
        Column("algorithm", "algorithm"),
        *(Column(key, key) for key in varied),
        Column("seed", "seed", "whole"),
        Column("status", "status", "status"),
        Column("reason", "reason"),
        Column("spent_steps", "steps", "whole"),
        Column("spent_seconds", "training", "duration"),
        Column("wall_s", "wall clock", "duration", help="set-up, probes and evaluation included"),
        Column("id", "cell"),
    )
    counts = results.cells["status"].value_counts()
    caption = f"{len(results.cells)} cells planned: " + ", ".join(f"{n} {status}" for status, n in counts.items()) + "."
    return Table("runs", "All runs", caption, results.cells, columns)
