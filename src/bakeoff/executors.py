"""Runs each cell in a fresh process and says how it ended.

The processes are forked from a server that has imported torch and its friends once, or, on GPUs, spawned. Each is the
leader of its own process group, so that it can be stopped with whatever it started, and watches the
runner: when the runner is killed, its cells die with it and stay resumable.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bakeoff import cellprocess
from bakeoff.cellprocess import worker_environment
from bakeoff.environment import cores, gpus
from bakeoff.errors import BakeoffError
from bakeoff.store import Store

if TYPE_CHECKING:
    from bakeoff.spec import CellSpec

GRACE_S = 10.0
"""Seconds between SIGTERM and SIGKILL."""


def default_workers() -> int:
    """How many cells run at once unless said: one a GPU, or two on CPUs; never more than there are cores."""
    return min(len(visible_gpus()) or 2, cores())


def visible_gpus() -> list[str]:
    """The GPUs that cells may use, as entries of CUDA_VISIBLE_DEVICES; a list set there already is kept to."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None or not gpus():
        return [str(index) for index in range(len(gpus()))]
    entries = [entry.strip() for entry in listed.split(",")]
    return list(itertools.takewhile(lambda entry: entry not in ("", "-1"), entries))


@dataclass(frozen=True)
class Outcome:
    """How a cell's process ended: a status, or "interrupted" when it was stopped and can be resumed."""

    cell_id: str
    status: str


@dataclass
class _Running:
    cell_id: str
    process: Any
    slot: int
    """Which of the workers it takes, from 0; on GPUs, says which one."""
    deadline: float | None
    stopped_at: float | None = None
    """When SIGTERM was sent, on the monotonic clock."""
    timed_out: bool = False
    oom_kills: int = 0


class LocalExecutor:
    """Up to ``workers`` cells at once on this machine; the cores are divided among them, and each has one GPU.

    ``function`` names what runs a cell, ``module:function``, called as
    ``f(cell, cell_id, store, progress)``. Raises ``BakeoffError`` when there are more workers than cores.
    """

    def __init__(
        self,
        store: Store,
        workers: int | None = None,
        *,
        function: str = "bakeoff.worker:run_cell",
        preload: Sequence[str] = (),
    ) -> None:
        self.store = store
        self.workers = workers or default_workers()
        if self.workers > cores():
            raise BakeoffError(
                f"{self.workers} workers on {cores()} cores would slow each other down many times over.",
                fix=f"Use --workers {cores()} or fewer.",
            )
        self.threads_each = cores() // self.workers
        self.function = function
        self._gpus = visible_gpus()
        # Imports may initialise CUDA, which a forked process cannot use: on GPUs, each cell imports for itself.
        forks = not self._gpus and "forkserver" in multiprocessing.get_all_start_methods()
        self._processes = multiprocessing.get_context("forkserver" if forks else "spawn")
        self._preload = [cellprocess.__name__, *preload]
        self._processes.set_forkserver_preload(self._preload)
        self._running: dict[str, _Running] = {}
        self._log = store.folder / ".workers.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        if forks:
            with _clean_start(self.threads_each):
                _start_fork_server(self._log)

    @property
    def free(self) -> int:
        """How many more cells can be submitted now."""
        return self.workers - len(self._running)

    def submit(self, cell: CellSpec, cell_id: str) -> None:
        """Start the cell; the first waits for the imports. Raises ``BakeoffError`` when no worker is free."""
        if not self.free:
            raise BakeoffError(f"all {self.workers} workers are busy.", fix="Call wait() first.")
        self.store.open_cell(cell_id)
        cellprocess.PhaseClock(self.store, cell_id)("load", 0.0, "starting")
        process = self._processes.Process(  # type: ignore[attr-defined]
            target=cellprocess.run, args=(self.function, cell, cell_id, str(self.store.folder), self.threads_each)
        )
        kills = _oom_kills()
        slot = min(set(range(self.workers)) - {each.slot for each in self._running.values()})
        with _clean_start(self.threads_each, self._gpu(slot)):
            try:
                process.start()
            except EOFError:
                raise BakeoffError(
                    f"the process that starts cells died while it imported {', '.join(self._preload)}.",
                    fix=f"See {self._log}, then try `bakeoff doctor`.",
                ) from None
        deadline = None if cell.timeout_s is None else time.monotonic() + cell.timeout_s
        self._running[cell_id] = _Running(cell_id, process, slot, deadline, oom_kills=kills)

    def _gpu(self, slot: int) -> dict[str, str]:
        """The environment that shows a cell its slot's GPU alone; slots beyond the GPUs share them in turn."""
        return {"CUDA_VISIBLE_DEVICES": self._gpus[slot % len(self._gpus)]} if self._gpus else {}

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Wait until a cell ends or ``timeout_s`` seconds pass; stops cells that are over their time."""
        multiprocessing.connection.wait([each.process.sentinel for each in self._running.values()], timeout_s)
        now = time.monotonic()
        ended = []
        for each in list(self._running.values()):
            if each.process.exitcode is not None:
                del self._running[each.cell_id]
                ended.append(self._collect(each))
            elif each.stopped_at is not None:
                if now > each.stopped_at + GRACE_S:
                    _signal(each.process, signal.SIGKILL)
            elif each.deadline is not None and now > each.deadline:
                each.timed_out, each.stopped_at = True, now
                _signal(each.process, signal.SIGTERM)
        return ended

    def stop(self) -> list[Outcome]:
        """Stop every cell, gently and then not, and leave each resumable."""
        ended = []
        try:
            for each in self._running.values():
                each.stopped_at = each.stopped_at or time.monotonic()
                _signal(each.process, signal.SIGTERM)
            while self._running:
                ended += self.wait(timeout_s=0.2)
        except KeyboardInterrupt:
            for each in self._running.values():
                _signal(each.process, signal.SIGKILL)
                each.process.join()
            self._running.clear()
        return ended

    def _collect(self, ended: _Running) -> Outcome:
        """What became of a cell whose process is gone: its own record, or one written on its behalf."""
        _signal(ended.process, signal.SIGKILL)  # what the cell may have started and left behind
        cell_id = ended.cell_id
        self.store.recover_cell(cell_id)
        if self.store.partial(cell_id).exists():
            if ended.stopped_at is not None and not ended.timed_out:
                return Outcome(cell_id, "interrupted")
            status, reason = self._obituary(ended)
            clock = cellprocess.PhaseClock(self.store, cell_id)
            self.store.finish_cell(cell_id, clock.status(status, reason))
        record = self.store.status(cell_id)
        assert record is not None
        return Outcome(cell_id, record["status"])

    def _obituary(self, ended: _Running) -> tuple[str, str]:
        """Status and reason of a cell that died without a word."""
        code = ended.process.exitcode
        if ended.timed_out:
            return "timeout", "stopped at its wall-clock limit (timeout_s)"
        if code == -signal.SIGKILL and _oom_kills() > ended.oom_kills:
            return "oom", "killed by SIGKILL while the kernel was freeing memory: probably out of memory"
        if code < 0:
            return "infra_error", f"the process was killed by {signal.Signals(-code).name}; see log.txt"
        return "infra_error", f"the process ended with exit code {code} without a result; see log.txt"


# ------------------------------------------------------------------------------ starting, stopping


@contextlib.contextmanager
def _clean_start(threads: int, gpu: Mapping[str, str] = types.MappingProxyType({})) -> Iterator[None]:
    """What must hold while a process, or the fork server, is started.

    torch reads the thread counts when it is imported, so the server's environment must have them. And
    ``__main__`` is hidden: a cell needs nothing of the user's script, which would be run again.
    """
    main, wanted = sys.modules["__main__"], worker_environment(threads) | dict(gpu)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ |= wanted
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _start_fork_server(log: Path) -> None:
    """Start the server, which begins to import and prints into ``log``, and return at once."""
    from multiprocessing import forkserver

    sys.stdout.flush()
    sys.stderr.flush()
    terminal = [(stream, os.dup(stream)) for stream in (1, 2)]
    try:
        with log.open("ab", buffering=0) as output:
            for stream, _ in terminal:
                os.dup2(output.fileno(), stream)
        forkserver.ensure_running()
    finally:
        for stream, saved in terminal:
            os.dup2(saved, stream)
            os.close(saved)


def _signal(process: Any, number: int) -> None:
    """Signal the process and its whole group. Nothing happens when both are gone."""
    if not hasattr(os, "killpg"):
        process.terminate()
        return
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        # Not yet, or no longer, the leader of a group.
        if process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


def _oom_kills() -> int:
    """How often the kernel has killed a process for memory since it started; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
