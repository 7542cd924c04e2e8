"""Running a matrix: what is missing is done, what is done stays, and any end can be resumed from."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from types import SimpleNamespace

import psutil
import pytest
from rich.console import Console

from bakeoff import matrix as matrices
from bakeoff import planning, runner
from bakeoff.errors import ModelError, StoreError
from bakeoff.executors import GRACE_S, Outcome
from bakeoff.progress import read
from bakeoff.store import Store

RUN = """
import sys
from pathlib import Path
from rich.console import Console
from bakeoff import matrix, planning, runner
from bakeoff.store import Store

planning.WORKER = "fake_lab"
summary = runner.run(
    matrix.load(Path(sys.argv[1])), Store(Path(sys.argv[2])), workers=1,
    console=Console(force_terminal=False, width=200),
)
sys.exit(130 if summary.interrupted else summary.failed)
"""


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs" / "run")


@pytest.fixture
def write_matrix(tmp_path, fake_lab, monkeypatch):
    """Writes a matrix of fake algorithms, each called by what it does, and returns its path."""
    monkeypatch.setattr(planning, "WORKER", "fake_lab")

    def write(*actions, seeds=1):
        (tmp_path / "model").mkdir(exist_ok=True)
        algorithms = "".join(f"  - {{name: fake, label: {do}, do: {do}}}\n" for do in actions)
        path = tmp_path / "matrix.yaml"
        path.write_text(
            "name: run\nmodels: [{folder: model, label: m}]\ntasks: [fake]\nbudgets: [{name: b, steps: 1}]\n"
            f"algorithms:\n{algorithms}seeds: {seeds}\nevaluators: [fake]\njudge: fake\n"
        )
        return path

    return write


def run(path, store, only=()):
    return runner.run(matrices.load(path, (), only), store, workers=1)


def plan(path, store, only=()):
    return planning.plan(matrices.load(path, (), only), store)


HEARS_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""A shell starts what it puts into the background deaf to SIGINT, and so would these tests be there."""


def start(path, store, before=""):
    """The same run in a process of its own, to be killed; ``before`` is code to run first."""
    return subprocess.Popen(
        [sys.executable, "-c", HEARS_CTRL_C + before + RUN, path, store.folder],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def wait_until(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def is_gone(process):
    """Whether the process has ended; where nobody reaps orphans it stays as a zombie."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def files(folder):
    """Every file under ``folder`` with the time of its last change."""
    return {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.parts[-2] != ".locks"
    }


def test_second_run_does_nothing(write_matrix, store):
    """A run that is complete is not touched by running it again."""
    path = write_matrix("ok", "nap", seeds=2)
    first = run(path, store)
    assert (dict(first.statuses), first.ran, first.failed) == ({"ok": 4}, 4, 0)
    before = files(store.folder)
    second = run(path, store)
    assert (dict(second.statuses), second.ran) == ({"ok": 4}, 0)
    assert files(store.folder) == before


def test_failures_are_recorded_and_tried_again(write_matrix, store):
    """A failing cell stops no other, keeps its record, and is the only one that runs again."""
    path = write_matrix("broken", "ok", "incompatible")
    assert dict(run(path, store).statuses) == {"infra_error": 1, "ok": 1, "incompatible": 1}
    states = {cell.labels["algorithm"]: (cell.state, cell.why) for cell in plan(path, store)}
    assert states == {
        "broken": ("failed", "infra_error: ValueError: first line"),
        "ok": ("done", ""),
        "incompatible": ("incompatible", "it needs what is not there"),
    }
    again = run(path, store)
    assert (again.ran, again.failed) == (1, 1)
    record = json.loads(store.plan_path.read_text())
    assert [cell["incompatible"] for cell in record["cells"]] == [None, None, "it needs what is not there"]


def test_cell_that_turns_out_incompatible_is_not_tried_again(write_matrix, store):
    """What only the data shows, that a cell cannot run, is on record with its reason and is no failure."""
    path = write_matrix("unfit")
    first = run(path, store)
    assert (dict(first.statuses), first.failed) == ({"incompatible": 1}, 0)
    assert [cell.why for cell in plan(path, store)] == ["no pair differs in reward"]
    assert run(path, store).ran == 0


def test_what_a_run_stands_on_is_written_first(write_matrix, store, monkeypatch):
    """Plan, matrix and environment are on disk before the first cell is started."""
    path = write_matrix("ok")
    seen = []
    submit = runner.LocalExecutor.submit

    def watching(self, cell, cell_id):
        seen.extend(sorted(each.name for each in store.folder.iterdir() if each.is_file()))
        submit(self, cell, cell_id)

    monkeypatch.setattr(runner.LocalExecutor, "submit", watching)
    run(path, store)
    assert {"environment.json", "matrix.yaml", "plan.json"} <= set(seen)
    entry = store.read_json(store.plan_path)["cells"][0]
    assert entry["title"] == "Fake Policy Optimization"
    assert {name: entry[name] for name in planning.LABELS} == {
        "model": "m", "task": "fake", "budget": "b", "algorithm": "ok", "seed": 0,
    }  # fmt: skip
    assert matrices.load(store.folder / "matrix.yaml").spec == matrices.load(path).spec


def test_the_written_matrix_survives_a_command_of_several_lines(write_matrix, store, monkeypatch):
    """A value of --set may be YAML over several lines; the comment that tells the command is one on each of them."""
    path = write_matrix("ok")
    monkeypatch.setattr(sys, "argv", ["bakeoff", "run", str(path), "--set", "seeds=\n- 0\n"])
    asked = matrices.load(path)
    planning.write_plan(asked, planning.plan(asked, store), store)
    assert matrices.load(store.folder / "matrix.yaml").spec == asked.spec


def test_the_plan_declares_what_will_decide(write_matrix, store):
    """The declaration is in the plan before anything runs, stays when run again, and a late change is an amendment."""
    path = write_matrix("ok")
    run(path, store)
    (first,) = store.read_json(store.plan_path)["declarations"]
    assert (first["primary_metric"], first["seeds"], first["results"]) == ("gold_reward", [0], 0)
    run(path, store)
    assert store.read_json(store.plan_path)["declarations"] == [first]
    path.write_text(path.read_text() + "analysis: {margin: 0.1}\n")
    run(path, store)
    again, amended = store.read_json(store.plan_path)["declarations"]
    assert again == first
    assert (amended["margin"], amended["results"]) == (0.1, 1)


def test_the_declaration_is_printed(write_matrix, store):
    """A run begins by saying what it declared."""
    console = Console(file=io.StringIO(), width=200)
    runner.run(matrices.load(write_matrix("ok")), store, workers=1, console=console)
    (declared,) = store.read_json(store.plan_path)["declarations"]
    assert f"Declared {declared['hash']}: gold_reward decides" in console.file.getvalue()


def test_seeds_run_one_after_the_other(write_matrix, store):
    """All algorithms of the first seed come before any of the second: half a run is a comparison."""
    cells = plan(write_matrix("ok", "nap", "print", seeds=2), store)
    assert [cell.labels["seed"] for cell in cells] == [0, 0, 0, 1, 1, 1]


def test_plan_learns_prices_from_the_past(write_matrix, store):
    """Cells like those that ended are priced by them, others by the worker's guess; planning writes nothing."""
    path = write_matrix("nap", "print", seeds=2)
    assert not store.folder.exists()
    assert {cell.basis for cell in plan(path, store)} == {"a guess"}
    assert not store.folder.exists()
    run(path, store, only=["algorithm=nap,seed=0"])
    like, unlike = (cell for cell in plan(path, store) if cell.labels["seed"] == 1)
    assert like.basis == "1 cell of this run"
    assert 0.3 <= like.seconds < unlike.seconds == 12


def test_a_stage_is_paid_for_by_the_first_cell_that_needs_it(write_matrix, store):
    """Two algorithms share one stage and have one of their own, for both seeds: a guess of 12 s and 1 s a stage."""
    path = write_matrix("ok", "nap", seeds=2)
    assert [cell.seconds for cell in plan(path, store)] == [14, 13, 12, 12]
    store.stage(plan(path, store)[0].stages[0].id).mkdir(parents=True)
    assert [cell.seconds for cell in plan(path, store)] == [13, 13, 12, 12]


def test_only_amends_the_plan(write_matrix, store):
    """``--only`` adds the cells asked for to the plan and leaves the others in it, in the matrix's order."""
    path = write_matrix("ok", "nap", "print")
    for only in (["algorithm=print"], ["algorithm=ok"], ["algorithm=print"]):
        run(path, store, only)
    assert [cell["algorithm"] for cell in store.read_json(store.plan_path)["cells"]] == ["ok", "print"]
    assert {cell.state for cell in read(store).cells} == {"ok"}


def test_only_asks_for_nothing_of_the_others(write_matrix, store, monkeypatch):
    """What a cell that ``--only`` leaves out stands on (a model, say) need not be there."""

    def fingerprints(cell):
        if cell.algorithm.label == "nap":
            raise ModelError("its model is not installed")
        return {"model": "f00d"}

    path = write_matrix("ok", "nap")
    monkeypatch.setattr("fake_lab.fingerprints", fingerprints)
    assert run(path, store, ["algorithm=ok"]).ran == 1
    assert run(path, store, ["algorithm=ok"]).ran == 0
    with pytest.raises(ModelError):
        run(path, store)


def test_cells_that_left_the_matrix_are_retired(write_matrix, store):
    """A cell that is no longer in the matrix stays on disk, is out of the plan, and comes back done."""
    run(write_matrix("ok", "nap"), store)
    gone = store.read_json(store.plan_path)["cells"][1]["id"]
    run(write_matrix("ok", "print"), store)
    record = store.read_json(store.plan_path)
    assert [cell["algorithm"] for cell in record["cells"]] == ["ok", "print"]
    assert [cell["id"] for cell in record["retired"]] == [gone]
    assert store.is_done(gone)
    assert run(write_matrix("ok", "nap"), store).ran == 0


def test_run_of_another_schema_version_is_not_written_to(write_matrix, store):
    """Nothing is written into a folder whose plan has another schema version."""
    path = write_matrix("ok")
    store.write_bytes(store.plan_path, b'{"schema_version": 2}')
    before = files(store.folder)
    with pytest.raises(StoreError, match="schema version 2"):
        run(path, store)
    assert files(store.folder) == before


def test_kill_9_in_the_middle_loses_one_checkpoint(write_matrix, store):
    """After kill -9 of the runner no process is left, and running again goes on where it was."""
    path = write_matrix("ok", "steps")
    done, growing = (cell.id for cell in plan(path, store))
    process = start(path, store)
    checkpoints = store.partial(growing) / "checkpoints"
    wait_until((checkpoints / "step-3").exists, "the fourth checkpoint")
    cell = psutil.Process(store.progress(growing)["pid"])
    process.kill()
    process.communicate()
    wait_until(lambda: is_gone(cell), "the cell's end")
    assert store.status(growing) is None
    assert [each.state for each in plan(path, store)] == ["done", "partial"]
    assert [each.state for each in read(store).cells] == ["ok", "interrupted"]
    attempts = (store.cell(done) / "attempts.txt").read_text()
    assert run(path, store).failed == 0
    assert (store.cell(done) / "attempts.txt").read_text() == attempts
    steps = (store.cell(growing) / "steps.txt").read_text().split()
    assert sorted(set(map(int, steps))) == list(range(10))
    assert len(steps) <= 11


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_is_clean(number, write_matrix, store):
    """Ctrl-C, or a scheduler's SIGTERM, ends with 130, without a traceback, and with the cell resumable."""
    path = write_matrix("steps", "ok")
    growing = plan(path, store)[0].id
    process = start(path, store)
    wait_until((store.partial(growing) / "checkpoints" / "step-1").exists, "the second checkpoint")
    cell = psutil.Process(store.progress(growing)["pid"])
    os.killpg(process.pid, number)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "stopping" in said
    wait_until(lambda: is_gone(cell), "the cell's end")
    assert [each.state for each in plan(path, store)] == ["partial", "to do"]


def test_a_second_ctrl_c_waits_for_nobody(write_matrix, store):
    """A cell that ignores a polite request, and the child that it started, are killed at once and can be resumed."""
    path = write_matrix("stubborn")
    growing = plan(path, store)[0].id
    child = store.partial(growing) / "child.txt"
    process = start(path, store)
    wait_until(child.exists, "the cell's child")
    wait_until(child.read_text, "its number")
    family = [psutil.Process(store.progress(growing)["pid"]), psutil.Process(int(child.read_text()))]
    os.killpg(process.pid, signal.SIGINT)
    line = ""
    while "stopping" not in line:
        line = process.stdout.readline()
    time.sleep(0.5)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert time.monotonic() - began < GRACE_S
    assert process.returncode == 130
    assert "Traceback" not in said
    wait_until(lambda: all(map(is_gone, family)), "the end of both")
    assert [each.state for each in plan(path, store)] == ["partial"]


def test_ctrl_c_while_libraries_are_imported_is_clean(write_matrix, store, tmp_path):
    """The first seconds of a run, when nothing trains yet, can be interrupted as well."""
    slow = f"import pathlib, time; pathlib.Path({str(tmp_path / 'importing')!r}).touch(); time.sleep(1000)"
    (tmp_path / "site" / "slow_to_import.py").write_text(slow)
    process = start(write_matrix("ok"), store, "import fake_lab; fake_lab.PRELOAD = ('slow_to_import',)")
    wait_until((tmp_path / "importing").exists, "the import")
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in said


def test_killed_cell_goes_on_from_its_checkpoint(write_matrix, store):
    """A cell whose process is killed from outside is on record as infra_error, and its retry resumes."""
    path = write_matrix("steps")
    growing = plan(path, store)[0].id
    process = start(path, store)
    wait_until((store.partial(growing) / "checkpoints" / "step-5").exists, "the sixth checkpoint")
    os.kill(store.progress(growing)["pid"], signal.SIGKILL)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "infra_error" in said
    assert "SIGKILL" in store.status(growing)["reason"]
    assert run(path, store).failed == 0
    assert len((store.cell(growing) / "attempts.txt").read_text().splitlines()) == 2
    steps = [int(line) for line in (store.cell(growing) / "steps.txt").read_text().split()]
    assert sorted(set(steps)) == list(range(10))
    assert len(steps) <= 11


def test_two_runners_share_a_run(write_matrix, store):
    """Two runners on one folder compute each cell once."""
    path = write_matrix("nap", seeds=4)
    processes = [start(path, store) for _ in range(2)]
    for process in processes:
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
    for cell in plan(path, store):
        assert len((store.cell(cell.id) / "attempts.txt").read_text().splitlines()) == 1


def test_what_failed_for_another_runner_is_not_computed_again(write_matrix, store):
    """While this runner computes the first cell another one sees the second fail: it is for the next run to retry."""
    cells = plan(write_matrix("ok", "nap"), store)
    first, second = (cell.id for cell in cells)

    class Executor:
        free, submitted = 1, []

        def submit(self, cell, cell_id):
            self.free = 0
            self.submitted.append(cell_id)

        def wait(self, timeout_s):
            self.free = 1
            for cell_id, status in ((first, "ok"), (second, "plugin_error")):
                store.open_cell(cell_id)
                store.finish_cell(cell_id, {"status": status})
            return [Outcome(first, "ok")]

        def stop(self):
            assert self.free

    assert runner._dispatch(deque(cells), Executor(), store, SimpleNamespace(tick=lambda: None))
    assert Executor.submitted == [first]


def test_user_script_is_not_run_again_by_its_cells(write_matrix, store, tmp_path):
    """A script that calls bakeoff without an ``if __name__`` guard runs once, not once more for each cell."""
    script = tmp_path / "mine.py"
    script.write_text("print('hello from the script')\n" + RUN)
    said = subprocess.run(
        [sys.executable, script, write_matrix("ok", "print"), store.folder],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.count("hello") == 1
    logs = "".join(path.read_text() for path in (store.folder / "cells").glob("*/log.txt"))
    assert "hello" not in logs
