"""For a paper: claims to quote, a BibTeX entry, and every chart as a vector file one column wide."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from bakeoff.contracts import Report

from .charts.gallery import write_column_charts
from .claims import bibtex, claims
from .files import write_atomic
from .frame import Results
from .markdown import escape


class Paper(Report):
    """``claims.md``, ``claims.json``, ``citation.bib`` and ``charts/*.pdf``."""

    title = "Claims, BibTeX and charts at column width"

    def write(self, results: Results, to: Path) -> list[Path]:
        """Write the claims, the citation and the column-wide charts under ``to``."""
        made = claims(results)
        record = {
            "schema_version": 1,
            "run": results.plan["name"],
            "declared": results.declaration["hash"],
            "runs": _runs(results).to_dict("records"),
            "claims": [claim.record() for claim in made],
        }
        text = json.dumps(record, indent=2, allow_nan=False)
        return [
            write_atomic(to / "claims.md", _markdown(results)),
            write_atomic(to / "claims.json", text + "\n"),
            write_atomic(to / "citation.bib", bibtex(results)),
            *write_column_charts(results, to),
        ]


def _markdown(results: Results) -> str:
    lines = [f"# What {escape(str(results.plan['name']))} supports", ""]
    lines += [f"- {escape(claim.text)} `{claim.cell}`" for claim in claims(results)] or [
        "Nothing yet: no pair was measured."
    ]
    lines += ["", "## What it stands on", ""]
    for row in _runs(results).itertuples():
        where = f"{row.task}, {row.model}, {row.budget}"
        lines.append(f"- {escape(f'{row.algorithm} ({where}): {row.ok} of {row.planned} runs ended well')}")
    return "\n".join(lines) + "\n"


def _runs(results: Results) -> pd.DataFrame:
    """How many runs of each algorithm were planned and ended well: a claim may not hide those that did not."""
    keys = ["task", "model", "budget", "algorithm"]
    groups = results.cells.groupby(keys, sort=False, observed=True)["status"]
    return groups.agg(ok=lambda status: int((status == "ok").sum()), planned="count").reset_index()
