"""What the documentation shows is run: its code, its files, its commands, in the order in which they stand.

A fence with a file's name (``python plain_sgd.py``) is that file; ``python`` alone is run; each line of ``sh`` is a
command that has to end well. A toy model stands in ``./model`` and a small run in ``./runs/quickstart``.
"""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from bakeoff.testing import algorithms, save_toy
from bakeoff.testing.reports import toy_run

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder to follow a page in; what is imported from it is forgotten afterwards."""
    save_toy(tmp_path / "model")
    toy_run(tmp_path / "runs" / "quickstart")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def install(folder, site, monkeypatch):
    """As ``pip install -e`` would, without the network and not into this environment."""
    words = ["-m", "pip", "install", "-q", "--no-index", "--no-build-isolation", "--no-deps", "--target", str(site)]
    done = subprocess.run([sys.executable, *words, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])))


SLOW = {"add-an-algorithm"}
"""Runs the conformance kit."""


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.stem, marks=[pytest.mark.slow] * (page.stem in SLOW)) for page in PAGES]
)
def test_a_page_works_as_it_stands(page, desk, command, monkeypatch):
    """From its first fence to its last."""
    fences = FENCE.findall(page.read_text(encoding="utf-8"))
    assert fences
    for number, (language, file, text) in enumerate(fences):
        (desk / (file or f"fence{number}")).write_text(text, encoding="utf-8")
        if language == "python" and not file:
            runpy.run_path(f"fence{number}")
        elif language == "sh":
            for line in text.splitlines():
                words = line.split()
                if words[:3] == ["pip", "install", "-e"]:
                    install(words[3], desk / "site", monkeypatch)
                    continue
                assert words[0] == "bakeoff", line
                code, said, problems = command(*words[1:])
                assert code == 0, f"{line}\n{said}\n{problems}"


def test_the_checks_are_listed():
    """Every check of an algorithm, with its promise, as the code has it."""
    page = (ROOT / "docs" / "add-an-algorithm.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `(\w+)` \| (.*) \|$", page[page.index("| check |") :], re.MULTILINE)
    assert shown == [(check.__name__, " ".join(check.__doc__.split())) for check in algorithms.CHECKS]


def test_links_lead_somewhere():
    """Of the pages, the README and the guide."""
    for page in [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
