"""From a run on disk to its reports. Nothing is written again when nothing has changed."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bakeoff import registry
from bakeoff.errors import PluginError, StoreError
from bakeoff.store import Store


def read_results(store: Store, *, mixed: bool = False) -> Any:
    """The run's results, ``bakeoff.reports.frame.Results``.

    Cells that differ in what must be equal are left out of every comparison, unless ``mixed``; then the report says so.
    """
    return _reports("frame").Results.read(store.folder, mixed=mixed)


def compare(before: Any, after: Any) -> tuple[list[Any], list[str]]:
    """(verdicts that changed between two runs' results, each with its reasons; what differs between the runs)."""
    module = _reports("compare")
    return module.changes(before, after), module.differences(before, after)


def gate(results: Any, against: Any = None, *, margin: float = 0.0, metric: str = "") -> Any:
    """Whether results are good enough to pass, ``bakeoff.reports.gate.Gate``."""
    return _reports("gate").gate(results, against, margin=margin, metric=metric)


def leaderboard(results: Any) -> Any:
    """The leaderboard of results, for ``rich`` to print."""
    return _reports("terminal").leaderboard(results)


def write_reports(
    store: Store, results: Any, formats: Sequence[str] = (), to: Path | None = None
) -> dict[str, list[Path]]:
    """Write the run's reports, all installed forms unless some are named; the files written, by form.

    A form that fails keeps no other from being written; then raises ``PluginError``.
    """
    if to is None:  # what stands there afterwards need not be all forms, or of the same reading
        _note(store).unlink(missing_ok=True)
    written, failures = {}, []
    for name in formats or registry.names("report"):
        try:
            written[name] = registry.load("report", name)().write(results, to or store.folder / "report")
        except PluginError as error:
            failures.append(str(error))
        except Exception as error:
            failures.append(f"report {name!r} failed: {type(error).__name__}: {error}")
    if failures:
        raise PluginError("\n".join(failures), fix=f"Written nevertheless: {', '.join(written) or 'none'}.")
    return written


def refresh_reports(store: Store, results: Any) -> bool:
    """Write all reports into the run's folder unless they are up to date. Whether they were written."""
    note = _note(store)
    digest = _report_inputs(store)
    with contextlib.suppress(StoreError):
        if store.read_json(note)["digest"] == digest:
            return False
    write_reports(store, results)
    store.write_json(note, {"digest": digest})
    return True


def _note(store: Store) -> Path:
    """Says what the reports in the run's folder were written from."""
    return store.folder / "report" / ".written_from.json"


def _report_inputs(store: Store) -> str:
    """A hash of what a report is made from: the plan, the cells that ended, later scores, the reports' own code."""
    digest = hashlib.sha256(store.plan_path.read_bytes())
    for entry in store.read_json(store.plan_path)["cells"]:
        digest.update(repr(store.status(entry["id"])).encode())
    for record in sorted(store.folder.glob("scored/*/scored.json")):
        digest.update(record.read_bytes())
    for name in registry.names("report"):
        with contextlib.suppress(PluginError):
            digest.update(registry.source_hash(registry.load("report", name)).encode())
    return digest.hexdigest()


def _reports(module: str) -> Any:
    """A module of the reports family that is no plugin. The only place where the core names a family."""
    return importlib.import_module(f"bakeoff.reports.{module}")
