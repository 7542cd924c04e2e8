"""The promises of a task: its rows are the same for everyone, and its rewards are numbers for any text whatever."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, get_args

from bakeoff.contracts import BadRow, Metric, Row, Source, TaskData

from .promises import Broken, DoesNotApply
from .subject import HOSTILE, Subject, described

COLUMNS: dict[str, tuple[tuple[str, ...], ...]] = {
    "prompts": (("prompt",),),
    "demonstrations": (("completion",), ("chosen",)),
    "preferences": (("chosen", "rejected"),),
    "text": (("text",),),
}
"""What a row holds for each source: all columns of one of these."""
ELSEWHERE = """
import functools, importlib, json, sys
from bakeoff.testing.tasks import digest
module, name, settings = sys.argv[1:]
plugin = functools.reduce(getattr, name.split("."), importlib.import_module(module))
data = plugin(plugin.Settings.model_validate(json.loads(settings))).load()
print(data.fingerprint, digest(data))
"""


def loads(task: Subject) -> str:
    """It loads rows for training and others to hold out, and says where they come from and under what licence."""
    data = task.make().load()
    if not isinstance(data, TaskData):
        raise Broken(f"load() gave a {type(data).__name__}.", "Return a bakeoff.contracts.TaskData.")
    for split in ("train", "test"):
        if not len(getattr(data, split)):
            raise Broken(
                f"it has no {split} rows.", "Hold some rows out: what is measured must not have been trained on."
            )
    for name in ("fingerprint", "licence", "source"):
        if not str(getattr(data, name)).strip():
            raise Broken(f"`{name}` is empty.", "Reports print where data come from; an id stands on the fingerprint.")
    if wrong := [each for each in data.bad_rows if not isinstance(each, BadRow)]:
        raise Broken(f"`bad_rows` holds {wrong[0]!r}.", "Name each bad row by file, line and reason: a BadRow.")
    if unknown := sorted(set(data.provides) - set(get_args(Source))):
        raise Broken(f"`provides` names {unknown}.", f"Name what rows hold, of {', '.join(get_args(Source))}.")
    return f"{len(data.train)} train and {len(data.test)} test rows, {len(data.bad_rows)} bad; {data.licence}"


def repeatable(task: Subject) -> str:
    """The same settings give the same rows and the same fingerprint, in this process and in others."""
    first, second = task.make().load(), task.make().load()
    if (first.fingerprint, digest(first)) != (second.fingerprint, digest(second)):
        raise Broken("loaded twice, it gave other rows or another fingerprint.", "Seed every draw with a constant.")
    told = {_elsewhere(task, hash_seed) for hash_seed in ("1", "2")}
    if None in told:
        return "twice the same here; its class cannot be imported by another process"
    if told != {f"{first.fingerprint} {digest(first)}"}:
        raise Broken(
            "processes with other hash seeds gave other rows or another fingerprint.",
            "Do not go through a set, or use `hash()`: take sorted() and hashlib.",
        )
    return "the same twice here, and in two other processes"


def digest(data: TaskData) -> str:
    """sha256 over all rows, whatever the task's own fingerprint says."""
    rows = json.dumps([[dict(row) for row in split] for split in (data.train, data.test)], default=str)
    return hashlib.sha256(rows.encode()).hexdigest()


def _elsewhere(task: Subject, hash_seed: str) -> str | None:
    """What a fresh process with this hash seed loads; None where it cannot import the class."""
    settings = task.plugin.Settings.model_validate(dict(task.settings)).model_dump_json()
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, task.plugin.__module__, task.plugin.__qualname__, settings],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    return done.stdout.strip() if done.returncode == 0 else None


def rows(task: Subject) -> str:
    """Each row has an id of its own, a prompt, and the columns of all that the task provides."""
    made = task.make()
    data = made.load()
    ids = [row.get("id") for row in (*data.train, *data.test)]
    if any(not isinstance(each, str) or not each for each in ids) or len(set(ids)) < len(ids):
        raise Broken(
            "ids are missing, not text, or not unique.", "Give each row an `id` that no other row of either split has."
        )
    for row in (*data.train, *data.test):
        if not isinstance(row.get("prompt"), str | list) or not row["prompt"]:
            raise Broken(f"row {row['id']!r} has no prompt.", "A prompt is a text, or a list of role/content messages.")
        for source in sorted(data.provides & COLUMNS.keys()):
            ways = COLUMNS[source]
            if not any(all(row.get(column) for column in way) for way in ways):
                told = " or ".join(" and ".join(way) for way in ways)
                raise Broken(
                    f"it provides {source}, and row {row['id']!r} has no {told}.",
                    "Leave out what not every row has, or report the row as bad.",
                )
    if ("reward" in data.provides) != (made.reward_metric is not None):
        raise Broken(
            f"`provides` says {sorted(data.provides)} and `reward_metric` is {made.reward_metric}.",
            'Both, or neither: "reward" in `provides` is a reward with a metric.',
        )
    _one_type_a_column(data.train)
    return f"{len(ids)} rows with {', '.join(sorted(data.provides))}"


def _one_type_a_column(rows: Sequence[Row]) -> None:
    """Reward functions get a row's own columns through a ``datasets.Dataset``, which has one type a column."""
    from datasets import Dataset

    try:
        Dataset.from_list([dict(row) for row in rows])
    except Exception as error:
        raise Broken(f"the rows are no table: {error}", "Give each column values of one plain type.") from None


def split(task: Subject) -> str:
    """No prompt is in both splits."""
    data = task.make().load()
    train, test = ({json.dumps(row["prompt"], default=str) for row in part} for part in (data.train, data.test))
    if both := sorted(train & test):
        raise Broken(f"{len(both)} prompts are in both splits, one is {both[0][:80]}.", "Split by prompt, not by row.")
    return f"{len(train)} train and {len(test)} test prompts"


def reward(task: Subject) -> str:
    """The training reward is one finite number for any text, within its bounds, the same alone as among others."""
    return _scores(task, task.make().reward_metric, lambda made: made.reward)


def gold(task: Subject) -> str:
    """The gold reward is one finite number for any text, within its bounds, the same alone as among others."""
    return _scores(task, task.make().gold_metric, lambda made: made.gold)


def _scores(task: Subject, metric: Metric | None, which: Callable[[Any], Any]) -> str:
    if metric is None:
        raise DoesNotApply("it has none")
    made = task.make()
    data = made.load()
    score = which(made)
    texts = [*HOSTILE, *(text for row in data.train[:8] for text in (row.get("completion"), row.get("chosen")) if text)]
    texts = [text for text in texts if isinstance(text, str)]
    picked = [data.train[number % len(data.train)] for number in range(len(texts))]
    before = json.dumps([dict(row) for row in picked], default=str)
    together = [_number(value) for value in score(picked, texts)]
    if len(together) != len(texts):
        raise Broken(f"it gave {len(together)} numbers for {len(texts)} completions.", "Give one for each, in order.")
    low, high = metric.low, metric.high
    for text, value in zip(texts, together, strict=True):
        if not math.isfinite(value) or (low is not None and value < low) or (high is not None and value > high):
            raise Broken(
                f"{text[:40]!r} scores {value}, and the metric {metric.name!r} lies in [{low}, {high}].",
                "Give a finite number within the bounds that the metric declares, whatever the text.",
            )
    alone = [_number(score([row], [text])[0]) for row, text in zip(picked, texts, strict=True)]
    if together != alone:
        text = next(text for text, a, b in zip(texts, together, alone, strict=True) if a != b)
        raise Broken(f"{text[:40]!r} scores otherwise alone than among others.", "Score each completion by itself.")
    if json.dumps([dict(row) for row in picked], default=str) != before:
        raise Broken("scoring changed the rows.", "Leave rows as they are: every algorithm shares them.")
    return f"{len(texts)} texts, {min(together):.3g} to {max(together):.3g}"


def _number(value: Any) -> float:
    """Raises ``Broken`` for what is no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise Broken(f"it gave {value!r} for a completion.", "Give a number for every completion.") from None


CHECKS = (loads, described, repeatable, rows, split, reward, gold)
