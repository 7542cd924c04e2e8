"""What is shown of a run is read from its folder, and the time left follows from what was seen."""

import io
import os
import time

import pytest
from rich.console import Console

from bakeoff import progress
from bakeoff.store import Store


def entry(cell_id, algorithm, seed=0, estimated_s=100.0):
    labels = {"model": "m", "task": "t", "budget": "b", "algorithm": algorithm, "seed": seed}
    return {"id": cell_id, **labels, "incompatible": None, "estimated_s": estimated_s}


@pytest.fixture
def store(tmp_path):
    """A run of four cells: one has ended, one runs, one was interrupted, one waits."""
    store = Store(tmp_path / "run")
    entries = [entry("a", "sft"), entry("b", "ppo"), entry("c", "sft", seed=1), entry("d", "dpo")]
    store.write_json(store.plan_path, {"name": "run", "cells": entries})
    store.open_cell("a")
    seconds = {"load": 1.0, "stages": 0.0, "train": 30.0, "evaluate": 9.0}
    store.finish_cell("a", {"status": "ok", "reason": "", "wall_s": 40.0, "seconds": seconds})
    spent = {"load": 1.0, "stages": 4.0, "train": 10.0, "evaluate": 0.0}
    for cell_id, pid in (("b", os.getpid()), ("c", 2**22 + 1)):
        where = {"phase": "train", "fraction": 0.25, "note": "", "updated": time.time(), "pid": pid, "seconds": spent}
        store.write_json(store.open_cell(cell_id) / "progress.json", where)
    return store


def test_state_of_every_cell(store):
    """Ended, running, interrupted (its process is gone) and waiting cells are told apart."""
    cells = progress.read(store).cells
    assert [(cell.label, cell.state) for cell in cells] == [
        ("sft seed 0", "ok"),
        ("ppo seed 0", "running"),
        ("sft seed 1", "interrupted"),
        ("dpo seed 0", "to do"),
    ]


def test_labels_name_the_axes_that_vary(store):
    """An axis with one value is left out of the labels, one with two is in them."""
    plan = store.read_json(store.plan_path)
    plan["cells"][0]["task"] = "other"
    store.write_json(store.plan_path, plan)
    assert [cell.label for cell in progress.read(store).cells][:2] == ["other sft seed 0", "t ppo seed 0"]


def test_time_left_is_by_pace_by_like_cells_and_by_estimate(store):
    """In its phase a cell keeps its own pace; what follows is as in like cells, else as estimated."""
    running, interrupted, waiting = progress.read(store).cells[1:]
    assert running.remaining_s == pytest.approx(10 * 3 + 0.25 * 100)
    assert interrupted.remaining_s == pytest.approx(10 * 3 + 9)
    assert waiting.remaining_s == pytest.approx(100)
    assert progress.read(store).eta_s(workers=2) == pytest.approx((55 + 39 + 100) / 2)
    assert progress.read(store).eta_s(workers=10) == pytest.approx(55), "no sooner than the running cell ends"


def test_plain_lines_tell_changes_and_no_more(store, monkeypatch):
    """Without a terminal a line is printed when a state changes, and now and then where things are."""
    said = io.StringIO()
    with progress.Display(store, 2, Console(file=said, width=200)) as display:
        assert said.getvalue() == "2 cells to run, 2 at a time; starting\n"
        display.tick()
        assert said.getvalue().count("\n") == 1
        store.finish_cell(
            "b", {"status": "oom", "reason": "MemoryError: 9 GiB", "wall_s": 75.0, "seconds": {}, "traceback": None}
        )
        display.tick()
        assert "[2/4] ppo seed 0: oom in 1m15s: MemoryError: 9 GiB; log: " in said.getvalue()
        store.finish_cell("c", {"status": "incompatible", "reason": "It has none.", "wall_s": 3.0, "seconds": {}})
        display.tick()
        assert "incompatible in 3s: It has none; log: " in said.getvalue(), "one stop is enough"
        store.open_cell("d")
        where = {"phase": "train", "fraction": 0.43, "updated": time.time(), "pid": os.getpid()}
        store.write_json(store.partial("d") / "progress.json", where)
        display.tick()
        assert "[3/4] dpo seed 0: running\n" in said.getvalue()
        monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0.0)
        display.tick()
    assert "[3/4] dpo seed 0: train 43 % of budget, ETA " in said.getvalue()


def test_display_in_a_terminal_shows_bar_and_running_cells(store):
    """The live display has the matrix's counts and one line for each running cell."""
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    with console.capture() as captured:
        console.print(progress.render(progress.read(store), workers=2, elapsed_s=61))
    said = captured.get()
    assert "1/4 cells" in said
    assert "elapsed 1m01s" in said
    assert "ETA 1m37s" in said
    assert "train 25 % of budget" in said
    assert "seed 1" not in said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0s"), (59.4, "59s"), (60, "1m00s"), (250, "4m10s"), (3900, "1h05m")]
)
def test_durations_read_well(seconds, said):
    """Durations have the two largest units that matter."""
    assert progress.duration(seconds) == said
