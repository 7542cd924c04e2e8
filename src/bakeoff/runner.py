"""Running what a matrix asks for and the store lacks: dispatch, stop, resume.

Running again does only what is missing. A cell that failed is on record, and is tried again.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bakeoff import declaration, planning
from bakeoff.environment import environment
from bakeoff.executors import LocalExecutor
from bakeoff.matrix import Matrix
from bakeoff.planning import PlannedCell
from bakeoff.progress import Display
from bakeoff.store import Store

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """How many of the cells asked for ended with each status; ``interrupted`` when not all were reached."""

    statuses: Mapping[str, int]
    interrupted: bool = False
    ran: int = 0

    @property
    def failed(self) -> int:
        """Cells that ran and did not end well."""
        return sum(count for status, count in self.statuses.items() if status not in ("ok", "incompatible", "not_run"))


def run(
    matrix: Matrix,
    store: Store,
    *,
    workers: int | None = None,
    console: Console | None = None,
) -> Summary:
    """Run the cells that ``matrix`` asks for and that are not done; see ``Summary`` for how they ended.

    What the run stands on is written before the first cell trains. Ctrl-C and SIGTERM stop the cells
    and leave them resumable. Other processes may run cells of the same store: each cell is computed once.
    """
    cells = planning.plan(matrix, store)
    planning.write_plan(matrix, cells, store)
    if console is not None:
        declared = store.read_json(store.plan_path)["declarations"][-1]
        console.print(declaration.summary(declared), highlight=False, markup=False, soft_wrap=True)
    due = [cell for cell in cells if cell.is_due]
    interrupted = False
    if due:
        store.write_json(store.folder / "environment.json", environment())
        preload = importlib.import_module(planning.WORKER).PRELOAD
        executor = LocalExecutor(store, workers, function=f"{planning.WORKER}:run_cell", preload=preload)
        with _sigterm_is_ctrl_c(), Display(store, executor.workers, console) as display:
            interrupted = not _dispatch(deque(due), executor, store, display)
        # A cell may have turned out to be incompatible. The ids stand: source edited meanwhile is for the next run.
        cells = planning.planned({cell.id: cell.cell for cell in cells}, store)
        planning.write_plan(matrix, cells, store)
        if not interrupted:
            _compare(matrix, store)
    return Summary(Counter(_final_status(cell, store) for cell in cells), interrupted, ran=len(due))


def _compare(matrix: Matrix, store: Store) -> None:
    """A judge that costs nothing compares all algorithms now. Its failure fails no cell: they are measured."""
    from bakeoff import scoring

    try:
        scoring.score_by_free_judge(store, matrix.spec.judge)
    except Exception as error:
        logger.warning("the algorithms were not compared with each other: %s", error)


def _dispatch(waiting: deque[PlannedCell], executor: LocalExecutor, store: Store, display: Display) -> bool:
    """Run all cells. False when it was told to stop: then those that were running can be resumed."""
    locks: dict[str, Any] = {}
    before = {planned.id: store.status(planned.id) for planned in waiting}
    try:
        while waiting or locks:
            for _ in range(len(waiting)):
                if not executor.free:
                    break
                planned = waiting.popleft()
                if lock := _claim(planned.id, store):
                    store.recover_cell(planned.id)
                    if store.status(planned.id) != before[planned.id]:  # another runner has computed it, well or not
                        lock.release()
                        continue
                    locks[planned.id] = lock
                    executor.submit(planned.cell, planned.id)
                else:  # another runner is computing it
                    waiting.append(planned)
            display.tick()
            for outcome in executor.wait(timeout_s=0.5) if locks else _nap(0.5):
                locks.pop(outcome.cell_id).release()
            display.tick()
    except KeyboardInterrupt:
        display.say("stopping: the cells that are running keep their checkpoints (Ctrl-C again to kill them)")
        return False
    finally:
        executor.stop()
        for lock in locks.values():
            lock.release()
    return True


def _claim(cell_id: str, store: Store) -> Any:
    """The cell's lock, held; None while another process holds it."""
    from filelock import Timeout

    lock = store.lock("cell", cell_id)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _nap(seconds: float) -> tuple[()]:
    time.sleep(seconds)
    return ()


def _final_status(planned: PlannedCell, store: Store) -> str:
    if planned.state == "incompatible":
        return "incompatible"
    status = store.status(planned.id)
    return "not_run" if status is None or store.partial(planned.id).exists() else status["status"]


@contextlib.contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    """A scheduler's SIGTERM ends the run as cleanly as Ctrl-C. Only the main thread can be told so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
