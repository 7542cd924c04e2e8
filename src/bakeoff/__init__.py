"""A bake-off for post-training algorithms: one matrix, one budget, one report.

import bakeoff

results = bakeoff.run("quickstart")
results.frame()
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "run"]


def run(
    source: str | Path,
    *,
    set: Sequence[str] = (),
    only: Sequence[str] = (),
    runs: str | Path | None = None,
    name: str | None = None,
    workers: int | None = None,
) -> Any:
    """Run a matrix, write its reports and return its ``bakeoff.reports.frame.Results``.

    ``source`` is the name of a stock matrix or the path of a YAML file; ``set`` are overrides such as
    ``"seeds=5"`` and ``only`` selections such as ``"algorithm=ppo"``. The run is kept in
    ``<runs>/<name>``, by default ``./runs`` (or the environment's BAKEOFF_RUNS) and the matrix's name.
    Running again does only what is missing. Raises ``BakeoffError`` for what is wrong with the matrix,
    ``KeyboardInterrupt`` when it was stopped; a failed cell raises nothing, the results show it.
    """
    from bakeoff import matrix, reporting, runner, store

    asked = matrix.load(source, set, only)
    where = store.new_run(name or asked.spec.name, Path(runs) if runs else None)
    if runner.run(asked, where, workers=workers).interrupted:
        raise KeyboardInterrupt
    results = reporting.read_results(where)
    reporting.refresh_reports(where, results)
    return results
