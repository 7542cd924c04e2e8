"""Rows of a JSONL, JSON, CSV, Parquet or text file, of a folder of them, or of a hub dataset, each with its line.

A line that cannot be read becomes a ``BadRow``, and the rest of the file is read. Byte-order marks, CRLF and blank
lines are no fault. Empty CSV cells and NaN are ``None``.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bakeoff.contracts import BadRow
from bakeoff.errors import DataError

BOM = b"\xef\xbb\xbf"
MAX_CSV_CELL = 16 * 2**20
"""Characters. The csv module's own limit, 131,072, is less than a long conversation."""


@dataclass
class Table:
    """What a file holds: readable rows as (line, values), and the others. Lines count from 1."""

    name: str
    rows: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    bad_rows: list[BadRow] = field(default_factory=list)
    places: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Of a folder, whose rows are counted through all its files: the file that a row is of, and its line there."""

    def add(self, line: int, values: Any) -> None:
        """Take a row; one that is no mapping of names to values is a bad row."""
        if isinstance(values, Mapping):
            self.rows.append((line, {str(name): _none_for_nan(value) for name, value in values.items()}))
        else:
            self.reject(line, f"the row is {describe(values)}, not an object with named columns")

    def reject(self, line: int, reason: str) -> None:
        self.bad_rows.append(self.bad(line, reason))

    def bad(self, line: int, reason: str) -> BadRow:
        """A row of this table that cannot be used, by its file and the line there."""
        return BadRow(*self.place(line), reason)

    def place(self, line: int) -> tuple[str, int]:
        """The file, and the line there, that a row came from."""
        return self.places.get(line, (self.name, line))

    @property
    def columns(self) -> list[str]:
        """Every column that some row has, in order of appearance."""
        return list(dict.fromkeys(name for _, values in self.rows for name in values))


def read_table(path: Path) -> Table:
    """Read a file by its ending, or all files below a folder.

    Raises ``DataError`` when it cannot be opened or is of no known kind.
    """
    if path.is_dir():
        return _read_folder(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path}: the ending '{path.suffix}' names no format that can be read.",
            fix=f"Use one of {', '.join(READERS)}.",
        )
    table = Table(str(path))
    try:
        reader(path, table)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.", fix="Paths in a matrix file are relative to that file.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error
    return table


def _read_folder(folder: Path) -> Table:
    """The rows of every file below ``folder`` that can be read, by the files' names, counted through all of them.

    A ``.txt`` file is one text. What cannot be read is told by its own file and line.
    """
    table = Table(str(folder))
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in READERS and path.is_file()]
    if not files:
        raise DataError(f"{folder}: no file below it has one of the endings {', '.join(READERS)}.")
    for path in files:
        if path.suffix.lower() == ".txt":
            own = Table(str(path))
            try:
                own.add(1, {"text": _decode(path.read_bytes().removeprefix(BOM), path)})
            except DataError as error:
                own.reject(1, f"line {error.args[0].removeprefix(f'{path}:').rstrip('.')}")
        else:
            own = read_table(path)
        table.bad_rows += own.bad_rows
        for line, values in own.rows:
            table.places[len(table.rows) + 1] = (own.name, line)
            table.add(len(table.rows) + 1, values)
    return table


def read_hub(name: str, config: str | None, split: str, revision: str | None) -> Table:
    """Rows of a dataset on the Hugging Face hub, or in a local folder of that layout. Lines are row numbers."""
    import datasets

    try:
        dataset = datasets.load_dataset(name, config, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"hub dataset {name}, split {split}: {error}",
            fix="Check hub, hub_config, train_split and test_split, and that the hub can be reached; "
            "a downloaded file can be given as train instead.",
        ) from error
    table = Table(f"{name}[{split}]")
    for line, values in enumerate(dataset, start=1):
        table.add(line, values)
    return table


def describe(value: Any) -> str:
    """What kind of value this is, as one would say it of a JSON file."""
    kinds: Iterable[tuple[type, str]] = (
        (bool, "true or false"), (int, "a number"), (float, "a number"), (str, "text"), (list, "a list"),
        (Mapping, "an object"),
    )  # fmt: skip
    other = "nothing" if value is None else f"of type {type(value).__name__}"
    return next((words for kind, words in kinds if isinstance(value, kind)), other)


def _read_json_lines(path: Path, table: Table) -> None:
    _parse_json_lines(path.read_bytes(), table)


def _parse_json_lines(content: bytes, table: Table) -> None:
    # Split at line feeds only: JSON text may hold other characters that str.splitlines takes for line ends.
    for line, raw in enumerate(content.removeprefix(BOM).split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            table.add(line, json.loads(raw.decode()))
        except json.JSONDecodeError as error:
            table.reject(line, f"invalid JSON: {error.msg} at character {error.colno}")
        except UnicodeDecodeError as error:
            table.reject(line, f"not UTF-8: byte {error.start + 1} of the line is {error.object[error.start]:#04x}")
        except (RecursionError, ValueError) as error:
            table.reject(line, f"invalid JSON: {_fault(error)}")


def _read_json(path: Path, table: Table) -> None:
    """An array of objects; a file that does not begin with "[" is read as JSON lines."""
    content = path.read_bytes().removeprefix(BOM)
    if not content.lstrip().startswith(b"["):
        return _parse_json_lines(content, table)
    text = _decode(content, path)
    decoder = json.JSONDecoder()
    position, line, counted = text.index("[") + 1, 1, 0
    while True:
        while position < len(text) and text[position] in " \t\r\n,":
            position += 1
        line, counted = line + text.count("\n", counted, position), position
        if text[position : position + 1] == "]":
            if text[position + 1 :].strip():
                table.reject(line, "invalid JSON: text follows the end of the array; it was not read")
            return None
        try:
            values, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            # Where the next row of a broken array begins cannot be known.
            told = isinstance(error, json.JSONDecodeError)
            reason = f"{error.msg} on line {error.lineno}" if told else _fault(error)  # type: ignore[union-attr]
            return table.reject(line, f"invalid JSON: {reason}; nothing after it was read")
        table.add(line, values)


def _read_csv(path: Path, table: Table) -> None:
    text = io.StringIO(_decode(path.read_bytes().removeprefix(BOM), path), newline="")
    reader = csv.reader(text, strict=True)
    limit = csv.field_size_limit(MAX_CSV_CELL)
    header: list[str] | None = None
    last_line = 0
    try:
        for cells in reader:
            line, last_line = last_line + 1, reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                if twice := next((name for name in header if name and header.count(name) > 1), None):
                    raise DataError(
                        f"{path}:{line}: the header names the column '{twice}' twice.", fix="Rename one of them."
                    )
            elif len(cells) != len(header):
                table.reject(line, f"the row has {len(cells)} cells, the header {len(header)}")
            else:
                table.add(line, {name: _cell(cell) for name, cell in zip(header, cells, strict=True)})
    except csv.Error as error:
        table.reject(last_line + 1, f"invalid CSV: {error}; nothing after it was read")
    finally:
        csv.field_size_limit(limit)


def _read_parquet(path: Path, table: Table) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{path}: not a Parquet file that can be read: {error}") from error
    for line, values in enumerate(rows, start=1):
        table.add(line, values)


def _read_text(path: Path, table: Table) -> None:
    """Texts are what blank lines separate: a file of one text alone could not be split for training and test."""
    lines = _decode(path.read_bytes().removeprefix(BOM), path).splitlines()
    start = 0
    for end in range(len(lines) + 1):
        if end == len(lines) or not lines[end].strip():
            if end > start:
                table.add(start + 1, {"text": "\n".join(lines[start:end])})
            start = end + 1


def _fault(error: Exception) -> str:
    """Of JSON that Python's reader gives up on without a place: the one ValueError is of int()'s limit of digits."""
    return "nested too deeply" if isinstance(error, RecursionError) else "a number of too many digits"


def _decode(content: bytes, path: Path) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8.", fix="Save the file as UTF-8.") from error


def _cell(text: str) -> str | None:
    return None if text.strip() in ("", "NaN", "nan") else text


def _none_for_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


READERS: dict[str, Callable[[Path, Table], None]] = {
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_text,
}
