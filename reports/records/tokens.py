"""The exact KL of final completions token by token, as sums over the samples of a prompt."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from ..frame import Results
from ..statistics import Floats
from .reading import codes, read_columns

COLUMN = "token_kl"


class TokenKL(NamedTuple):
    """Of one cell at the end, over the samples of a prompt, by token position; EOS is a token."""

    prompts: pd.Index
    kl: Floats
    """(P, T): sum of the KL in nats at a position, 0 where no completion has a token."""
    tokens: Floats
    """(P, T): how many completions have a token there."""


def token_kl(results: Results, cell: str) -> TokenKL | None:
    """None where nobody measured it, or an older bakeoff did, which kept sums over completions alone."""
    path = results.folder / "cells" / cell / "samples.parquet"
    if not path.is_file():
        return None
    table = read_columns(path, ["prompt_id"], optional=[COLUMN], filters=[("fraction", "==", 1.0)])
    if COLUMN not in table.column_names or table[COLUMN].null_count == len(table):
        return None
    prompts, prompt = codes(table["prompt_id"])
    lists = table[COLUMN].combine_chunks()
    lengths = np.nan_to_num(lists.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(float)
    width = int(lengths.max(initial=0))
    position = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    place = np.repeat(prompt, lengths) * width + position
    shape = (len(prompts), width)
    return TokenKL(
        pd.Index(prompts, dtype=object),
        np.bincount(place, weights=values, minlength=len(prompts) * width).reshape(shape).astype(float),
        np.bincount(place, minlength=len(prompts) * width).reshape(shape).astype(float),
    )
