"""What was said of a run's samples after it ended: the folders of ``scored/``, as far as they speak of today's samples.

``bakeoff score`` writes them. A cell that was trained again has other samples; what was said of the old ones is left
out, and ``Scoring.stale`` counts the cells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bakeoff.contracts import Metric

from .reading import read_columns, read_json

if TYPE_CHECKING:
    from ..frame import Results

COLUMNS = {
    "scores": ["id", "prompt_id", "sample", "fraction", "metric", "value"],
    "verdicts": [
        *("model", "task", "budget", "seed", "prompt_id", "sample", "a", "b", "forward", "backward", "value"),
    ],
    "canaries": ["model", "task", "budget", "canary", "prompt_id", "forward", "backward", "value"],
}


@dataclass(frozen=True, eq=False)
class Scoring:
    """One evaluator or judge. ``scores`` are a cell's; ``verdicts`` and ``canaries`` are empty unless it is a judge."""

    folder: Path
    record: Mapping[str, Any]
    """scored.json: kind, name, label, title, settings, identity, metrics, cells, sessions."""
    scores: pd.DataFrame
    verdicts: pd.DataFrame
    canaries: pd.DataFrame
    stale: int

    @property
    def label(self) -> str:
        return str(self.record["label"])

    @property
    def is_judge(self) -> bool:
        return bool(self.record["kind"] == "judge")

    @property
    def metrics(self) -> list[Metric]:
        return [Metric(**metric) for metric in self.record["metrics"]]

    @property
    def provenance(self) -> str:
        """By what and when, in words."""
        sessions = self.record["sessions"]
        facts = {key: value for session in sessions for key, value in session["facts"].items()}
        who = f"{self.record['kind']} {self.record['name']}, bakeoff {self.record['bakeoff']}"
        told = "; ".join(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in facts.items())
        return f"{who}, {sessions[-1]['created'][:16].replace('T', ' ')} UTC{f' ({told})' if told else ''}"


def scorings(results: Results) -> tuple[Scoring, ...]:
    """Every later look at the run's samples, by label; read once."""
    if "scorings" not in results.memo:
        folders = sorted(path.parent for path in results.folder.glob("scored/*/scored.json"))
        results.memo["scorings"] = tuple(
            _read(results, folder) for folder in folders if not folder.name.endswith((".partial", ".old"))
        )
    found: tuple[Scoring, ...] = results.memo["scorings"]
    return found


def judges(results: Results) -> list[Scoring]:
    """The judges among them that compared anything."""
    return [scoring for scoring in scorings(results) if scoring.is_judge and len(scoring.verdicts)]


def samples_fingerprint(path: Path) -> str:
    """Of a cell's ``samples.parquet``, as ``scored.json`` has it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _read(results: Results, folder: Path) -> Scoring:
    record = read_json(folder / "scored.json")
    planned = {cell["id"] for cell in results.plan["cells"]}
    known = {name: said for name, said in record["cells"].items() if name in planned}
    paths = {name: results.folder / "cells" / name / "samples.parquet" for name in known}
    fresh = {name for name, said in known.items()
             if paths[name].is_file() and samples_fingerprint(paths[name]) == said}  # fmt: skip
    frames = {
        name: read_columns(path, columns).to_pandas() if (path := folder / f"{name}.parquet").is_file()
        else pd.DataFrame(columns=columns)
        for name, columns in COLUMNS.items()
    }  # fmt: skip
    scores, verdicts = frames["scores"], frames["verdicts"]
    scores = scores[scores["id"].isin(fresh)]
    verdicts = verdicts[verdicts["a"].isin(fresh) & (verdicts["b"].isin(fresh) | (verdicts["b"] == ""))]
    return Scoring(folder, record, scores, verdicts, frames["canaries"], len(known) - len(fresh))


def _plain(value: Any) -> str:
    return ", ".join(f"{key} ×{count}" for key, count in value.items()) if isinstance(value, dict) else str(value)
