"""Your own data as a task: local JSONL, JSON, CSV, Parquet or text files, or a hub dataset, in TRL's standard formats.

Every row that cannot be used is named by file and line in ``TaskData.bad_rows``. The formats are in ``formats.py``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from bakeoff.contracts import BadRow, Metric, Row, Source, Task, TaskData, TaskSettings
from bakeoff.errors import DataError

from .answers import ACCURACY, best_constant_answer, last_number
from .fingerprint import fingerprint
from .formats import REQUIRED, Format, Standard, UnusableRowError, detect, standardise, suggest
from .reading import Table, read_hub, read_table
from .vader import GOLD, REWARD, compound, gold

METRICS: dict[str, tuple[Metric, Metric]] = {
    "sentiment": (REWARD, GOLD),
    "number": (ACCURACY, ACCURACY),
    "exact": (ACCURACY, ACCURACY),
}
"""What each reward measures: in training, and as gold."""


class FileSettings(TaskSettings):
    train: Path | None = None
    """A local file: .jsonl, .ndjson, .json, .csv, .parquet or .txt; or a folder of them, each .txt file one text."""
    test: Path | None = None
    """A second file for the held-out rows; without it they are taken from ``train`` by ``test_fraction``."""
    hub: str | None = None
    """A dataset on the Hugging Face hub, ``organisation/name``, in place of ``train``."""
    hub_config: str | None = None
    """The dataset's configuration, where it has several."""
    hub_revision: str | None = None
    """Commit or tag; pin it, since a hub dataset can change under you."""
    train_split: str = "train"
    """The hub dataset's split of training rows."""
    test_split: str | None = None
    """The hub dataset's split of held-out rows; without it they are taken by ``test_fraction``."""
    test_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the prompts held out where no test rows are given, chosen by a hash of the prompt."""
    columns: dict[Standard, str] = Field(default_factory=dict)
    """Standard name: the file's name of the column, where they differ."""
    prompt_words: int = Field(default=8, ge=1)
    """Words of a ``text`` row that are its prompt; the rest is its completion."""
    reward: Literal["sentiment", "number", "exact"] | None = None
    """How a completion is scored: VADER; the last number equals that of ``answer``; the text equals ``answer``."""
    penalty: float = Field(default=2.0, ge=0)
    """Full fine for repetition in the gold sentiment reward, in units of the VADER compound score."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many rows of each split, the first ones."""
    licence: str = "not stated"
    """Under what licence the rows are; reports print it."""

    @model_validator(mode="after")
    def _one_source(self) -> FileSettings:
        if (self.train is None) == (self.hub is None):
            raise ValueError("give either train (a path) or hub (a dataset id)")
        if self.test is not None and self.train is None:
            raise ValueError("test is a path beside train; with hub, give test_split")
        return self


class File(Task):
    """Rows from a file. What they hold decides what the task provides."""

    title = "Rows of a file or a hub dataset"
    Settings = FileSettings
    settings: FileSettings

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        if self.settings.reward is not None:
            self.reward_metric, self.gold_metric = METRICS[self.settings.reward]

    def load(self) -> TaskData:
        """Raises ``DataError`` for a file that cannot be read, whose columns are unknown, or without a usable row."""
        train_table, test_table = self._tables()
        train, bad_rows = self._usable_rows(train_table, "train")
        if test_table is None:
            train, test = self._hold_out(train, train_table.name, bad_rows)
        else:
            test, bad_test_rows = self._usable_rows(test_table, "test", other=train)
            bad_rows += bad_test_rows
        train, test = train[: self.settings.limit], test[: self.settings.limit]
        return TaskData(
            train=train,
            test=test,
            provides=self._provides(train),
            fingerprint=fingerprint(train, test),
            licence=self.settings.licence,
            source=" and ".join(table.name for table in (train_table, test_table) if table is not None),
            bad_rows=tuple(bad_rows),
            references=self._references(test),
            unread=self._unread(train_table),
        )

    def reward(self, rows: Sequence[Row], completions: Sequence[str]) -> list[float]:
        """By ``settings.reward``: VADER's compound score in [-1, 1], or 1.0 for the right answer and 0.0 otherwise."""
        pairs = zip(rows, completions, strict=True)
        match self.settings.reward:
            case "sentiment":
                return [compound(text) for text in completions]
            case "number":
                return [float(last_number(text) == last_number(row["answer"])) for row, text in pairs]
            case "exact":
                return [float(text.strip() == row["answer"].strip()) for row, text in pairs]
        return super().reward(rows, completions)

    def gold(self, rows: Sequence[Row], completions: Sequence[str]) -> list[float]:
        """The training reward; for sentiment, less what repetition and lists of praise gained."""
        if self.settings.reward is None:
            return super().gold(rows, completions)
        if self.settings.reward == "sentiment":
            return [gold(text, self.settings.penalty) for text in completions]
        return self.reward(rows, completions)

    def _tables(self) -> tuple[Table, Table | None]:
        settings = self.settings
        if settings.train is not None:
            return read_table(settings.train), read_table(settings.test) if settings.test else None

        def split_table(split: str) -> Table:
            return read_hub(str(settings.hub), settings.hub_config, split, settings.hub_revision)

        return split_table(settings.train_split), split_table(settings.test_split) if settings.test_split else None

    def _usable_rows(
        self, table: Table, split: str, other: Sequence[Row] = ()
    ) -> tuple[list[dict[str, Any]], list[BadRow]]:
        """The rows that can be used and those that cannot; a prompt that ``other`` holds makes a row unusable."""
        if not table.rows:
            raise _no_usable_row(table.name, table.bad_rows)
        form = self._format(table)
        # Reward functions are handed whole columns: every row has all of them.
        blank = dict.fromkeys(table.columns)
        bad_rows = list(table.bad_rows)
        taken = {_key(row["prompt"]): row["id"] for row in other}
        lines: dict[str, int] = {}
        rows = []
        for line, values in table.rows:
            try:
                row = self._row(form, blank | values)
                content = _key(row)
                if not content.isascii() and not _is_text(content):
                    raise UnusableRowError(
                        "half of a surrogate pair (\\ud800 to \\udfff) stands alone: it is no character"
                    )
                if content in lines:
                    file, place = table.place(lines[content])
                    of = "" if file == table.place(line)[0] else f" of {file}"
                    raise UnusableRowError(f"the same as line {place}{of}")
                if _key(row["prompt"]) in taken:
                    raise UnusableRowError(f"its prompt is also in the training rows ({taken[_key(row['prompt'])]})")
            except UnusableRowError as error:
                bad_rows.append(table.bad(line, str(error)))
                continue
            lines[content] = line
            rows.append({"id": f"{split}:{line}", **row})
        bad_rows.sort(key=lambda bad: (bad.file, bad.line))
        if not rows:
            raise _no_usable_row(table.name, bad_rows)
        return rows, bad_rows

    def _format(self, table: Table) -> Format:
        """The format of a file by its columns, ``settings.columns`` applied. Raises ``DataError``."""
        columns = table.columns
        for standard, name in self.settings.columns.items():
            if name not in columns:
                close = difflib.get_close_matches(name, columns, n=1)
                raise DataError(
                    f"{table.name}: columns maps {standard} to '{name}', but the columns are {', '.join(columns)}.",
                    fix=f"Did you mean '{close[0]}'?" if close else "Map it to one of these.",
                )
        form = detect({*columns, *self.settings.columns})
        if form is not None:
            return form
        mapping = ", ".join(f"{standard}: {name}" for standard, name in suggest(columns).items())
        known = "; ".join(" + ".join(required) for required in REQUIRED.values())
        raise DataError(
            f"{table.name}: the columns {', '.join(columns)} are in no known format. Known are {known}.",
            fix=f"Set columns: {{{mapping}}} in the task's settings."
            if mapping
            else "Say which column is which: columns: {prompt: ..., completion: ...} in the task's settings.",
        )

    def _unread(self, table: Table) -> str:
        """Of a file that gives prompts alone: the columns beside them, and what they could be."""
        used = {"prompt", *self.settings.columns.values()}
        rest = [name for name in table.columns if name not in used]
        if self._format(table) != "prompts" or self.settings.reward is not None or not rest:
            return ""
        mapping = ", ".join(f"{standard}: {name}" for standard, name in suggest(["prompt", *rest]).items())
        ways = [f"columns: {{{mapping}}} makes one a completion"] if mapping else []
        ways += ["reward: number or reward: exact compares with answer"] if "answer" in rest else []
        how = f", though {' and '.join(ways)}" if ways else ""
        return f"not read: {', '.join(rest)}{how}"

    def _row(self, form: Format, values: dict[str, Any]) -> dict[str, Any]:
        """Standard columns, and for a reward the file's others too. Raises ``UnusableRowError``."""
        values = values | {standard: values.get(name) for standard, name in self.settings.columns.items()}
        row = standardise(form, values, self.settings.prompt_words)
        if self.settings.reward is None:
            return row
        if self.settings.reward != "sentiment":
            answer = values.get("answer")
            if answer is None or not str(answer).strip():
                raise UnusableRowError(f'no "answer", which the reward {self.settings.reward} compares with')
            values["answer"] = str(answer)
            if self.settings.reward == "number" and last_number(values["answer"]) is None:
                raise UnusableRowError('"answer" holds no number')
        return {name: value for name, value in values.items() if name not in NOT_EXTRA} | row

    def _hold_out(
        self, rows: list[dict[str, Any]], name: str, bad_rows: Sequence[BadRow]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Training and held-out rows. Which prompts are held out does not depend on what else the file holds."""
        places = {_key(row["prompt"]): _hash01(_key(row["prompt"])) for row in rows}
        if len(places) < 2:
            first = "".join(f" {bad.file}:{bad.line}: {bad.reason}." for bad in bad_rows[:1])
            raise DataError(
                f"{name}: one prompt is too few to hold any out.{first}",
                fix="Add rows, or give the held-out rows as test.",
            )
        # Few prompts may all fall on one side: then the nearest one changes over.
        lowest, highest = min(places.values()), max(places.values())
        cut = min(max(self.settings.test_fraction, lowest), highest)
        held_out = {key for key, place in places.items() if place < cut or place == lowest}
        return (
            [row for row in rows if _key(row["prompt"]) not in held_out],
            [row for row in rows if _key(row["prompt"]) in held_out],
        )

    def _provides(self, rows: Sequence[Row]) -> frozenset[Source]:
        sources: dict[str, Source] = {
            "prompt": "prompts", "completion": "demonstrations", "chosen": "preferences", "text": "text"
        }  # fmt: skip
        provides = {source for column, source in sources.items() if column in rows[0]}
        return frozenset(provides | ({"reward"} if self.settings.reward else set()))

    def _references(self, test: Sequence[Row]) -> dict[str, float]:
        match self.settings.reward:
            case "number":
                numbers = (last_number(row["answer"]) for row in test)
                return best_constant_answer(f"{number.normalize():f}" for number in numbers if number is not None)
            case "exact":
                return best_constant_answer(row["answer"].strip() for row in test)
        return {}


NOT_EXTRA = frozenset({"id", "prompt", "completion", "chosen", "rejected", "messages", "text"})
"""Columns that bakeoff writes or reads itself: a file's own are not handed on under these names."""


def _key(content: Any) -> str:
    """The same text for the same row or prompt, whatever the order of its columns."""
    return json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)


def _is_text(text: str) -> bool:
    """Whether it can be written as UTF-8; JSON's escapes can spell what cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _hash01(text: str) -> float:
    """A number in [0, 1) from the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _no_usable_row(name: str, bad_rows: Sequence[BadRow]) -> DataError:
    if not bad_rows:
        return DataError(f"{name}: the file holds no rows.")
    first = bad_rows[0]
    return DataError(
        f"{first.file}:{first.line}: {first.reason}. None of the file's {len(bad_rows)} rows can be used.",
        fix="Mend the file, or say which columns it has with columns: {standard name: column}.",
    )
