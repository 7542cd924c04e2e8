"""What ``bakeoff new`` writes installs, and keeps every promise before the first edit; it overwrites nothing."""

import subprocess
import sys
import tomllib

import pytest
import yaml

from bakeoff import matrix, registry, scaffold
from bakeoff.errors import PluginError
from bakeoff.testing import examine

WAYS = [
    *(("algorithm", flavour) for flavour in scaffold.FLAVOURS),
    *((kind, "") for kind in registry.BASES if kind != "algorithm"),
]


def name_of(kind, flavour):
    return f"new-{flavour or kind}"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """One package of each kind and flavour, as it is written."""
    folder = tmp_path_factory.mktemp("new")
    for kind, flavour in WAYS:
        scaffold.write(kind, name_of(kind, flavour), flavour=flavour, to=folder)
    return folder


@pytest.fixture(scope="module")
def site(source, tmp_path_factory):
    """All of them, installed by pip without the network."""
    folder = tmp_path_factory.mktemp("site")
    words = ["-m", "pip", "install", "-q", "--no-index", "--no-build-isolation", "--no-deps", "--target", str(folder)]
    done = subprocess.run(
        [sys.executable, *words, *map(str, source.iterdir())], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "flavour"), WAYS, ids=[flavour or kind for kind, flavour in WAYS])
def test_what_is_written_keeps_its_promises(kind, flavour, site, monkeypatch):
    """Installed, found by its entry point, and every check passed, before anybody has edited it."""
    monkeypatch.syspath_prepend(site)
    conformance = examine(kind, name_of(kind, flavour))
    conformance.raise_if_broken()
    assert conformance.plugin.distribution == f"bakeoff-{name_of(kind, flavour)}"


def test_its_own_test_passes(source):
    """From the package's folder, as its README says; the judge's is the quickest."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=source / "bakeoff-new-judge",
        env={"PYTHONPATH": str(source / "bakeoff-new-judge" / "src"), "PATH": "", "HOME": str(source)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_what_is_written_is_tidy(source):
    """Lint and format as here, whose rules a stranger may not have: code that one is glad to begin with."""
    rules = ["--isolated", "--line-length", "120", "--no-cache", "."]
    for folder in source.iterdir():
        for words in (["check", "--select", "E,F,I,B,UP,SIM,RUF"], ["format", "--check"]):
            done = subprocess.run(
                [sys.executable, "-m", "ruff", *words, *rules], cwd=folder, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout


def test_metadata_and_ci_file_are_valid(source):
    """The entry point names the class that is there; the CI file is YAML that runs the check."""
    folder = source / "bakeoff-new-loop"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == "bakeoff-new-loop"
    assert project["entry-points"] == {"bakeoff.algorithms": {"new-loop": "bakeoff_new_loop:NewLoop"}}
    assert "class NewLoop(Algorithm):" in (folder / "src" / "bakeoff_new_loop.py").read_text()
    steps = yaml.safe_load((folder / ".github" / "workflows" / "check.yml").read_text())["jobs"]["check"]["steps"]
    assert {"run": "bakeoff plugins check algorithm new-loop --report conformance.md"} in steps


def test_nothing_is_overwritten(tmp_path):
    """One file that is there already, and none is written."""
    there = tmp_path / "bakeoff-mine" / "README.md"
    there.parent.mkdir()
    there.write_text("years of work")
    with pytest.raises(PluginError, match=r"README\.md is there already; nothing was written"):
        scaffold.write("task", "mine", to=tmp_path)
    assert [path.name for path in there.parent.iterdir()] == ["README.md"]
    assert there.read_text() == "years of work"


@pytest.mark.parametrize("place", ["src/bakeoff_mine.py", "src"])
def test_a_link_that_leads_nowhere_is_there_too(place, tmp_path):
    """In the place of a file or of a folder: found before the first file is written, not halfway."""
    link = tmp_path / "bakeoff-mine" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "gone")
    with pytest.raises(PluginError, match=f"{place} is there already; nothing was written"):
        scaffold.write("task", "mine", to=tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert link.is_symlink()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("FooPO", "Write it 'foopo'"),
        ("foo_po", "Write it 'foo-po'"),
        ("../foo", "Write it 'foo'"),
        ("1st", "For example"),
        ("foo--po", "Write it 'foo-po'"),
        ("", "For example"),
        ("x" * 41, "Write it"),
        ("none", "class called 'None'"),
        ("algorithm", "class called 'Algorithm'"),
        ("plugin", "class called 'PluginSettings'"),
        ("tensor", "class called 'Tensor'"),
        ("über-po", "Write it 'uber-po'"),
        ("dpo", "installed already: bakeoff.algorithms.dpo:DPO of bakeoff"),
    ],
)
def test_a_name_that_cannot_be_used_says_why(name, told, tmp_path):
    """Before anything is written."""
    with pytest.raises(PluginError) as caught:
        scaffold.write("algorithm", name, flavour="loop", to=tmp_path)
    assert told in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_package_of_the_name_is_not_shadowed(site, monkeypatch, tmp_path):
    """An evaluator called as an algorithm that is installed would be a second package of one name."""
    monkeypatch.syspath_prepend(site)
    with pytest.raises(PluginError, match="a package 'bakeoff-new-loop' is installed already"):
        scaffold.write("evaluator", "new-loop", to=tmp_path)


def test_an_unknown_flavour_lists_those_that_there_are(tmp_path):
    """And a kind without flavours takes none."""
    with pytest.raises(PluginError, match="on-policy: override"):
        scaffold.write("algorithm", "mine", flavour="fancy", to=tmp_path)
    with pytest.raises(PluginError, match="a judge has no flavours"):
        scaffold.write("judge", "mine", flavour="loop", to=tmp_path)


def test_the_matrix_in_its_readme_is_one(source, site, monkeypatch, tmp_path):
    """As it stands, with the new algorithm beside the baselines."""
    monkeypatch.syspath_prepend(site)
    readme = (source / "bakeoff-new-loop" / "README.md").read_text()
    (tmp_path / "mine.yaml").write_text(readme.partition("```yaml\n")[2].partition("```")[0])
    labels = {cell.algorithm.label for cell in matrix.load(tmp_path / "mine.yaml").cells()}
    assert labels == {"base", "sft", "dpo", "grpo", "new-loop"}
