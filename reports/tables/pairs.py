"""The tables of pairs: every two algorithms against each other."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .. import formats
from ..analysis.section import Section
from ..analysis.standings import Ranking
from .table import Column, Table, spread


def pairwise(section: Section) -> Table:
    """Each pair of algorithms: difference, win rate, adjusted p, verdict, what stands in its way, what would decide."""
    rows = [
        {"a": c.a, "b": c.b, "family": c.family}
        | spread("difference", c.difference)
        | spread("win_rate", c.win_rate)
        | {
            "p": c.p,
            "p_holm": c.p_holm,
            "p_sign_flip": c.p_sign_flip,
            "verdict": c.verdict.label,
            "word": c.verdict.word,
            "reason": c.verdict.reason,
        }
        | {"seeds_needed": c.verdict.seeds_needed, "margin": c.margin, "detectable": c.difference.detectable}
        | {"seeds": c.difference.n_seeds, "prompts": c.difference.n_prompts}
        for c in section.pairs
    ]
    frame = pd.DataFrame(rows).astype({"seeds_needed": float, "margin": float})
    columns = (
        Column("a", "algorithm"),
        Column("b", "against"),
        Column("difference", f"Δ {formats.phrase(section.primary.name)}", "signed", True),
        Column("win_rate", "win rate", "percent", True, "share of prompts on which it scores higher; ties count half"),
        Column("p_holm", "p" if section.currency else "Holm p", "p"),
        Column("p_sign_flip", "sign-flip p", "p", help="exact, of the seeds' differences; 5 seeds reach 0.062 at best"),
        Column("verdict", "verdict", "verdict"),
        Column("reason", "because"),
        Column("seeds_needed", "seeds to decide", "whole", help="with 80% power, were the estimates the truth"),
        Column("detectable", "detectable", "number", help="smallest true difference seen with 80% power"),
        Column("family", "family", help="the family that Holm's adjustment is over"),
    )
    margin = section.margin(section.primary.name)
    caption = (
        "Paired differences and win rates by the primary metric, on the same seeds and prompts. "
        + ("Exploratory: p is not adjusted. " if section.currency else "Holm's adjustment is over each family alone. ")
        + (f"EQUIVALENT: the 90% interval lies within ±{margin:g}. " if margin is not None else "")
        + "INCONCLUSIVE is not 'equal'."
    )
    return Table("pairwise", "Pairwise verdicts", caption, frame, columns).of(section)


def square(section: Section) -> Table:
    """The same verdicts as a matrix: the row against the column."""
    places = formats.decimals([pair.difference.mean for pair in section.pairs])
    found: dict[tuple[str, str], str] = {}
    for c in section.pairs:
        found[c.a, c.b] = f"{c.verdict.label} {formats.fixed(c.difference.mean, places, sign=True)}"
        found[c.b, c.a] = f"{c.verdict.turned().label} {formats.fixed(-c.difference.mean, places, sign=True)}"
    order = section.ranked
    rows = [{"algorithm": a} | {f"against {b}": found.get((a, b), "") for b in order} for a in order]
    columns = (Column("algorithm", "row against column"), *(Column(f"against {b}", b, "verdict") for b in order))
    adjusted = "verdict; exploratory: not adjusted" if section.currency else "Holm-adjusted verdict"
    caption = f"Difference in {formats.phrase(section.primary.name)}, row minus column, with its {adjusted}."
    return Table("verdicts", "Who beats whom", caption, pd.DataFrame(rows), columns).of(section)


def strengths(section: Section, ranking: Ranking) -> Table:
    """Bradley-Terry: one number an algorithm from all its pairs, and the ranks that resampling leaves possible."""
    fit = ranking.fit
    order = np.argsort(-fit.strength)
    columns = {"strength": fit.strength, "strength_low": fit.low, "strength_high": fit.high}
    columns |= {"rank": fit.rank, "rank_low": fit.rank_low, "rank_high": fit.rank_high}
    frame = pd.DataFrame({"algorithm": ranking.algorithms, **columns}).iloc[order].reset_index(drop=True)
    shown = (
        Column("algorithm", "algorithm"),
        Column("rank", "rank", "whole", True),
        Column("strength", "strength", "signed", True, "log-odds of scoring higher than the average algorithm"),
    )
    caption = (
        f"Who scores a higher {formats.phrase(section.primary.name)} on the same prompt and seed, ties half, as a "
        f"Bradley-Terry model. 95% two-way bootstrap over {ranking.seeds} seeds and {ranking.prompts} prompts; too "
        "narrow below five seeds."
    )
    return Table("ranking", "Ranking", caption, frame, shown).of(section)
