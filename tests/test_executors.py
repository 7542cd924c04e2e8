"""Each cell gets a process of its own, and its end, whatever it was, becomes a status."""

import os
import time

import psutil
import pytest

from bakeoff.cellprocess import classify
from bakeoff.environment import cores
from bakeoff.errors import BakeoffError, PluginFailure
from bakeoff.executors import LocalExecutor, default_workers, visible_gpus
from bakeoff.spec import BudgetSpec, CellSpec, ModelSpec, PluginSpec
from bakeoff.store import Store


def make_cell(do, timeout_s=None):
    return CellSpec(
        model=ModelSpec(label="m", hub="a/b"),
        task=PluginSpec(name="fake", label="fake"),
        budget=BudgetSpec(name="b", steps=1),
        algorithm=PluginSpec(name="fake", label=do, settings={"do": do}),
        judge=PluginSpec(name="fake", label="fake"),
        seed=0,
        timeout_s=timeout_s,
    )


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "run")


@pytest.fixture
def executor(store, fake_lab):
    executor = LocalExecutor(store, 1, function="fake_lab:run_cell")
    yield executor
    executor.stop()


def finish(executor, count=1):
    """Wait for ``count`` cells to end; their statuses by id."""
    ended = {}
    deadline = time.monotonic() + 60
    while len(ended) < count:
        assert time.monotonic() < deadline, "the cells do not end"
        ended |= {outcome.cell_id: outcome.status for outcome in executor.wait(timeout_s=0.2)}
    return ended


@pytest.mark.parametrize(
    ("do", "status", "reason"),
    [
        ("ok", "ok", ""),
        ("memory", "oom", "MemoryError: no more"),
        ("broken", "infra_error", "ValueError: first line"),
        ("plugin", "plugin_error", "fake failed: ZeroDivisionError: division by zero"),
        ("plugin_nan", "diverged", "fake failed: FloatingPointError: loss is NaN"),
        ("unfit", "incompatible", "no pair differs in reward"),
        ("kill", "infra_error", "the process was killed by SIGKILL; see log.txt"),
        ("segfault", "infra_error", "the process was killed by SIGSEGV; see log.txt"),
    ],
)
def test_every_end_is_a_status(do, status, reason, executor, store):
    """However a cell ends, its folder is complete and says how, in one line."""
    executor.submit(make_cell(do), do)
    assert finish(executor) == {do: status}
    record = store.status(do)
    assert (record["status"], record["reason"]) == (status, reason)
    assert not store.partial(do).exists()
    assert set(record) >= {"traceback", "started", "ended", "wall_s", "seconds"}


def test_traceback_is_kept(executor, store):
    """The whole traceback of a failure is in the record and in the log."""
    executor.submit(make_cell("broken"), "c")
    finish(executor)
    assert "second line" in store.status("c")["traceback"]
    assert "in run_cell" in store.status("c")["traceback"]
    assert "Traceback" in (store.cell("c") / "log.txt").read_text()


def test_what_a_segfault_was_doing_is_in_the_log(executor, store):
    """A crash in native code leaves the Python stack in the log."""
    executor.submit(make_cell("segfault"), "c")
    finish(executor)
    assert "Fatal Python error: Segmentation fault" in (store.cell("c") / "log.txt").read_text()


def test_output_goes_to_the_log(executor, store, capfd):
    """What a cell and its children print is in its log and not in the terminal."""
    executor.submit(make_cell("print"), "c")
    finish(executor)
    assert (store.cell("c") / "log.txt").read_text() == "from a shell\nto stderr\n"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("do", ["hang", "stubborn"])
def test_timeout_kills_the_cell_and_its_children(do, executor, store, monkeypatch):
    """A cell over its time is stopped, with what it started, even when it ignores SIGTERM."""
    monkeypatch.setattr("bakeoff.executors.GRACE_S", 0.2)
    executor.submit(make_cell(do, timeout_s=1.5), "c")
    assert finish(executor) == {"c": "timeout"}
    assert "timeout_s" in store.status("c")["reason"]
    assert store.status("c")["seconds"]["load"] >= 0
    child = store.cell("c") / "child.txt"
    assert child.exists() is (do == "stubborn")
    if child.exists():
        assert_gone(int(child.read_text()))


def assert_gone(pid):
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} outlived its cell"
        time.sleep(0.05)


def test_process_left_behind_is_ended(executor, store):
    """A process that a plugin started and forgot does not outlive the cell."""
    executor.submit(make_cell("child"), "c")
    assert finish(executor) == {"c": "ok"}
    assert_gone(int((store.cell("c") / "child.txt").read_text()))


def test_thread_left_behind_does_not_keep_the_cell(executor):
    """A plugin's thread that never ends does not keep the process of an ended cell alive."""
    executor.submit(make_cell("thread"), "c")
    assert finish(executor) == {"c": "ok"}


def test_stopped_cell_can_be_resumed(executor, store):
    """A cell that is stopped has no record; its next attempt goes on from its checkpoints and its clock."""
    executor.submit(make_cell("steps"), "c")
    checkpoint = store.partial("c") / "checkpoints" / "step-2"
    deadline = time.monotonic() + 60
    while not checkpoint.exists():
        assert time.monotonic() < deadline
        executor.wait(timeout_s=0.05)
    assert [outcome.status for outcome in executor.stop()] == ["interrupted"]
    assert store.status("c") is None
    before = store.progress("c")["seconds"]["train"]
    executor.submit(make_cell("steps"), "c")
    assert finish(executor) == {"c": "ok"}
    steps = (store.cell("c") / "steps.txt").read_text().split()
    assert sorted(set(map(int, steps))) == list(range(10))
    assert len(steps) <= 11, "all steps but at most the one in flight are done once"
    assert store.status("c")["seconds"]["train"] > before
    assert len((store.cell("c") / "attempts.txt").read_text().splitlines()) == 2


def test_cells_never_oversubscribe_the_cores(store, fake_lab):
    """Never more cells at once than workers, and never more threads in all than cores."""
    executor = LocalExecutor(store, function="fake_lab:run_cell")
    waiting = [f"c{index}" for index in range(5)]
    while waiting or executor.free < executor.workers:
        while waiting and executor.free:
            key = waiting.pop()
            executor.submit(make_cell("nap"), key)
        executor.wait(timeout_s=0.2)
    spans = []
    for index in range(5):
        folder = store.cell(f"c{index}")
        _, threads, began = (folder / "attempts.txt").read_text().split()
        assert int(threads) == executor.threads_each
        spans.append((float(began), float((folder / "ended.txt").read_text())))
    at_once = max(sum(began <= moment < ended for began, ended in spans) for moment, _ in spans)
    assert at_once <= executor.workers
    assert executor.workers * executor.threads_each <= cores()


def test_more_workers_than_cores_are_refused(store):
    """Asking for oversubscription is an error that says how many fit."""
    with pytest.raises(BakeoffError, match="would slow each other down") as caught:
        LocalExecutor(store, cores() + 1)
    assert f"--workers {cores()}" in caught.value.fix


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine with two GPUs and cores enough, as far as the executor can tell."""
    monkeypatch.setattr("bakeoff.executors.gpus", lambda: ("H200", "H200"))
    monkeypatch.setattr("bakeoff.executors.cores", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("listed", "seen"),
    [(None, ["0", "1"]), ("1", ["1"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"]), ("", []), ("0,-1,1", ["0"])],
)
def test_one_worker_a_gpu(listed, seen, two_gpus, monkeypatch):
    """By default a cell has a GPU to itself; a list of GPUs that the user set is kept to, as CUDA reads it."""
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus() == seen
    assert default_workers() == (len(seen) or 2)


def test_cells_on_gpus_are_spawned_each_with_its_own(two_gpus, store, fake_lab):
    """Forked, they could not use CUDA. A slot that is free again gives its GPU to the next cell."""
    before = dict(os.environ)
    executor = LocalExecutor(store, function="fake_lab:run_cell")
    assert executor._processes.get_start_method() == "spawn"
    executor.submit(make_cell("hang"), "first")
    executor.submit(make_cell("gpu"), "second")
    assert finish(executor) == {"second": "ok"}
    executor.submit(make_cell("gpu"), "third")
    assert finish(executor) == {"third": "ok"}
    executor.stop()
    executor.submit(make_cell("gpu"), "fourth")
    assert finish(executor) == {"fourth": "ok"}
    seen = {name: (store.cell(name) / "gpu.txt").read_text() for name in ("second", "third", "fourth")}
    assert seen == {"second": "1", "third": "1", "fourth": "0"}
    assert dict(os.environ) == before


def test_workers_beyond_the_gpus_share_them(two_gpus, store):
    """More cells at once than GPUs, when the user says so, are spread over them."""
    executor = LocalExecutor(store, 3)
    assert [executor._gpu(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["0", "1", "0"]


def test_environment_is_left_as_it_was(executor):
    """Starting cells sets thread counts for them, not for the process that starts them."""
    before = dict(os.environ)
    executor.submit(make_cell("ok"), "c")
    finish(executor)
    assert dict(os.environ) == before


class OutOfMemoryError(RuntimeError):
    """Stands for torch's, which is known by its name."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OutOfMemoryError("CUDA out of memory"), "oom"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "oom"),
        (OSError(12, "Cannot allocate memory"), "oom"),
        (FloatingPointError("nan"), "diverged"),
        (ValueError("out of memory is only mentioned"), "infra_error"),
        (SystemExit(0), "infra_error"),
    ],
)
def test_exceptions_are_classified(error, status):
    """What an exception means for the cell, alone or as the cause of a plugin's failure."""
    assert classify(error) == status
    failure = PluginFailure("in train")
    failure.__cause__ = error
    assert classify(failure) == ("plugin_error" if status == "infra_error" else status)


def test_the_whole_chain_of_causes_counts():
    """Out of memory in a task's reward, called by an evaluator, is out of memory."""
    reward, evaluator = PluginFailure("the task's reward failed"), PluginFailure("evaluator Gold failed")
    reward.__cause__, evaluator.__cause__ = OutOfMemoryError("CUDA out of memory"), reward
    assert classify(evaluator) == "oom"
