"""What a run leaves on disk: the layout, atomic writes, locks.

A file is complete or not there (temporary name, fsync, rename), and so is a cell: it grows in
``cells/<id>.partial`` and is renamed when it ends, well or not. What an interrupted attempt left in
``.partial`` is what the next attempt resumes from.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bakeoff.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd
    from filelock import BaseFileLock

SCHEMA_VERSION = 1

RESUMED_FROM = ("checkpoints", "probes")
"""What a cell's folder holds for an attempt that goes on; a cell that has ended needs none of it."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""A run's name: it becomes a folder, so no separators, no leading dot, no spaces."""


class Store:
    """One run's folder. Opening writes nothing.

    Raises ``StoreError`` when the folder holds a run of another schema version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if self.plan_path.exists():
            self.read_json(self.plan_path)

    @property
    def plan_path(self) -> Path:
        return self.folder / "plan.json"

    def cell(self, cell_id: str) -> Path:
        """Where the cell is once it has ended, whatever its status."""
        return self.folder / "cells" / cell_id

    def partial(self, cell_id: str) -> Path:
        """Where the cell grows while it runs, and stays when it is interrupted."""
        return self.folder / "cells" / f"{cell_id}.partial"

    def stage(self, stage_id: str) -> Path:
        """Where a stage is once it is complete."""
        return self.folder / "stages" / stage_id

    def partial_stage(self, stage_id: str) -> Path:
        """Where a stage grows; ``commit`` it when it is complete."""
        return self.folder / "stages" / f"{stage_id}.partial"

    def scoring(self, name: str) -> Path:
        """What a later look at the stored samples said: ``bakeoff score`` writes it, never into a cell's folder."""
        return self.folder / "scored" / re.sub(r"[^A-Za-z0-9._@+-]", "_", name)

    # ------------------------------------------------------------------------------- files

    def write_bytes(self, path: Path, content: bytes, *, durable: bool = True) -> None:
        """Replace the file in one step. ``durable=False`` skips fsync: for what a crash may lose."""
        with _replacing(path, durable) as temporary:
            temporary.write_bytes(content)

    def write_json(self, path: Path, fields: Mapping[str, Any], *, durable: bool = True) -> None:
        """Write an object, stamped with the schema version. NaN and infinities become null."""
        from pydantic_core import to_json

        content = to_json({"schema_version": SCHEMA_VERSION, **fields}, indent=2, inf_nan_mode="null")
        self.write_bytes(path, content + b"\n", durable=durable)

    def write_frame(self, path: Path, frame: pd.DataFrame) -> None:
        """Write a data frame as Parquet, without its index."""
        with _replacing(path, durable=True) as temporary:
            frame.to_parquet(temporary, index=False)

    def read_json(self, path: Path) -> dict[str, Any]:
        """Read what ``write_json`` wrote; see ``read_json``."""
        return read_json(path)

    # ------------------------------------------------------------------------------- cells

    def status(self, cell_id: str) -> dict[str, Any] | None:
        """``status.json`` of a cell that has ended, ``None`` while there is none."""
        path = self.cell(cell_id) / "status.json"
        try:
            return self.read_json(path)
        except StoreError:
            if path.exists():
                raise
            return None

    def is_done(self, cell_id: str) -> bool:
        """Whether the cell ended well: only then is it never computed again."""
        status = self.status(cell_id)
        return status is not None and status["status"] == "ok"

    def progress(self, cell_id: str) -> dict[str, Any]:
        """Where a cell that is running or interrupted is or was; empty before it has said anything."""
        path = self.partial(cell_id) / "progress.json"
        try:
            return self.read_json(path)
        except StoreError:
            return {}

    def open_cell(self, cell_id: str) -> Path:
        """The folder for the next attempt. What an interrupted attempt left there stays.

        An attempt that failed from outside (a killed process, a full disk) is opened again, so that the
        retry goes on from its checkpoints; a retry of any other failure starts afresh.
        """
        partial, status = self.partial(cell_id), self.status(cell_id)
        if status is not None and status["status"] == "infra_error" and not partial.exists():
            self.cell(cell_id).rename(partial)
            (partial / "status.json").unlink()
        partial.mkdir(parents=True, exist_ok=True)
        return partial

    def finish_cell(self, cell_id: str, status: Mapping[str, Any]) -> None:
        """Write the cell's status and make the attempt its record; see ``open_cell`` for what is kept."""
        self.write_json(self.partial(cell_id) / "status.json", status)
        self.recover_cell(cell_id)

    def recover_cell(self, cell_id: str) -> None:
        """Make an attempt that has its status the cell's record, also where a crash came between the two."""
        partial = self.partial(cell_id)
        if (partial / "status.json").exists():
            if self.read_json(partial / "status.json")["status"] != "infra_error":
                (partial / "progress.json").unlink(missing_ok=True)
                for name in RESUMED_FROM:
                    shutil.rmtree(partial / name, ignore_errors=True)
            self.commit(partial)
        shutil.rmtree(_old(self.cell(cell_id)), ignore_errors=True)

    def commit(self, partial: Path) -> Path:
        """Flush a ``.partial`` folder to disk and rename it to what it is called when complete.

        Takes the place of a failed cell. Raises ``StoreError`` where there is a complete folder.
        """
        final = partial.with_name(partial.name.removesuffix(".partial"))
        if final.exists():
            record = final / "status.json"
            if not record.exists() or self.read_json(record)["status"] == "ok":
                raise StoreError(f"{final} is complete already.", fix=f"Delete {partial} or {final}.")
        return self.replace(partial)

    def replace(self, partial: Path) -> Path:
        """As ``commit``, but takes the place of a complete folder too: for what can be computed again."""
        final = partial.with_name(partial.name.removesuffix(".partial"))
        for leftover in partial.rglob(".*.tmp"):
            leftover.unlink()
        for path in (*partial.rglob("*"), partial):
            _flush(path)
        if final.exists():
            shutil.rmtree(_old(final), ignore_errors=True)
            final.rename(_old(final))
        partial.rename(final)
        _flush(final.parent)
        shutil.rmtree(_old(final), ignore_errors=True)
        return final

    def lock(self, kind: Literal["plan", "cell", "stage", "scoring"], key: str = "") -> BaseFileLock:
        """A lock between processes, a context manager. The system frees it when its holder dies."""
        from filelock import FileLock

        folder = self.folder / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{kind}-{key}.lock" if key else folder / f"{kind}.lock")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of this schema version. Raises ``StoreError`` that names the file and what to do."""
    try:
        fields = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist.", fix="Run `bakeoff run` to make it.") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}.", fix=f"Delete it and run again: {path}") from error
    version = fields.get("schema_version") if isinstance(fields, dict) else None
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {version}; this bakeoff reads and writes version {SCHEMA_VERSION}.",
            fix="Use the bakeoff that wrote it, or give this run another name with --name.",
        )
    return fields


# ------------------------------------------------------------------------------- finding a run


def runs_folder(runs: Path | None = None) -> Path:
    """Where runs are kept: as given, else the environment's BAKEOFF_RUNS, else ``./runs``."""
    return Path(runs or os.environ.get("BAKEOFF_RUNS") or "runs")


def new_run(name: str, runs: Path | None = None) -> Store:
    """The store of the run called ``name``, which need not exist yet.

    Raises ``StoreError`` for a name that is no plain folder name.
    """
    if not NAME.fullmatch(name) or name.endswith((".partial", ".old")):
        raise StoreError(
            f"{name!r} cannot be a run's name: it names a folder.",
            fix="Use letters, digits, '.', '_' and '-', beginning with a letter or a digit.",
        )
    return Store(runs_folder(runs) / name)


def find_run(run: str | None = None, runs: Path | None = None) -> Store:
    """The store of an existing run, by name or folder; without either, of the one last planned.

    Raises ``StoreError`` when there is none.
    """
    home = runs_folder(runs)
    plans = sorted(home.glob("*/plan.json"), key=lambda path: path.stat().st_mtime)
    if run is None:
        if plans:
            return Store(plans[-1].parent)
        raise StoreError(f"there is no run in {home}.", fix="Start one: bakeoff run quickstart")
    for folder in (home / run, Path(run)):
        if (folder / "plan.json").exists():
            return Store(folder)
    names = [path.parent.name for path in plans]
    close = difflib.get_close_matches(run, names, n=1)
    raise StoreError(
        f"{run!r} is neither a run in {home} nor the folder of one.",
        fix=f"Did you mean {close[0]!r}?" if close else f"Runs in {home}: {', '.join(names) or 'none'}.",
    )


# ------------------------------------------------------------------------------- atomic writes


@contextlib.contextmanager
def _replacing(path: Path, durable: bool) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if durable:
            _flush(temporary)
        temporary.replace(path)
        if durable:
            _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """fsync a file or a folder. Windows has no fsync for folders and needs none for a rename."""
    if path.is_symlink() or (os.name == "nt" and path.is_dir()):
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _old(final: Path) -> Path:
    return final.with_name(f"{final.name}.old")
