"""What happens in a cell's process: it runs the cell, times its phases, and writes down how it ended."""

from __future__ import annotations

import datetime
import faulthandler
import gc
import importlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bakeoff.errors import BakeoffError, Incompatible, PluginFailure
from bakeoff.store import Store

if TYPE_CHECKING:
    from bakeoff.spec import CellSpec

PHASES = ("load", "stages", "train", "evaluate")

TELEMETRY_OFF = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
QUIET = {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"}
KEEP_PAGES = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
"""For glibc's allocator: tensors that are freed leave their pages to the next ones. Otherwise the kernel maps and
zeroes the same pages at every step on a CPU, which is about an eighth of a short SFT step."""


def worker_environment(threads: int) -> dict[str, str]:
    """Environment of a cell's process. torch reads the thread counts when it is imported, glibc at the start."""
    count = str(threads)
    kept = {name: os.environ.get(name, value) for name, value in KEEP_PAGES.items()}
    return {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count} | TELEMETRY_OFF | QUIET | kept


class PhaseClock:
    """Times the phases of a cell, earlier attempts included, and tells other processes where it is."""

    EVERY_S = 0.5

    def __init__(self, store: Store, cell_id: str) -> None:
        self._store, self._path = store, store.partial(cell_id) / "progress.json"
        earlier = store.progress(cell_id)
        self._started = earlier.get("started") or _utc_now()
        self._seconds = dict.fromkeys(PHASES, 0.0) | earlier.get("seconds", {})
        self._phase, self._since, self._written = "", 0.0, float("-inf")

    def __call__(self, phase: str, fraction: float, note: str = "") -> None:
        """Say that ``fraction`` of ``phase`` is done. Cheap: writes at most twice a second."""
        now = time.monotonic()
        if self._phase:
            self._seconds[self._phase] += now - self._since
        changed, self._phase, self._since = phase != self._phase, phase, now
        if changed or now - self._written >= self.EVERY_S:
            self._written = now
            where = {"phase": phase, "fraction": fraction, "updated": time.time(), "pid": os.getpid(), "note": note}
            times = {"started": self._started, "seconds": self._seconds}
            self._store.write_json(self._path, where | times, durable=False)

    def status(self, status: str, reason: str = "", trace: str | None = None) -> dict[str, Any]:
        """What ``status.json`` says of a cell that ends now."""
        if self._phase:
            self(self._phase, 1.0)
        return {
            "status": status,
            "reason": reason,
            "traceback": trace,
            "started": self._started,
            "ended": _utc_now(),
            "wall_s": sum(self._seconds.values()),
            "seconds": self._seconds,
        }


def run(function: str, cell: CellSpec, cell_id: str, folder: str, threads: int) -> None:
    """Main function of a cell's process: run the cell, write down how it went, and be gone."""
    gc.freeze()  # what the fork server imported, half a million objects, stays: no collection need walk it
    if hasattr(os, "setsid"):
        os.setsid()
    threading.Thread(target=_die_with_runner, daemon=True).start()
    store = Store(Path(folder))
    _redirect_output(store.partial(cell_id) / "log.txt")
    clock = PhaseClock(store, cell_id)
    try:
        clock("load", 0.0)
        os.environ |= worker_environment(threads)
        module, _, name = function.partition(":")
        run_cell = getattr(importlib.import_module(module), name)
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(threads)
        run_cell(cell, cell_id, store, clock)
        status = clock.status("ok")
    except BaseException as error:
        traceback.print_exc()
        status = clock.status(classify(error), one_line(error), traceback.format_exc())
    store.finish_cell(cell_id, status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a thread that a plugin left behind must not keep the process alive


def classify(error: BaseException) -> str:
    """The status that an exception means: the first that it, its cause, or that one's cause and so on says."""
    cause: BaseException | None = error
    while cause is not None:
        if _is_out_of_memory(cause):
            return "oom"
        if isinstance(cause, FloatingPointError):
            return "diverged"
        if isinstance(cause, Incompatible):
            return "incompatible"
        cause = cause.__cause__
    return "plugin_error" if isinstance(error, PluginFailure) else "infra_error"


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = ("can't allocate memory", "out of memory", "Cannot allocate memory")
    return isinstance(error, RuntimeError | OSError) and any(text in str(error) for text in said)


def one_line(error: BaseException) -> str:
    """What went wrong, for tables: our own messages as they are, others with their type."""
    if isinstance(error, PluginFailure) and error.__cause__:
        return f"{error}: {one_line(error.__cause__)}"
    text = error.args[0] if isinstance(error, BakeoffError) else str(error)
    first = next(iter(text.strip().splitlines()), "")
    if isinstance(error, BakeoffError | PluginFailure):
        return first
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _redirect_output(log: Path) -> None:
    """Send everything that this process prints, C libraries included, to the end of ``log``."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    faulthandler.enable(sys.stderr)


def _die_with_runner() -> None:
    """Wait for the runner's death; then end this cell and what it started, as a kill -9 would."""
    runner = multiprocessing.parent_process()
    assert runner is not None
    multiprocessing.connection.wait([runner.sentinel])
    if hasattr(os, "killpg"):
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def _utc_now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
