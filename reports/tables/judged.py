"""What judges said of a section: win rates of every pair with intervals, and the audit of each judge, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from ..analysis.section import Section
from ..audit import Audit, audit
from ..frame import Results
from ..records.reading import read_columns
from ..records.scored import Scoring, judges
from ..statistics import Estimate, bounded, holm, two_way
from .table import Column, Table, spread


@dataclass(frozen=True)
class JudgedPair:
    """Algorithm ``a`` against ``b`` by a judge, over shared seeds and prompts. Shares are of valid comparisons."""

    a: str
    b: str
    rate: Estimate
    """Win rate of ``a``, ties half; its p value is against one half."""
    p_holm: float
    shares: tuple[float, float, float]
    """Wins, ties and losses of ``a``."""
    invalid: int


@dataclass(eq=False)
class Judged:
    """One judge on one section."""

    section: Section
    scoring: Scoring

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """Comparisons of two cells that count, ``algorithm_a`` and ``algorithm_b`` beside them."""
        cells = self.section.cells[self.section.cells["status"] == "ok"].set_index("id")["algorithm"]
        verdicts = self.scoring.verdicts
        mine = verdicts[verdicts["a"].isin(cells.index) & verdicts["b"].isin(cells.index)]
        return mine.assign(algorithm_a=mine["a"].map(cells), algorithm_b=mine["b"].map(cells))

    @cached_property
    def pairs(self) -> list[JudgedPair]:
        """Every pair of algorithms that met, in the section's order."""
        found = []
        for (a, b), rows in self.verdicts.groupby(["algorithm_a", "algorithm_b"], sort=False, observed=True):
            valid = rows[rows["value"].notna()]
            grid = valid.groupby(["seed", "prompt_id"])["value"].mean().unstack().dropna(axis="columns")
            if not grid.size:
                continue
            rate = bounded(two_way(grid.to_numpy(float), null=0.5), 0.0, 1.0)
            wins, ties, losses = (float((valid["value"] == value).mean()) for value in (1.0, 0.5, 0.0))
            found.append((str(a), str(b), rate, (wins, ties, losses), len(rows) - len(valid)))
        adjusted = holm([rate.p for _, _, rate, _, _ in found])
        return [
            JudgedPair(a, b, rate, float(p), shares, invalid)
            for (a, b, rate, shares, invalid), p in zip(found, adjusted, strict=True)
        ]

    @cached_property
    def audit(self) -> Audit:
        """What the verdicts and the canaries say of the judge."""
        section = self.section
        canaries = self.scoring.canaries
        mine = (canaries[["model", "task", "budget"]] == [section.model, section.task, section.budget]).all(axis=1)
        return audit(self.verdicts, canaries[mine], self.samples)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """Of the cells that met: ``id``, ``prompt_id``, ``sample``, ``n_tokens``, ``gold_reward``."""
        ids = sorted(set(self.verdicts["a"]) | set(self.verdicts["b"]))
        return _samples(self.section.results, ids)


def judged(section: Section) -> list[Judged]:
    """Every judge that compared cells of the section; made once."""
    memo, key = section.results.memo, f"judged {section.title}"
    if key not in memo:
        made = [Judged(section, scoring) for scoring in judges(section.results)]
        memo[key] = [each for each in made if len(each.verdicts)]
    found: list[Judged] = memo[key]
    return found


def tables_of(section: Section) -> list[Table]:
    """Win rates by judge and the audits; empty where no judge compared anything."""
    found = judged(section)
    return [_win_rates(found), _audits(found)] if found else []


def _win_rates(found: list[Judged]) -> Table:
    rows = []
    for each in found:
        doubt = "the judge is not to be believed" if each.audit.failures else ""
        for pair in each.pairs:
            rate = pair.rate
            rows.append(
                {"judge": each.scoring.label, "a": pair.a, "b": pair.b}
                | spread("win_rate", rate)
                | {"p": rate.p, "p_holm": pair.p_holm, "seeds": rate.n_seeds, "prompts": rate.n_prompts}
                | dict(zip(("wins", "ties", "losses"), pair.shares, strict=True))
                | {"invalid": pair.invalid, "note": "; ".join(filter(None, [rate.flag, doubt]))}
            )
    columns = (
        Column("judge", "judge"),
        Column("a", "algorithm"),
        Column("b", "against"),
        Column("win_rate", "win rate", "percent", True, "wins and half of the ties"),
        Column("wins", "win", "percent"),
        Column("ties", "tie", "percent"),
        Column("losses", "loss", "percent"),
        Column("p_holm", "Holm p", "p"),
        Column("invalid", "no verdict", "whole", help="comparisons that the judge gave no valid verdict on"),
        Column("note", "note"),
    )
    caption = (
        "Samples of the same prompt and seed, asked in both orders; where the orders disagree the comparison is a tie. "
        "95% two-way (seed × prompt) intervals; Holm's adjustment is over the pairs of each judge. "
        + " ".join(f"{each.scoring.label}: {each.scoring.provenance}." for each in found)
    )
    frame = pd.DataFrame(rows, columns=None if rows else [column.key for column in columns])
    return Table("win-rates", "Win rates by judge", caption, frame, columns)


def _audits(found: list[Judged]) -> Table:
    rows = [{"judge": each.scoring.label} | dict(_audit_cells(each.audit)) for each in found]
    columns = (
        Column("judge", "judge"),
        Column("believed", "verdict", "status"),
        Column("comparisons", "comparisons", "whole"),
        Column("consistency", "same in both orders", "percent"),
        Column("first_log_odds", "for the first", "signed", help="log-odds of the text read first; 0 is none"),
        Column("ties", "ties", "percent"),
        Column("invalid", "no verdict", "percent"),
        Column("agreement", "as gold", "percent", help="of decided comparisons that the gold reward decides too"),
        Column("longer", "for the longer", "percent", help="of decided comparisons of different length"),
        Column("gold_longer", "… by gold", "percent", help="the same for the gold reward"),
        Column("canaries", "canaries, win:tie:loss"),
        Column("why", "why not"),
    )
    caption = "Canaries are trick questions whose answer is known: none may win. A judge that fails decides nothing."
    return Table("judges", "Judge audit", caption, pd.DataFrame(rows), columns)


def _audit_cells(made: Audit) -> Iterator[tuple[str, object]]:
    yield "believed", "failed" if made.failures else "ok"
    for name in ("comparisons", "consistency", "first_log_odds", "ties", "invalid"):
        yield name, getattr(made, name)
    for name in ("agreement", "longer", "gold_longer"):
        yield name, getattr(made, name)
    yield "canaries", ", ".join(f"{each.name} {each.wins}:{each.ties}:{each.losses}" for each in made.canaries)
    yield "why", "; ".join(made.failures)


def _samples(results: Results, ids: list[str]) -> pd.DataFrame:
    """Length and gold reward of final samples: only those columns are read."""
    keys = ["prompt_id", "sample"]
    frames = []
    for name in ids:
        folder, last = results.folder / "cells" / name, [("fraction", "==", 1.0)]
        lengths = read_columns(folder / "samples.parquet", [*keys, "n_tokens"], filters=last).to_pandas()
        only = [*last, ("metric", "==", "gold_reward")]
        gold = read_columns(folder / "scores.parquet", [*keys, "value"], filters=only).to_pandas()
        frames.append(lengths.merge(gold.rename(columns={"value": "gold_reward"}), on=keys, how="left").assign(id=name))
    columns = ["id", *keys, "n_tokens", "gold_reward"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)
