"""What keeps a judge behind an endpoint affordable: answers kept on disk, a pace, and a cap on what is spent."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from bakeoff.errors import StoreError


class AnswerCache:
    """Answers by the hash of their question, in one SQLite file that any number of processes may use.

    Questions are not kept, only their hashes. What an endpoint answered is paid for, so each answer is written as it
    comes. Raises ``StoreError`` when the file is no such cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The answers that are there, by key."""
        found = {}
        with self._open() as connection:
            for key in keys:
                row = connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[key] = json.loads(row[0])
        return found

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Keep an answer; the first one of a question stands."""
        with self._open() as connection, connection:
            connection.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, json.dumps(answer)))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
                yield connection
        except (sqlite3.Error, OSError, ValueError) as error:
            raise StoreError(
                f"{self.path} cannot be used as a cache of verdicts: {error}.", fix="Delete or move the file."
            ) from error


class Pace:
    """Lets callers through at equal distances in time, at most ``per_minute`` of them a minute; all when None."""

    def __init__(
        self,
        per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._distance_s = 60.0 / per_minute if per_minute else 0.0
        self._clock, self._sleep = clock, sleep
        self._next = float("-inf")
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when it is the caller's turn."""
        with self._lock:
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self._distance_s
        if turn > now:
            self._sleep(turn - now)


class Purse:
    """Money for requests, in US dollars: what a request may cost at most is set aside before it is sent.

    So requests in flight together never pass ``cap``, as long as the endpoint keeps to the token limit it was given.
    """

    def __init__(self, cap: float | None) -> None:
        self.cap = cap
        self.spent = 0.0
        self._set_aside = 0.0
        self._lock = threading.Lock()

    def set_aside(self, most: float) -> bool:
        """Whether ``most`` dollars are there; then they are kept for the caller, who must ``settle``."""
        with self._lock:
            if self.cap is not None and self.spent + self._set_aside + most > self.cap:
                return False
            self._set_aside += most
            return True

    def settle(self, most: float, cost: float) -> None:
        """The request that ``most`` was set aside for is over, and cost ``cost``."""
        with self._lock:
            self._set_aside -= most
            self.spent += cost
