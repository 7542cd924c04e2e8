"""Reading a run's files: what is missing, malformed or of another schema version is an error that names the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bakeoff.errors import StoreError

SCHEMA_VERSION = 1


def rerun(path: Path) -> str:
    return f"Delete {path.parent} and run the matrix again: only what is missing is done."


def read_json(path: Path, *, versioned: bool = True) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path} is missing.", fix=rerun(path)) from None
    except ValueError as error:
        raise StoreError(f"{path} is not JSON: {error}.", fix=rerun(path)) from None
    if not isinstance(content, dict):
        raise StoreError(f"{path} does not hold a JSON object.", fix=rerun(path))
    if versioned and content.get("schema_version") != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {content.get('schema_version')!r}; this bakeoff reads {SCHEMA_VERSION}.",
            fix="Read the run with the bakeoff version that environment.json names, or run the matrix again.",
        )
    return content


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise StoreError(f"{path}:{number} is not JSON: {error}.", fix=rerun(path)) from None
    return rows


def read_columns(path: Path, columns: Sequence[str], *, optional: Sequence[str] = (), filters: Any = None) -> pa.Table:
    """The ``columns`` of a Parquet file, and those of ``optional`` that it has; rows that ``filters`` keep.

    Reads nothing else of the file. Texts of few values come dictionary-encoded.
    """
    try:
        found = pq.read_schema(path).names
        if missing := [name for name in columns if name not in found]:
            raise StoreError(f"{path} has no column {', '.join(missing)}.", fix=rerun(path))
        wanted = [*columns, *(name for name in optional if name in found)]
        coded = [name for name in ("prompt_id", "metric") if name in wanted]
        return pq.read_table(path, columns=wanted, filters=filters, read_dictionary=coded)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path} is not a Parquet file: {error}.", fix=rerun(path)) from None


def codes(column: pa.ChunkedArray) -> tuple[list[Any], Any]:
    """(values, code of each row): a column of few values as small integers, values in sorted order."""
    if not len(column):
        return [], np.empty(0, dtype=np.int64)
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    array = coded.unify_dictionaries().combine_chunks()
    values = array.dictionary.to_pylist()
    order = sorted(range(len(values)), key=lambda index: values[index])
    place = [0] * len(values)
    for rank, index in enumerate(order):
        place[index] = rank
    return [values[index] for index in order], np.asarray(place, dtype=np.int64)[array.indices.to_numpy()]
