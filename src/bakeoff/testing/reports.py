"""The promises of a report: it shows all that was planned, acts on nothing that a model wrote, and touches no run."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bakeoff import cellprocess, matrix, planning, reporting
from bakeoff.catalogue import PluginInfo
from bakeoff.contracts import Report
from bakeoff.environment import environment
from bakeoff.store import Store

from .promises import Broken
from .subject import CANARY, HOSTILE, said
from .surroundings import one_cpu, surroundings, toy_folder

MATRIX = """\
name: conformance
models: [{{folder: {folder}, label: toy, precision: fp32}}]
tasks: [toy]
budgets: [{{name: toy, steps: 1}}]
algorithms: [base, {{name: toy-nudge, label: nudged}}, {{name: toy-nudge, label: diverged, scale: .nan}}]
seeds: 2
lora: {{r: 4, alpha: 8}}
evaluation: {{prompts: 8, probes: 0}}
"""
FETCHES = re.compile(
    r"""<(?:script|img|iframe|link|source|video|audio|embed|object)\b[^>]*(?:src|href|data)\s*=\s*["']?(?:https?:)?//"""
    r"""|@import\s+(?:url\()?["']?(?:https?:)?//|url\(\s*["']?(?:https?:)?//""",
    re.IGNORECASE,
)
"""What makes a browser ask the network as the page opens. A link that a reader may click does not."""
ACTS: dict[str, tuple[str, ...]] = {
    ".html": (f"<script>{CANARY}", f"<img src=x onerror={CANARY}"),
    ".svg": (f"<script>{CANARY}", f"<img src=x onerror={CANARY}"),
    ".md": (f"<script>{CANARY}", f"<img src=x onerror={CANARY}", f"![{CANARY}](http"),
    ".tex": (f"\\input{{{CANARY}}}",),
    ".txt": (),
    ".json": (),
    ".csv": ('\n=HYPERLINK(""http', '\n"=HYPERLINK(', ',"=HYPERLINK(', ",=HYPERLINK("),
}
"""What a hostile completion wants to be in a file of this form, had nobody escaped it."""
ELSEWHERE = """
import functools, importlib, pathlib, sys
from bakeoff import reporting
from bakeoff.store import Store
module, name, run, to = sys.argv[1:]
plugin = functools.reduce(getattr, name.split("."), importlib.import_module(module))
plugin().write(reporting.read_results(Store(pathlib.Path(run))), pathlib.Path(to))
print("torch" in sys.modules)
"""


@dataclass
class Desk:
    """Writes one report of a small run, that has a cell that failed and one that was never started."""

    plugin: type[Report]
    info: PluginInfo
    folder: Path

    @functools.cached_property
    def run(self) -> Store:
        """The run: untrained, nudged, and one that diverges; two seeds; completions that mean harm."""
        return self.copy_of_run(finished=5)

    @functools.cached_property
    def first(self) -> list[Path]:
        """What the report wrote."""
        return self.write("report")

    def copy_of_run(self, *, finished: int) -> Store:
        """A run of its own to read: another report may not have left it as it was."""
        return toy_run(self.folder / f"run-{finished}", finished=finished)

    def write(self, name: str, run: Store | None = None) -> list[Path]:
        """Write the report into a folder of this name."""
        written = self.plugin().write(reporting.read_results(run or self.run), self.folder / name)
        return [Path(path) for path in written]

    def texts(self) -> dict[Path, str]:
        """The files that are text."""
        return {path: path.read_text(encoding="utf-8") for path in self.first if path.suffix in ACTS}


def toy_run(folder: Path, *, finished: int = 5) -> Store:
    """A run of six small cells on the toy model in ``folder``, of which the first ``finished`` have ended."""
    return Store(Path(shutil.copytree(Path(_made(finished).name, "run"), folder)))


@functools.cache
def _made(finished: int) -> tempfile.TemporaryDirectory[str]:
    """Such a run, made once a process."""
    folder = tempfile.TemporaryDirectory(prefix="bakeoff-run-")
    source = Path(folder.name, "matrix.yaml")
    source.write_text(MATRIX.format(folder=toy_folder()))
    with surroundings(), one_cpu():
        asked, store = matrix.load(source), Store(Path(folder.name, "run"))
        cells = planning.plan(asked, store)
        planning.write_plan(asked, cells, store)
        store.write_json(store.folder / "environment.json", environment())
        for planned in cells[:finished]:
            _end(planned, store)
    return folder


def _end(planned: planning.PlannedCell, store: Store) -> None:
    """Run a cell, and put harmful completions in the place of the toy model's."""
    import pandas as pd

    from bakeoff import worker

    store.open_cell(planned.id)
    clock = cellprocess.PhaseClock(store, planned.id)
    try:
        worker.run_cell(planned.cell, planned.id, store, clock)
        status = clock.status("ok")
    except Exception as error:
        status = clock.status(cellprocess.classify(error), cellprocess.one_line(error), "")
    samples = store.partial(planned.id) / "samples.parquet"
    if samples.exists():
        frame = pd.read_parquet(samples)
        frame["completion"] = [HOSTILE[8 + row % 8] for row in range(len(frame))]
        store.write_frame(samples, frame)
    store.finish_cell(planned.id, status)


def writes(desk: Desk) -> str:
    """It writes files under the folder that it is given, all of which it returns, and nothing elsewhere."""
    before = _digests(desk.run.folder)
    written = desk.first
    if not written:
        raise Broken("it wrote nothing.", "Return the files that were written.")
    to = (desk.folder / "report").resolve()
    for path in written:
        if not path.is_file() or not path.stat().st_size:
            raise Broken(f"it returned {path}, which is not there or empty.", "Return what was written.")
        if not path.resolve().is_relative_to(to):
            raise Broken(f"it wrote {path}, which is not under the folder that it was given.", "Write below `to` only.")
    if unsaid := sorted(
        {path.resolve() for path in to.rglob("*") if path.is_file()} - {path.resolve() for path in written}
    ):
        raise Broken(f"it wrote {unsaid[0].name} and did not return it.", "Return every file.")
    if before != _digests(desk.run.folder):
        raise Broken("the run's own files changed.", "Read the run, never write to it.")
    return ", ".join(sorted({path.suffix or path.name for path in written})) + f", {len(written)} files"


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def described(desk: Desk) -> str:
    """It says what it is: a title and a docstring."""
    said(desk.plugin)
    return desk.plugin.title


def complete(desk: Desk) -> str:
    """It shows every algorithm that was planned, also those whose cells failed or were never started."""
    text = "\n".join(desk.texts().values())
    if not text:
        return "it writes no text"
    for label in ("base", "nudged", "diverged"):
        if label not in text:
            raise Broken(
                f"{label!r} was planned and is nowhere in it.",
                "Go through `results.cells`, which has failed and missing cells, too; scores alone do not.",
            )
    return "all three algorithms are in it, the one that diverged too"


def early(desk: Desk) -> str:
    """A run in which no cell has ended yet has a report."""
    written = desk.write("early", desk.copy_of_run(finished=0))
    return f"{len(written)} files"


def hostile(desk: Desk) -> str:
    """What a model wrote is shown, and acted on by no reader of the file: no browser, no LaTeX, no spreadsheet."""
    for path, text in desk.texts().items():
        for attack in ACTS[path.suffix]:
            if attack in text:
                raise Broken(
                    f"{path.name} holds {attack.strip()!r} as the model wrote it.",
                    "Escape every text for the format: `markupsafe.escape` for HTML; for others see bakeoff.reports.",
                )
    return f"{len(desk.texts())} text files hold none of it"


def offline(desk: Desk) -> str:
    """Opening it asks nothing of the network."""
    for path, text in desk.texts().items():
        if fetch := FETCHES.search(text):
            raise Broken(f"{path.name} has {fetch.group()[:80]!r}.", "Put styles, scripts and pictures into the file.")
    return "no file loads anything"


def light(desk: Desk) -> str:
    """It imports no torch: a report can be written where nothing can be trained."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    place = [desk.plugin.__module__, desk.plugin.__qualname__, str(desk.run.folder), str(desk.folder / "elsewhere")]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *place], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        return f"not seen: another process cannot run it ({done.stderr.strip().splitlines()[-1]})"
    if done.stdout.strip() == "True":
        raise Broken("torch was imported.", "Import no torch, nor anything that does, in the module or in write().")
    return "written by a process without torch"


CHECKS: tuple[Callable[[Any], str], ...] = (writes, described, complete, early, hostile, offline, light)
