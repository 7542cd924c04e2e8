"""Plugins, a matrix file and what is asked of both: shared by the tests of matrix files."""

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field, model_validator

from bakeoff import matrix, registry
from bakeoff.contracts import Metric, PluginSettings, Preset, TaskSettings
from bakeoff.errors import MatrixError, PluginError


class Empty:
    """A plugin without settings; as an algorithm, one that trains the policy."""

    Settings = PluginSettings
    trains = True
    role = "policy"


class GRPO(Empty):
    """An algorithm with two settings and a preset."""

    presets: ClassVar[dict[str, Preset]] = {"big": Preset("Big Groups", "Nobody 2026", {"group": 64})}

    class Settings(PluginSettings):
        learning_rate: float = Field(default=1e-3, gt=0)
        """Step size at the start."""
        group: int = Field(default=8, ge=2)


class Broken:
    """A plugin whose own check of its settings is what is wrong."""

    class Settings(PluginSettings):
        rows: int = Field(default_factory=lambda: {}["rows"])
        scale: int = 1

        @model_validator(mode="after")
        def _fits(self) -> "Broken.Settings":
            _ = 1 / self.scale
            return self


class Rows:
    """A task over files."""

    class Settings(TaskSettings):
        train: Path
        """Training rows."""
        test: Path | None = None
        source: Path | str | None = None

        @model_validator(mode="after")
        def _enough(self) -> "Rows.Settings":
            if self.source == "none":
                raise ValueError("the source has no rows")
            return self


def measuring(name: str) -> type:
    """An evaluator of one metric, which has its name."""
    return type("Empty", (Empty,), {"metrics": (Metric(name, "", "higher", ""),)})


class Plugins:
    """Stands in for the registry: the classes above by name, and a hash for each that a test may change."""

    known: ClassVar[dict[tuple[str, str], type]] = {
        ("algorithm", "sft"): Empty,
        ("algorithm", "grpo"): GRPO,
        ("algorithm", "broken"): Broken,
        ("algorithm", "idle"): type("Idle", (Empty,), {"trains": False}),
        ("algorithm", "judging"): type("Judging", (Empty,), {"role": "reward"}),
        ("task", "easy"): type("Easy", (), {"Settings": TaskSettings}),
        ("task", "rows"): Rows,
        ("judge", "gold"): Empty,
        **{("evaluator", name): measuring(name) for name in matrix.EVALUATORS},
    }

    def __init__(self) -> None:
        self.hashes: dict[type, str] = {}

    def load(self, kind: str, name: str) -> type:
        if (kind, name) not in self.known:
            raise PluginError(f"no {kind} is called {name!r}.")
        return self.known[kind, name]

    def source_hash(self, plugin: type) -> str:
        return self.hashes.get(plugin, "source of " + plugin.__name__)


@pytest.fixture(autouse=True)
def plugins(monkeypatch):
    """The plugins above in place of the installed ones."""
    plugins = Plugins()
    monkeypatch.setattr(registry, "load", plugins.load)
    monkeypatch.setattr(registry, "source_hash", plugins.source_hash)
    return plugins


BASE = """\
models: [{hub: org/Tiny-1.5B}]
tasks: [easy]
budgets: [{name: short, steps: 3}]
algorithms:
  - sft
  - {name: grpo, learning_rate: 1e-4}
seeds: 2
"""


@pytest.fixture
def write(tmp_path):
    """Writes a matrix file and gives its path."""

    def write(text: str = BASE, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def base():
    """The text of a matrix file that is right."""
    return BASE


@pytest.fixture
def problems():
    """``problems(path, *overrides)``: what loading the file complains of."""

    def told(path: Path, *overrides: str) -> str:
        with pytest.raises(MatrixError) as caught:
            matrix.load(path, overrides)
        return str(caught.value)

    return told


@pytest.fixture
def ids():
    """``ids(path, *overrides, fingerprints={...})``: the ids of the file's cells."""

    def made(path: Path, *overrides: str, fingerprints: dict[str, str] | None = None) -> list[str]:
        cells = matrix.load(path, overrides).cells()
        return [matrix.cell_id(cell, fingerprints=fingerprints or {}) for cell in cells]

    return made
