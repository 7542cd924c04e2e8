"""The tables that say who wins, as run and under an equal amount of each currency: leaderboard, pairs, every metric.

What it cost is in ``ledgers.py``, what speaks against it in ``checks.py``; ``all_tables`` has every table of a run. A
failed or missing cell is a row with its status, never an absence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from .. import formats
from ..analysis.equality import EqualSection
from ..analysis.findings import listing
from ..analysis.section import Section, sections
from ..frame import Results
from ..verdicts import ENOUGH_SEEDS
from . import across, checks, judged, kl_budget, ledgers, pairs
from .ledgers import runs
from .table import ARROWS, ROLE, Cell, Column, Table, bounds, spread

__all__ = [
    "Cell", "Column", "Table", "all_tables", "interval_note", "leaderboard", "runs", "tables_of", "tables_under",
]  # fmt: skip


NOT_ADJUSTED = "Exploratory: p values are not adjusted."
KL = "exact KL from where the policy started, nats a sequence; ≤ is a bound, of completions that are not a policy's own"


def tables_of(section: Section) -> list[Table]:
    """Every table of a section as run that has something to say, made once."""
    return _once(section, "tables", _tables)


def tables_under(section: Section) -> list[Table]:
    """The tables that say who wins, under an equal amount of each currency, made once."""
    return _once(section, "tables under", lambda whole: [t for e in whole.equal_by.values() for t in _ranking(e)])


def _once(section: Section, what: str, make: Callable[[Section], list[Table]]) -> list[Table]:
    key = f"{what} {section.slug}"
    if key not in section.results.memo:
        section.results.memo[key] = make(section)
    made: list[Table] = section.results.memo[key]
    return made


def _ranking(section: Section) -> list[Table]:
    """What ranks: leaderboard, pairs, strengths, every metric."""
    made = [leaderboard(section)]
    if section.pairs:
        made += [pairs.square(section), pairs.pairwise(section)]
    if section.ranking is not None:
        made.append(pairs.strengths(section, section.ranking))
    if section.metrics:
        made.append(metrics(section))
    return made


def _tables(section: Section) -> list[Table]:
    made = _ranking(section)
    if section.equal_by:
        made.append(equal_by_what(section))
    if (bought := kl_budget.table(section)) is not None:
        made.append(bought)
    return [*made, *judged.tables_of(section), *checks.tables_of(section), *ledgers.tables_of(section)]


def all_tables(results: Results) -> list[tuple[Section | None, Table]]:
    """Every table of a run; section by section, then those of the whole run."""
    found: list[tuple[Section | None, Table]] = [
        (section, table) for section in sections(results) for table in [*tables_of(section), *tables_under(section)]
    ]
    return [*found, *((None, table) for table in [*across.tables_of_run(results), *ledgers.tables_of_run(results)])]


def leaderboard(section: Section) -> Table:
    """One row an algorithm, contenders before controls: how good, how sure, how far from the base, at what cost."""
    unfinished = [name for name in section.algorithms if name not in section.finished]
    standing = sorted(section.ranked, key=section.controls.__contains__)  # stable: the better one first in each group
    rows = [_standing(section, name) for name in [*standing, *unfinished]]
    primary = section.metrics.get(section.primary.name)
    arrow = ARROWS[primary.direction] if primary else ""
    controls = section.controls - {section.baseline}
    columns = [
        Column("algorithm", "algorithm"),
        *([Column("role", "role", help=ROLE)] if controls else []),
        Column("seeds", "seeds", help="seeds that ended well / planned"),
        Column("primary", formats.phrase(section.primary.name) + arrow, "number", True),
    ]
    if section.baseline is not None:
        columns.append(Column("delta", f"Δ {section.baseline}", "signed", True, "paired gain over the baseline"))
        how = "p < 0.05, not adjusted" if section.currency else "Holm-adjusted p < 0.05 over all gains"
        columns.append(Column("verdict", "verdict", "verdict", help=how))
    if len(section.finished) > 2:
        columns.append(Column("tier", "tier", help="algorithms that share a letter are not separated by a verdict"))
    optional = (
        Column("win_rate", "win rate", "percent", True, "against where the policy started; ties count half"),
        Column("win_rate_lc", "at equal length", "percent", True, "win rate if answers were as long as the start's"),
        Column("kl", "KL", "number", True, KL, mark="kl_mark"),
        Column("kl_token", "KL a token", "number", help="sum of KL over all tokens / number of tokens, nats"),
        Column("length_tokens", "length", "number", help="tokens a completion"),
        Column("length_ratio", "× length", "number", help="of the untrained policy's length"),
    )
    measured = set(section.metrics)
    measured |= {"kl_token"} if {"kl", "length_tokens"} <= measured else set()
    measured |= {"win_rate_lc"} if section.length_controlled else set()
    if section.baseline and "length_tokens" in measured:  # the tokens themselves are among the metrics
        measured = measured - {"length_tokens"} | {"length_ratio"}
    columns += [column for column in optional if column.key in measured and column.key != section.primary.name]
    placed = section.frontier.policies if section.frontier is not None else {}
    if _efficient(section):
        why = "gain as a share of the most that this KL can buy; ≤ where the KL is beyond the frontier"
        columns.append(Column("efficiency", "KL efficiency", "percent", True, why, mark="efficiency_mark"))
    if placed:
        why = "as good as the best of n samples of the reference; > where better than all in the pool"
        columns.append(Column("worth", "worth best of", "si", False, why, mark="worth_mark"))
    columns += [
        Column("flops", "FLOPs", "si", help="training alone, mean over seeds; completions, where nothing trains"),
        Column("flops_shared", "+\u00a0shared", "si", help="with the stages that it needs charged to it in full"),
        Column("seconds", "time", "duration", help="training alone, mean over seeds"),
    ]
    if isinstance(section, EqualSection):
        columns.append(Column("reached", "of its training", "percent", help="after which it had spent this much"))
        columns.append(Column("note", "read off"))
    else:
        columns.append(Column("peak_bytes", "memory", "size", help="peak, worst seed"))
    caption = _leaderboard_caption(section)
    return Table("leaderboard", "Leaderboard", caption, pd.DataFrame(rows), tuple(columns)).of(section)


def _standing(section: Section, name: str) -> dict[str, Any]:
    ok, planned = section.seeds(name)
    cells = section.cells[section.cells["algorithm"] == name]
    done = cells[cells["status"] == "ok"]
    failed = cells.loc[cells["status"] != "ok", "status"].value_counts()
    row: dict[str, Any] = {"algorithm": name, "title": cells["title"].iloc[0], "seeds_ok": ok, "seeds_planned": planned}
    row["role"] = "control" if name in section.controls else "contender"
    row["seeds"] = " · ".join([f"{ok}/{planned}", *(f"{count}\u00a0{status}" for status, count in failed.items())])
    row |= spread("primary", section.estimate(name, section.primary.name))
    effect = section.effects.get(name)
    row |= spread("delta", effect.difference if effect else None)
    row |= {"p_holm": effect.p_holm if effect else np.nan, "verdict": effect.verdict.label if effect else ""}
    row["reason"] = effect.verdict.reason if effect else ""
    row["tier"] = section.tiers.get(name, "")
    for metric in ("win_rate", "kl", "length_tokens"):
        row |= spread(metric, section.estimate(name, metric))
    row["kl_mark"] = ""
    if formats.is_missing(row["kl"]) and not formats.is_missing(bound := cells["kl_bound"].astype(float).mean()):
        row |= {"kl": bound, "kl_mark": "≤\u00a0"}
    row |= _at_equal_length(section, name) | _ratios(section, name) | _on_frontier(section, name)
    spent = section.cost(name)
    for currency in ("flops", "seconds"):
        row[currency] = spent[currency]
        row[f"{currency}_shared"] = spent[currency] + done[f"shared_{currency}"].mean()
    row["peak_bytes"] = done["peak_bytes"].max()
    if isinstance(section, EqualSection):
        row |= {"reached": section.reached(name), "note": section.note(name)}
    return row


def _at_equal_length(section: Section, name: str) -> dict[str, Any]:
    found = section.length_controlled.get(name)
    rate = found.win_rate if found else (np.nan, np.nan, np.nan)
    return bounds("win_rate_lc", rate) | {"length_warning": found.warning if found else ""}


def _ratios(section: Section, name: str) -> dict[str, float]:
    """KL a token, a ratio of sums and not a mean of ratios; length against the baseline's."""
    kl, length = section.estimate(name, "kl"), section.estimate(name, "length_tokens")
    start = section.estimate(section.baseline, "length_tokens") if section.baseline else None
    return {
        "kl_token": kl.mean / length.mean if kl and length and length.mean > 0 else np.nan,
        "length_ratio": length.mean / start.mean if length and start and start.mean > 0 else np.nan,
    }


def _efficient(section: Section) -> list[str]:
    """Contenders whose KL is near enough to the frontier to say how well it was spent."""
    placed = section.frontier.policies if section.frontier is not None else {}
    known = (name for name in section.contenders if name in placed)
    return [name for name in known if not formats.is_missing(placed[name].efficiency.value)]


def _on_frontier(section: Section, name: str) -> dict[str, Any]:
    place = section.frontier.policies.get(name) if section.frontier else None
    blank: dict[str, Any] = dict.fromkeys(("efficiency", "efficiency_low", "efficiency_high", "worth"), np.nan)
    if section.frontier is None or place is None:
        return blank | {"efficiency_mark": "", "worth_mark": ""}
    share, beyond = place.efficiency, np.isinf(place.worth.value)
    return {
        "efficiency": share.value, "efficiency_low": share.low, "efficiency_high": share.high,
        "efficiency_mark": "≤\u00a0" if place.is_bound else "",
        "worth": float(section.frontier.samples) if beyond else place.worth.value,
        "worth_mark": ">\u00a0" if beyond else "",
    }  # fmt: skip


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


def full_names(section: Section) -> str:
    """What the short names stand for: "gpro" and "grpo" are one slip apart."""
    names = section.cells.drop_duplicates("algorithm")[["algorithm", "title"]]
    return "; ".join(f"{name}: {title}" for name, title in names.itertuples(index=False))


def _leaderboard_caption(section: Section) -> str:
    if isinstance(section, EqualSection):
        return f"{_reading(section)} {NOT_ADJUSTED}"
    parts = [f"{full_names(section)}.", interval_note(section)]
    if section.primary.note:
        parts.append(f"{formats.phrase(section.primary.name).capitalize()}: {section.primary.note}.")
    scores = section.results.references.get(section.task, {})
    parts += [f"For comparison, {name} scores {formats.fixed(score)}." for name, score in scores.items()]
    if section.unranked:
        parts.append(
            f"Not ranked by {formats.phrase(section.primary.name)}: {listing(section.unranked)}, which write no "
            "text and are never sampled; see every metric."
        )
    parts += _few_seeds(section)
    warned = {name: found.warning for name, found in section.length_controlled.items() if found.warning}
    parts += [f"Win rate of {name} at equal length: {warning}." for name, warning in warned.items()]
    if section.frontier is not None:
        pool = section.frontier
        what = "KL efficiency and best-of-n" if _efficient(section) else "Best-of-n"
        parts.append(f"{what}: from {pool.samples} reference samples on {pool.prompts} prompts.")
        if pool.policies and not _efficient(section):
            parts.append("No KL efficiency: so few samples, or so even ones, cannot say what so much KL can buy.")
    return " ".join(parts)


def _few_seeds(section: Section) -> list[str]:
    """That numbers with few seeds decide nothing; whose they are, where they are not everybody's."""
    seeds = {name: len(section.grid(name, section.primary.name)) for name in section.trained}
    few = [name for name, count in seeds.items() if count < ENOUGH_SEEDS]
    parts = [f"Descriptive only, with fewer than {ENOUGH_SEEDS} seeds: {listing(few)}."] if few else []
    if few == section.trained and few:
        parts = [f"With fewer than {ENOUGH_SEEDS} seeds numbers are descriptive only and decide nothing."]
    if one := [name for name in few if seeds[name] == 1]:
        parts.append(f"With one seed an interval is over prompts alone, and too narrow: {listing(one)}.")
    return parts


def equal_by_what(section: Section) -> Table:
    """One row a currency: who leads when all have spent the same of it, and whether that is another one."""
    rows = [
        {"currency": formats.phrase(name), "amount": equal.amount, "each": equal.each, "winner": equal.winner}
        | {"changes": "yes" if equal.winner_changes else "no", "finding": equal.sentence}
        | {"order": equal.order}
        for name, equal in section.equal_by.items()
    ]
    columns = (
        Column("currency", "equal"),
        Column("each", "amount", help="a seed; the largest that all reached"),
        Column("order", "order"),
        Column("changes", "winner changes"),
        Column("finding", "finding"),
    )
    return Table("equal", "Equal by what?", f"{_reading(section)} {NOT_ADJUSTED}", pd.DataFrame(rows), columns)


def _reading(section: Section) -> str:
    return (
        "Every algorithm read off where it had spent the same amount, between its two nearest evaluations along "
        f"training, on the same {len(section.curve_prompts)} prompts; never beyond them."
    )


def metrics(section: Section) -> Table:
    """Every metric that any evaluator declared, health included: one row an algorithm."""
    rows = []
    for name in [*section.ranked, *section.unranked]:
        row: dict[str, Any] = {"algorithm": name}
        for metric in section.metrics:
            row |= spread(f"metric_{metric}", section.estimate(name, metric))
        rows.append(row)
    columns = [Column("algorithm", "algorithm")]
    for declared in section.metrics.values():
        title = f"{formats.phrase(declared.name)}{ARROWS[declared.direction]}"
        about = f"{declared.description} ({declared.unit})"
        columns.append(Column(f"metric_{declared.name}", title, "number", True, about))
    frame = pd.DataFrame(rows, columns=None if rows else ["algorithm"])
    when = "Where all had spent the same" if section.currency else "At the end of training"
    return Table("metrics", "Every metric", f"{when}. {interval_note(section)}", frame, tuple(columns)).of(section)
