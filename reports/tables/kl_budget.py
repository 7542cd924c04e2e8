"""What a KL budget buys: gains within so many nats of the start, and over all budgets at once."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..analysis.envelope import envelopes
from ..analysis.section import Section
from .table import Column, Table, bounds


def table(section: Section) -> Table | None:
    """One row an algorithm, the largest hypervolume first; None where no KL was measured or there is no baseline."""
    cap, found = envelopes(section)
    if not found:
        return None
    rows: list[dict[str, Any]] = []
    for name in sorted(found, key=lambda name: -found[name].hypervolume.value):
        row: dict[str, Any] = {"algorithm": name}
        for budget, gain in found[name].within.items():
            row |= bounds(f"within_{budget:g}", gain)
        rows.append(row | bounds("hypervolume", found[name].hypervolume) | {"evaluations": found[name].evaluations})
    budgets = next(iter(found.values())).within
    columns = (
        Column("algorithm", "algorithm"),
        *(Column(f"within_{k:g}", f"within {k:g} nats", "signed", True, "best evaluation so near") for k in budgets),
        Column("hypervolume", "over all budgets", "signed", True, f"mean over budgets from 0 to {cap:g} nats"),
        Column("evaluations", "evaluations", "whole", help="along training, the end included; more find more"),
    )
    caption = (
        f"The largest mean gain over {section.baseline} among the evaluations along training whose mean KL is within "
        f"the budget, on {len(section.curve_prompts)} prompts; 0 where none is: the start itself. Over all budgets: "
        f"hypervolume of the reward–KL frontier divided by its cap of {cap:g} nats. Exploratory: 95% percentile "
        "intervals over seeds and prompts, too narrow below five seeds."
    )
    return Table("kl-budget", "What a KL budget buys", caption, pd.DataFrame(rows), columns)
