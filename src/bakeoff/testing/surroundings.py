"""What a check needs around it: a toy model on disk, the other plugins of a cell, one thread and no GPU."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bakeoff import registry
from bakeoff.errors import BakeoffError

from .playthings import Nudge, ToyEvaluator, ToyJudge, ToyTask


@functools.cache
def _toy() -> tempfile.TemporaryDirectory[str]:
    from bakeoff import worker

    from .toys import save_toy

    worker.quiet()
    folder = tempfile.TemporaryDirectory(prefix="bakeoff-toy-")
    save_toy(Path(folder.name) / "model")
    return folder


def toy_folder() -> Path:
    """A toy model on disk, made once a process and gone with it."""
    return Path(_toy().name) / "model"


@contextmanager
def surroundings() -> Iterator[None]:
    """The plugins around the one that is checked are there by name."""
    with contextlib.ExitStack() as stack:
        for kind, name, plugin in _PLAYTHINGS:
            stack.enter_context(registry.lend(kind, name, plugin))
        yield


@contextmanager
def one_cpu() -> Iterator[None]:
    """One thread and no GPU: what makes runs equal bit for bit.

    Raises ``BakeoffError`` where torch has taken a GPU already.
    """
    import torch

    threads, gpus = torch.get_num_threads(), os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        if torch.cuda.is_available():
            raise BakeoffError(
                "a check compares runs bit for bit, and torch uses a GPU in this process already.",
                fix="Set CUDA_VISIBLE_DEVICES to nothing before it starts.",
            )
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)
        if gpus is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus


_PLAYTHINGS: tuple[tuple[registry.Kind, str, type[Any]], ...] = (
    ("task", "toy", ToyTask),
    ("evaluator", "toy", ToyEvaluator),
    ("judge", "toy", ToyJudge),
    ("algorithm", "toy-nudge", Nudge),
)
