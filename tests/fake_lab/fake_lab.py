"""A worker and plugins that train nothing: a cell does what its setting ``do`` says.

Used as the module that runs cells (``worker="fake_lab"``) and, through an entry point, as the algorithm,
task, evaluator and judge called "fake".
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bakeoff.contracts import Algorithm, Evaluator, Judge, PluginSettings, Task, TaskData
from bakeoff.errors import Incompatible, PluginFailure
from bakeoff.stageids import StageKey

PRELOAD = ("json", "no_such_module")


class FakeAlgorithm(Algorithm):
    title = "Fake Policy Optimization"

    class Settings(PluginSettings):
        do: str = "ok"

    def train(self, context):
        raise NotImplementedError


class FakeTask(Task):
    title = "nothing to learn"

    def load(self):
        return TaskData([], [], frozenset(), "0", "CC0", "nowhere")


class FakeEvaluator(Evaluator):
    title = "no score"
    metrics = ()

    def score(self, context):
        raise NotImplementedError


class FakeJudge(Judge):
    title = "no verdict"

    def compare(self, context, rows, a, b):
        raise NotImplementedError


@dataclass(frozen=True)
class Estimate:
    seconds: float
    bytes: float
    basis: str


def fingerprints(cell):
    return {"model": "f00d"}


def incompatible(cell):
    return "it needs what is not there" if cell.algorithm.settings["do"] == "incompatible" else None


def estimate(cell, stages=()):
    return Estimate(12.0 + len(stages), 2**30, "a guess")


def planned_stages(cell):
    own = StageKey("warm-start", {"do": cell.algorithm.settings["do"]}, "its own")
    return [StageKey("samples", {"all": "alike"}, "samples of all"), own]


def run_cell(cell, cell_id, store, progress):
    partial = store.partial(cell_id)
    threads = os.environ["OMP_NUM_THREADS"]
    progress("train", 0.0, "")
    with (partial / "attempts.txt").open("a") as attempts:
        attempts.write(f"{os.getpid()} {threads} {time.monotonic()}\n")
    ACTIONS[cell.algorithm.settings["do"]](partial, progress)
    progress("evaluate", 0.5, "")
    store.write_json(partial / "cell.json", {"id": cell_id, "algorithm": cell.algorithm.label})
    (partial / "ended.txt").write_text(str(time.monotonic()))


def _steps(partial: Path, progress) -> None:
    """Ten steps with a checkpoint after each, going on from the last checkpoint that is there."""
    checkpoints = partial / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    for step in range(len(list(checkpoints.iterdir())), 10):
        time.sleep(0.1)
        with (partial / "steps.txt").open("a") as steps:
            steps.write(f"{step}\n")
        (checkpoints / f"step-{step}").touch()
        progress("train", (step + 1) / 10, "")


def _hang_stubbornly(partial: Path, progress) -> None:
    """Never end, ignore a polite request to, and have a child that does the same."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _leave_a_child(partial, progress)
    time.sleep(1000)


def _leave_a_child(partial: Path, progress) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    (partial / "child.txt").write_text(str(child.pid))


def _raise(error: BaseException) -> None:
    raise error


def _plugin_raises(error: BaseException) -> None:
    raise PluginFailure("fake failed") from error


def _leave_a_thread(partial: Path, progress) -> None:
    import threading

    threading.Thread(target=time.sleep, args=(1000,)).start()


ACTIONS = {
    "ok": lambda partial, progress: None,
    "nap": lambda partial, progress: time.sleep(0.3),
    "steps": _steps,
    "print": lambda partial, progress: os.system("echo from a shell; echo to stderr >&2"),
    "gpu": lambda partial, progress: (partial / "gpu.txt").write_text(os.environ["CUDA_VISIBLE_DEVICES"]),
    "thread": _leave_a_thread,
    "child": _leave_a_child,
    "hang": lambda partial, progress: time.sleep(1000),
    "stubborn": _hang_stubbornly,
    "kill": lambda partial, progress: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda partial, progress: os.kill(os.getpid(), signal.SIGSEGV),
    "memory": lambda partial, progress: _raise(MemoryError("no more")),
    "broken": lambda partial, progress: _raise(ValueError("first line\nsecond line")),
    "unfit": lambda partial, progress: _raise(Incompatible("no pair differs in reward", fix="Get more data.")),
    "plugin": lambda partial, progress: _plugin_raises(ZeroDivisionError("division by zero")),
    "plugin_nan": lambda partial, progress: _plugin_raises(FloatingPointError("loss is NaN")),
}
