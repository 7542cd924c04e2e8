"""What flags are found on and tables do not show: a cell's texts as a fingerprint, and folders that no plan lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from bakeoff.errors import StoreError

from ..frame import Results
from .reading import read_columns, read_json


class Output(NamedTuple):
    """All final completions of a cell: a hash over them, how many prompts there are and how many distinct texts."""

    text: int
    prompts: int
    distinct: int


def output_of(results: Results, cell: str) -> Output:
    """Of one cell; only what is needed is read, and only hashes are kept."""
    outputs: dict[str, Output] = results.memo.setdefault("outputs", {})
    if cell not in outputs:
        path = results.folder / "cells" / cell / "samples.parquet"
        outputs[cell] = Output(0, 0, 0)
        if path.is_file():
            columns = ["prompt_id", "sample", "completion"]
            frame = read_columns(path, columns, filters=[("fraction", "==", 1.0)]).to_pandas()
            hashes = pd.util.hash_pandas_object(frame[columns], index=False)
            outputs[cell] = Output(
                hash(tuple(sorted(hashes.tolist()))), frame["prompt_id"].nunique(), frame["completion"].nunique()
            )
    return outputs[cell]


def unlisted_cells(results: Results) -> Iterator[tuple[str, str]]:
    """(folder, what it says it is) of every cell on disk that the plan does not list, as cells or as retired."""
    listed = {cell["id"] for part in ("cells", "retired") for cell in results.plan.get(part) or ()}
    for folder in sorted((results.folder / "cells").glob("*/")):
        name = folder.name.removesuffix(".partial")
        if name in listed or folder.name.endswith(".old"):
            continue
        told = []
        for file, keys in (("cell.json", ("algorithm", "seed")), ("status.json", ("status", "reason"))):
            try:
                record = read_json(folder / file)
            except StoreError:
                continue
            told += [f"{key} {record[key]}" for key in keys if record.get(key) not in (None, "")]
        yield folder.name, ", ".join(told) or "it says nothing of itself"
