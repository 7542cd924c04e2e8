"""What a run is doing, read from its folder: so every terminal on the machine can show the same."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from bakeoff.cellprocess import PHASES
from bakeoff.store import Store

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

SHARES = dict(zip(PHASES, (0.05, 0.1, 0.6, 0.25), strict=True))
"""How a cell's time divides into phases before any cell has shown it."""
PLAIN_EVERY_S = 15.0


@dataclass(frozen=True)
class CellProgress:
    """One planned cell: ``state`` is "running", "interrupted", "to do", or its status once it has ended."""

    id: str
    label: str
    """The labels that tell this run's cells apart: "sentiment ppo seed 0"."""
    state: str
    phase: str = ""
    fraction: float = 0.0
    note: str = ""
    reason: str = ""
    elapsed_s: float = 0.0
    remaining_s: float = 0.0


@dataclass(frozen=True)
class Progress:
    """All planned cells of a run."""

    name: str
    cells: tuple[CellProgress, ...]

    @property
    def running(self) -> list[CellProgress]:
        return [cell for cell in self.cells if cell.state == "running"]

    @property
    def ended(self) -> int:
        return sum(cell.state not in ("running", "interrupted", "to do") for cell in self.cells)

    @property
    def failed(self) -> int:
        return sum(cell.state not in ("running", "interrupted", "to do", "ok", "incompatible") for cell in self.cells)

    def eta_s(self, workers: int | None = None) -> float:
        """Seconds until the last planned cell ends, with as many workers as are running cells now."""
        running = [cell.remaining_s for cell in self.running]
        rest = sum(cell.remaining_s for cell in self.cells)
        return max([*running, rest / (workers or len(running) or 1)], default=0.0)


def read(store: Store) -> Progress:
    """Where every planned cell of the run is. Raises ``StoreError`` when the run has no plan."""
    plan = store.read_json(store.plan_path)
    entries = plan["cells"]
    statuses = {entry["id"]: store.status(entry["id"]) for entry in entries}
    seconds = _Expectation(entries, statuses)
    varying = [axis for axis in ("model", "task", "budget") if len({entry[axis] for entry in entries}) > 1]
    cells = []
    for entry in entries:
        label = " ".join([*(str(entry[axis]) for axis in varying), entry["algorithm"], f"seed {entry['seed']}"])
        cells.append(_cell(entry, label, statuses[entry["id"]], store, seconds))
    return Progress(plan["name"], tuple(cells))


def _cell(
    entry: Mapping[str, Any], label: str, status: Mapping[str, Any] | None, store: Store, seconds: _Expectation
) -> CellProgress:
    key = entry["id"]
    if entry["incompatible"]:
        return CellProgress(key, label, "incompatible", reason=entry["incompatible"])
    if store.partial(key).exists() and (status is None or status["status"] != "ok"):
        where = store.progress(key)
        spent = where.get("seconds", {})
        phase, fraction = where.get("phase", ""), where.get("fraction", 0.0)
        # Between its last word and its renaming, an ended cell has a status and no progress.
        alive = _is_alive(where) or (store.partial(key) / "status.json").exists()
        now = time.time() - where.get("updated", time.time()) if alive else 0.0
        return CellProgress(
            key,
            label,
            "running" if alive else "interrupted",
            phase,
            fraction,
            where.get("note", ""),
            elapsed_s=sum(spent.values()) + now,
            remaining_s=seconds.remaining(entry, phase, fraction, spent),
        )
    if status is not None:
        return CellProgress(key, label, status["status"], reason=status["reason"], elapsed_s=status["wall_s"])
    return CellProgress(key, label, "to do", remaining_s=seconds.remaining(entry, "", 0.0, {}))


def _is_alive(where: Mapping[str, Any]) -> bool:
    """Whether the process that wrote this progress still runs; its number may have gone to another."""
    import psutil

    if not where:
        return False
    try:
        process = psutil.Process(where["pid"])
        # The time of creation is known to the second only; a zombie waits for a parent that may be gone.
        return process.create_time() <= where["updated"] + 2 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class _Expectation:
    """How long each phase of a cell should take: as like cells did, as others did, or as estimated."""

    def __init__(self, entries: Sequence[Mapping[str, Any]], statuses: Mapping[str, Mapping[str, Any] | None]) -> None:
        self._like: dict[Any, list[Mapping[str, float]]] = {}
        for entry in entries:
            status = statuses[entry["id"]]
            if status is not None and status["status"] == "ok":
                self._like.setdefault(self._key(entry), []).append(status["seconds"])

    @staticmethod
    def _key(entry: Mapping[str, Any]) -> tuple[str, ...]:
        return entry["model"], entry["task"], entry["budget"], entry["algorithm"]

    def phases(self, entry: Mapping[str, Any]) -> dict[str, float]:
        like = self._like.get(self._key(entry))
        if like:
            return {phase: sum(each.get(phase, 0.0) for each in like) / len(like) for phase in PHASES}
        return {phase: share * (entry.get("estimated_s") or 0.0) for phase, share in SHARES.items()}

    def remaining(self, entry: Mapping[str, Any], phase: str, fraction: float, spent: Mapping[str, float]) -> float:
        """Seconds that the cell still needs: the rest of its phase at its own pace, and the later phases."""
        expected = self.phases(entry)
        if phase not in PHASES:
            return sum(expected.values())
        here = spent.get(phase, 0.0)
        rest = here * (1 - fraction) / fraction if fraction >= 0.05 else max(0.0, expected[phase] - here)
        return rest + sum(expected[later] for later in PHASES[PHASES.index(phase) + 1 :])


# ------------------------------------------------------------------------------------- showing


def duration(seconds: float) -> str:
    """``4m10s``, ``1h05m``, ``12s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def plural(cells: int) -> str:
    """``1 cell``, ``2 cells``."""
    return "1 cell" if cells == 1 else f"{cells} cells"


def doing(cell: CellProgress) -> str:
    """``train 43 % of budget``, ``evaluate 20 %``, ``starting``."""
    if not cell.phase:
        return "starting"
    of = " of budget" if cell.phase == "train" else ""
    note = f" ({cell.note})" if cell.note else ""
    return f"{cell.phase} {cell.fraction:.0%}{of}{note}".replace("%", " %")


def render(progress: Progress, *, workers: int | None = None, elapsed_s: float | None = None) -> RenderableType:
    """One bar for the matrix and one line for each running cell."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    total = len(progress.cells)
    head = Table.grid(padding=(0, 2))
    words = [f"{progress.ended}/{total} cells"]
    if progress.failed:
        words.append(f"[red]{progress.failed} failed[/]")
    if elapsed_s is not None:
        words.append(f"elapsed {duration(elapsed_s)}")
    if progress.ended < total:
        words.append(f"ETA {duration(progress.eta_s(workers))}")
    head.add_row(Text(progress.name, style="bold"), ProgressBar(total, progress.ended, width=30), "  ".join(words))
    rows = Table.grid(padding=(0, 2))
    for cell in progress.running:
        bar = ProgressBar(1.0, cell.fraction, width=20)
        rows.add_row(" ", Text(cell.label), bar, Text(doing(cell)), duration(cell.elapsed_s))
    return Group(head, rows)


class Display:
    """Shows a run while it runs: live in a terminal, else a plain line when a cell's state changes."""

    def __init__(self, store: Store, workers: int, console: Console | None = None) -> None:
        from rich.console import Console as RichConsole

        self._store, self._workers = store, workers
        self._console = console or RichConsole()
        self._began = time.monotonic()
        self._live: Any = None
        self._states: dict[str, str] = {}
        self._told = self._began

    def __enter__(self) -> Self:
        self._states = {cell.id: cell.state for cell in read(self._store).cells}
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2, transient=True)
            self._live.start()
        else:
            due = sum(state not in ("ok", "incompatible", "running") for state in self._states.values())
            self.say(f"{plural(due)} to run, {self._workers} at a time; starting")
        return self

    def __exit__(self, *error: object) -> None:
        self.tick()
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print one line, above the live display where there is one."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def tick(self) -> None:
        """Tell what changed since the last call; without a terminal also where things are, now and then."""
        progress = read(self._store)
        head = f"[{progress.ended}/{len(progress.cells)}]"
        for cell in progress.cells:
            before, self._states[cell.id] = self._states.get(cell.id), cell.state
            if cell.state == before:
                continue
            if cell.state not in ("to do", "running", "interrupted"):
                # Our own messages end with a full stop, others with none.
                reason, log = cell.reason.rstrip("."), self._store.cell(cell.id) / "log.txt"
                because = f": {reason}; log: {log}" if reason else ""
                self.say(f"{head} {cell.label}: {cell.state} in {duration(cell.elapsed_s)}{because}")
            elif not self._live:
                self.say(f"{head} {cell.label}: {cell.state}")
        if not self._live and time.monotonic() - self._told >= PLAIN_EVERY_S:
            self._told = time.monotonic()
            eta = duration(progress.eta_s(self._workers))
            for cell in progress.running:
                self.say(f"{head} {cell.label}: {doing(cell)}, ETA {eta}")

    def _render(self) -> RenderableType:
        return render(read(self._store), workers=self._workers, elapsed_s=time.monotonic() - self._began)
