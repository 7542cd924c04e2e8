"""What is shipped: the wheel's contents, the entry points, the pinned versions, and a stranger's package."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections import Counter
from importlib.metadata import entry_points, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bakeoff import catalogue, matrix, registry

ROOT = Path(__file__).parent.parent
OUTSIDE = Path(__file__).parent / "outside_plugin"
FAMILIES = ("algorithms", "benchmarks", "evaluators", "reports")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
POINTS = [
    (group.removeprefix("bakeoff.").removesuffix("s"), name, value)
    for group, points in PROJECT["entry-points"].items()
    for name, value in points.items()
]


def python(*arguments: str | Path) -> None:
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


CHECKOUT = (*FAMILIES, "docs", "src", "tests")
"""Folders of a checkout, less CI's."""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the sdist of a copy of the tree, and the wheel that is built from that sdist."""
    copy = tmp_path_factory.mktemp("tree")
    for name in CHECKOUT:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, copy)
    python("-m", "build", "--no-isolation", "--outdir", copy / "dist", copy)
    return copy / "dist"


@pytest.fixture
def wheel(built):
    """Names of the files in the wheel."""
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path).namelist()


def test_sdist_holds_the_checkout(built):
    """What a packager needs to build, test and document: every file but those of git and CI."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    made = ("__pycache__", ".egg-info")
    files = [each for name in CHECKOUT for each in (ROOT / name).rglob("*") if each.is_file()]
    files += [ROOT / name for name in ("Makefile", "constraints.txt", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE")]
    names = {each.relative_to(ROOT).as_posix() for each in files if not any(part in str(each) for part in made)}
    assert names <= held


def test_wheel_holds_one_name(wheel):
    """Installing bakeoff adds `bakeoff` to site-packages and nothing else: no `algorithms`, no `reports`."""
    names = {name.split("/")[0] for name in wheel if not name.split("/")[0].endswith(".dist-info")}
    assert names == {"bakeoff"}


def test_wheel_holds_every_file(wheel):
    """Every module, matrix, template and the licence of the tree are in the wheel: none is forgotten."""
    for folder, packed in (
        (ROOT / "src" / "bakeoff", "bakeoff"),
        *((ROOT / name, f"bakeoff/{name}") for name in FAMILIES),
    ):
        kept = {".py", ".yaml", ".html", ".css", ".js", ".j2", ".typed"}
        for path in folder.rglob("*"):
            if path.suffix in kept or path.name == "py.typed":
                assert f"{packed}/{path.relative_to(folder).as_posix()}" in wheel
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


@pytest.mark.parametrize(("kind", "name", "value"), POINTS, ids=[f"{kind}-{name}" for kind, name, _ in POINTS])
def test_entry_point_resolves(kind, name, value):
    """Each declared plugin has its file with its class in it, and loads as a plugin of its kind."""
    module, class_name = value.split(":")
    path = ROOT / f"{module.removeprefix('bakeoff.').replace('.', '/')}.py"
    classes = [node.name for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.ClassDef)]
    assert class_name in classes
    info = catalogue.describe(kind, name)
    assert info.error is None
    assert info.title


def test_installation_is_current():
    """The installed entry points are those of pyproject.toml; they are frozen until the next `make install`."""
    installed = {
        (group.removeprefix("bakeoff.").removesuffix("s"), point.name, point.value)
        for group in PROJECT["entry-points"]
        for point in entry_points(group=group)
        if point.dist is not None and point.dist.name == "bakeoff"
    }
    assert installed == set(POINTS)


@pytest.mark.parametrize("name", matrix.stock())
def test_stock_matrix_loads(name):
    """Every matrix that is shipped is valid, has cells, and says in its first line how to run it."""
    loaded = matrix.load(name)
    assert loaded.cells()
    assert loaded.path.read_text().startswith(f"# bakeoff run {name}\n")


ARMS = {"base", "best-of-n", "sft-chosen", "random-reward", "length-reward", "null-answer"}
"""What a contender is held against, in every matrix that trains policies."""
OTHER_ARMS = {"reward-models": {"random-labels"}}
"""Reward models, which complete nothing, are held against one of their own."""


@pytest.mark.parametrize("name", matrix.stock())
def test_stock_matrix_has_control_arms(name):
    """Controls stand in every stock matrix beside what they are to be compared with, on the same budget and rows."""
    cells = matrix.load(name).cells()
    plugins = {cell.algorithm.name: registry.load("algorithm", cell.algorithm.name) for cell in cells}
    controls = {label for label, plugin in plugins.items() if plugin.is_control}
    assert controls == OTHER_ARMS.get(name, ARMS) and set(plugins) - controls
    assert all((cell.budget, cell.task) == (cells[0].budget, cells[0].task) for cell in cells)


def test_quickstart_decides_about_contenders():
    """Its contenders have the seeds that a verdict needs; controls that take long have one."""
    cells = matrix.load("quickstart").cells()
    seeds = Counter(cell.algorithm.name for cell in cells)
    once = {"random-reward", "length-reward", "sft-chosen", "best-of-n"}
    assert all(seeds[name] == (1 if name in once else 5) for name in seeds)
    settings = {cell.algorithm.name: cell.algorithm.settings for cell in cells}
    assert settings["random-reward"] == settings["length-reward"] == settings["grpo"]


def test_constraints_pin_every_dependency():
    """Each requirement has one exact, public version in constraints.txt, and it is a version that is allowed."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = {}
    for line in lines:
        match = re.fullmatch(r"([\w.-]+)==([\w.]+)", line)
        assert match, line
        pins[canonicalize_name(match[1])] = match[2]
    extras = [text for texts in PROJECT["optional-dependencies"].values() for text in texts]
    for requirement in map(Requirement, [*PROJECT["dependencies"], *extras]):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_imports_are_declared():
    """Every package that the source imports is a declared dependency, not one that another happens to bring."""
    owners = packages_distributions()
    texts = PROJECT["dependencies"] + [
        each for name in ("gguf", "openai") for each in PROJECT["optional-dependencies"][name]
    ]
    declared = {canonicalize_name(Requirement(text).name) for text in texts}
    # pydantic pins its core to one version of it; Ray is used where it is installed.
    apart = sys.stdlib_module_names | {"bakeoff", "pydantic_core", "ray"}
    undeclared = set()
    for folder in ("src", *FAMILIES):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_bytes())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                for name in {name.partition(".")[0] for name in names} - apart:
                    if not {canonicalize_name(owner) for owner in owners.get(name, [])} & declared:
                        undeclared.add(f"{path.name}: {name}")
    assert not undeclared


# ------------------------------------------------------------------------- a stranger's package


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which pip installed the stranger's package, from its source, without the network."""
    folder = tmp_path_factory.mktemp("outside")
    shutil.copytree(OUTSIDE, folder / "source")
    arguments = ["-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", "--no-deps", "--target"]
    python(*arguments, folder / "site", folder / "source")
    return folder / "site"


@pytest.fixture
def plain_sgd(site, monkeypatch):
    """The stranger's algorithm, loaded by name as any other."""
    monkeypatch.syspath_prepend(site)
    yield registry.load("algorithm", "plain-sgd")
    sys.modules.pop("plain_sgd", None)


def test_stranger_comes_in_by_the_front_door(plain_sgd):
    """Installing a package is all it takes to be listed, described and named in a matrix."""
    info = catalogue.describe("algorithm", "plain-sgd")
    assert (info.distribution, info.version) == ("bakeoff-plain-sgd", "1.0")
    assert [setting.name for setting in info.settings] == ["learning_rate"]
    loaded = matrix.load("smoke", ["algorithms=[{name: plain-sgd, learning_rate: 0.5}]"])
    (cell,) = loaded.cells()
    assert cell.algorithm.settings == {"learning_rate": 0.5}
    assert len(matrix.cell_id(cell, fingerprints={})) == 16


def test_stranger_trains(plain_sgd, toy_cell, run_cell):
    """In a cell as any other: its loop lowers the loss of a toy model, and stops at the budget."""
    from bakeoff.spec import PreparationSpec

    # One demonstration, so that the losses of different steps are of the same row.
    once = PreparationSpec(prompts=1, samples=4)
    folder = run_cell(toy_cell("plain-sgd", {"learning_rate": 0.03}, budget={"steps": 20}, preparation=once))
    losses = [json.loads(line)["loss"] for line in (folder / "training.jsonl").read_text().splitlines()]
    assert len(losses) == 20
    assert losses[-1] < 0.7 * losses[0]


def test_learning_rate_falls_with_the_budget(make_context, make_roles):
    """What a hand-written loop scales its learning rate by: the share of the budget that is left."""
    context = make_context(make_roles(), budget={"steps": 4})
    assert [context.learning_rate_scale() for _ in context.steps()] == [1.0, 0.75, 0.5, 0.25]


def test_the_guide_shows_the_stranger_in_full():
    """The example in docs/add-an-algorithm.md is the package that is tested here, word for word."""
    guide = (ROOT / "docs" / "add-an-algorithm.md").read_text()
    assert (OUTSIDE / "plain_sgd.py").read_text() in guide
