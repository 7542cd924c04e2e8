"""The rules that keep the parts apart, read from the source: who may import whom, and what nobody may do."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "src" / "bakeoff"
FAMILIES = ("algorithms", "benchmarks", "evaluators", "reports")
FILES = sorted(CORE.rglob("*.py")) + sorted(path for family in FAMILIES for path in (ROOT / family).rglob("*.py"))
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "pandas", "matplotlib", "scipy", "ray")
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"torch.load", "pd.read_pickle", "pandas.read_pickle", "eval", "exec", "yaml.load", "os.system"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_file = pytest.mark.parametrize("path", FILES, ids=name_of)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Each imported name in full, and how many dots a relative import has (0: absolute)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = f"{node.module}." if node.module else ""
            yield from ((f"{base}{alias.name}", node.level) for alias in node.names)


def dotted(node: ast.AST) -> str:
    """``a.b.c`` for such an expression, empty for any other."""
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return node.id if isinstance(node, ast.Name) else ""


@every_file
def test_families_are_reached_by_entry_point_only(path):
    """The core imports no family, a family no other, and nobody the bare name, which makes a second copy."""
    depth = 1 if CORE in path.parents else len(path.relative_to(ROOT).parts) - 1
    for name, dots in imports(tree_of(path)):
        parts = name.split(".")
        assert dots <= depth, f"{name}: a relative import stays in its family"
        if dots == 0:
            assert parts[0] not in FAMILIES, f"import bakeoff.{name} instead"
            assert parts[0] != "bakeoff" or not set(parts[1:2]) & set(FAMILIES), f"{name}: go through bakeoff.registry"


@every_file
def test_plugins_use_public_names(path):
    """A built-in plugin uses nothing of the core that is private: a stranger's can do all that it does."""
    if CORE in path.parents:
        return
    private = [
        name
        for name, dots in imports(tree_of(path))
        if dots == 0 and name.startswith("bakeoff.") and any(part.startswith("_") for part in name.split("."))
    ]
    assert not private


@every_file
def test_no_trl_class_is_inherited(path):
    """TRL's trainers are composed through public arguments: a subclass would break with each of its releases."""
    tree = tree_of(path)
    from_trl = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "trl"
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = {dotted(base) for base in node.bases}
            assert not bases & from_trl, node.name
            assert not any(base.startswith("trl.") for base in bases), node.name


@every_file
def test_no_data_is_executed(path):
    """Nothing that is read can run code: no pickle in any form, no eval, no unsafe YAML, no remote code by default."""
    tree = tree_of(path)
    assert not {name.split(".")[0] for name, _ in imports(tree)} & UNSAFE_MODULES
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            assert dotted(node.func) not in UNSAFE_CALLS, f"line {node.lineno}"
            for keyword in node.keywords:
                on = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                assert not (on and keyword.arg in ("trust_remote_code", "allow_pickle", "shell")), f"line {node.lineno}"


@pytest.mark.parametrize(
    "module", ["bakeoff", "bakeoff.cli", "bakeoff.contracts", "bakeoff.matrix", "bakeoff.registry"]
)
def test_light_modules_stay_light(module):
    """The command line answers at once, because what it imports at start leaves every heavy library out."""
    code = f"import {module}, sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_no_path_of_somebodys_machine():
    """No file of the project names a folder that is on one machine only."""
    machine = re.compile(r"(?<![\w.~$)}/])/(?:home|root|Users|work|mnt|tmp)/\w")
    folders = (ROOT / "src", ROOT / "tests", *(ROOT / family for family in FAMILIES))
    paths = [
        path for folder in folders for path in folder.rglob("*") if path.suffix in {".py", ".yaml", ".md", ".toml"}
    ]
    paths += [*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "constraints.txt", ROOT / "Makefile"]
    found = [
        f"{name_of(path)}:{number}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if machine.search(line)
    ]
    assert not found
