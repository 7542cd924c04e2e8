"""The matrix file: its schema, overrides, expansion into cells, and the id of a cell.

A file names models, tasks, budgets, algorithms and seeds; the cells are the product of all five.
``load`` checks everything that can be checked before the first second of training, and tells every
problem at once, each with its line.
"""

from __future__ import annotations

import functools
import importlib.resources
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bakeoff import registry
from bakeoff.errors import MatrixError
from bakeoff.identity import cell_id
from bakeoff.matrixfile import MatrixFile, dump, parse, read
from bakeoff.matrixreader import AXES, MatrixReader, called, unknown_label
from bakeoff.spec import AlgorithmSpec, CellSpec, MatrixSpec, PluginSpec

__all__ = ["Matrix", "budgets", "cell_id", "load", "selects", "stock", "to_yaml"]

EVALUATORS = ("reward", "win_rate", "kl", "health")
JUDGE = "gold"


@dataclass(frozen=True)
class Matrix:
    """A loaded matrix. ``only`` holds the selections asked for; a cell must match one, if there are any."""

    spec: MatrixSpec
    path: Path
    only: tuple[Mapping[str, str], ...] = ()

    def cells(self) -> list[CellSpec]:
        """The product of the five axes, less what include, exclude and ``only`` leave out, in the file's order.

        Raises ``MatrixError`` when nothing is left.
        """
        spec = self.spec
        shared = {
            name: getattr(spec, name)
            for name in CellSpec.model_fields
            if name in MatrixSpec.model_fields and name not in AXES
        }
        product = itertools.product(spec.models, spec.tasks, spec.budgets, spec.algorithms, spec.seeds)
        cells = [
            _cell(shared | dict(zip(AXES, coordinates, strict=True)))
            for coordinates in product
            if self._selects(dict(zip(AXES, map(called, coordinates), strict=True)))
        ]
        if not cells:
            raise MatrixError(
                f"{self.path.name}: no cell is left of the matrix.",
                fix="Loosen include, exclude or --only: together they leave out every combination.",
            )
        return cells

    def _selects(self, labels: Mapping[str, str]) -> bool:
        asked = not self.only or any(_matches(rule, labels) for rule in self.only)
        return asked and selects(labels, self.spec.include, self.spec.exclude)


def load(source: str | Path, overrides: Sequence[str] = (), only: Sequence[str] = ()) -> Matrix:
    """Read, override and check a matrix.

    ``source`` is the name of a stock matrix or the path of a YAML file. ``overrides`` are ``a.b=value``
    with the value in YAML; ``only`` are selections ``task=sentiment,algorithm=sft``: the parts of one
    must all hold, and a cell needs to match one of them.

    Raises ``MatrixError`` that tells every problem with its line, ``PluginError`` never.
    """
    file, path = _open(source)
    stock_budgets = budgets()
    for key, default in (("evaluators", list(EVALUATORS)), ("judge", JUDGE)):
        if file.data.get(key) is None:
            file.data[key] = default
    for override in overrides:
        file.set(override, stock_budgets)
    spec = MatrixReader(file, stock_budgets).matrix()
    return Matrix(spec, path, tuple(_selection(text, spec) for text in only))


def plugin(kind: registry.Kind, text: str) -> PluginSpec:
    """A plugin as the command line names it: ``gold``, or ``{name: openai, model: ..., label: ...}`` in YAML.

    Raises ``MatrixError`` that tells every problem.
    """
    option = f"--{kind}"
    try:
        data = parse(text, f"{option} {text}")
    except yaml.YAMLError as error:
        raise MatrixError(
            f"{option} {text}: not valid YAML.", fix=f'Write for example {option} "{{name: NAME, setting: 1}}".'
        ) from error
    file = MatrixFile(option, Path.cwd(), {kind: data})
    spec = MatrixReader(file, {}).plugin(kind, file.data[kind], (kind,))
    file.raise_problems()
    assert spec is not None
    return spec


def stock() -> list[str]:
    """Names of the stock matrices, sorted."""
    folder = importlib.resources.files("bakeoff.benchmarks.matrices")
    return sorted(file.name[: -len(".yaml")] for file in folder.iterdir() if file.name.endswith(".yaml"))


@functools.cache
def budgets() -> dict[str, dict[str, Any]]:
    """The stock budgets by name: ``{"quick": {"version": 1, "flops": ...}}``. Not to be changed."""
    text = importlib.resources.files("bakeoff").joinpath("budgets.yaml").read_text(encoding="utf-8")
    return parse(text, "budgets.yaml")


def to_yaml(spec: MatrixSpec) -> str:
    """The spec as a matrix file: ``load`` of it gives an equal spec."""
    data = spec.model_dump(mode="json", exclude_none=True)
    for axis in ("tasks", "algorithms", "evaluators"):
        data[axis] = [_flat(item) for item in getattr(spec, axis)]
    data["judge"] = _flat(spec.judge)
    for stage, written in zip(spec.warm_start, data["warm_start"], strict=True):
        written["algorithm"] = _flat(stage.algorithm)
    return dump({key: value for key, value in data.items() if value not in ([], {})})


def _open(source: str | Path) -> tuple[MatrixFile, Path]:
    """The file of a path, or of a stock matrix: a name without a slash and without .yaml."""
    path = Path(source).expanduser()
    if isinstance(source, str) and path.suffix not in (".yaml", ".yml") and path.name == source:
        if source not in stock():
            raise MatrixError(
                f"no stock matrix is called {source!r}.{registry.did_you_mean(source, stock())}",
                fix=f"Stock matrices: {', '.join(stock())}. A file of yours is given as a path, ./{source}.yaml.",
            )
        path = Path(str(importlib.resources.files("bakeoff.benchmarks.matrices"))) / f"{source}.yaml"
    name = path.name if path.is_absolute() else str(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MatrixError(f"{name}: not UTF-8 text: {error.reason}.", fix="Save the file as UTF-8.") from error
    except OSError as error:
        raise MatrixError(
            f"{path}: cannot be read: {error.strerror}.",
            fix=f"Give the path of a YAML file, or the name of a stock matrix: {', '.join(stock())}.",
        ) from error
    return read(text, name, path.resolve().parent), path


def _selection(text: str, spec: MatrixSpec) -> Mapping[str, Any]:
    rule: dict[str, list[str]] = {}
    for part in text.split(","):
        axis, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise MatrixError(
                f"--only {text}: {part!r} is not of the form axis=label.",
                fix="Write for example --only task=sentiment,algorithm=sft.",
            )
        if problem := unknown_label(axis, value, getattr(spec, f"{axis}s", None)):
            raise MatrixError(f"--only {text}: {problem}")
        rule.setdefault(axis, []).append(value)
    return rule


def selects(
    labels: Mapping[str, str], include: Sequence[Mapping[str, Any]] = (), exclude: Sequence[Mapping[str, Any]] = ()
) -> bool:
    """Whether a matrix with these rules has the cell of ``labels``, one for each of ``AXES``."""
    included = not include or any(_matches(rule, labels) for rule in include)
    return included and not any(_matches(rule, labels) for rule in exclude)


def _matches(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether all parts of a rule hold; a part with a list holds for any of its labels."""
    return all(
        labels[axis] in [str(value) for value in (wanted if isinstance(wanted, list) else [wanted])]
        for axis, wanted in rule.items()
    )


def _cell(fields: dict[str, Any]) -> CellSpec:
    """A cell of the given fields; what its algorithm's entry says of the preparation goes over the matrix's."""
    entry: AlgorithmSpec = fields["algorithm"]
    fields |= {"algorithm": PluginSpec(**{name: getattr(entry, name) for name in PluginSpec.model_fields})}
    if entry.preparation:
        fields["preparation"] = _merged(fields["preparation"].model_dump(), entry.preparation)
    return CellSpec.model_validate(fields)


def _merged(section: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``section`` with the keys of ``over``; a mapping in both is merged in turn."""
    both = {key for key in over if isinstance(over[key], Mapping) and isinstance(section.get(key), Mapping)}
    return {**section, **over, **{key: _merged(section[key], over[key]) for key in both}}


def _flat(plugin: PluginSpec) -> dict[str, Any]:
    name = f"{plugin.name}:{plugin.preset}" if plugin.preset else plugin.name
    own = {"preparation": plugin.preparation} if isinstance(plugin, AlgorithmSpec) and plugin.preparation else {}
    return {"name": name, "label": plugin.label, **plugin.settings, **own}
