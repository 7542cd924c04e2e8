"""A matrix file's text as plain data that knows the line of every value, and edits from the command line.

Scalars follow YAML 1.2: ``1e-4`` is a number, ``no`` and ``on`` are words. A key that stands twice is a
problem, never a silent choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bakeoff import registry
from bakeoff.errors import MatrixError

Place = tuple[str | int, ...]
"""Keys and indices that lead to a value: ``("algorithms", 2, "learning_rate")``."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's plain scalars instead of 1.1's."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML wants it on the class


class _Dumper(yaml.SafeDumper):
    """Quotes exactly the strings that ``_Loader`` would read as something else."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?[0-9]+[eE][-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


@dataclass
class MatrixFile:
    """The data of one file, and where each value comes from: a line, or an override."""

    name: str
    """How messages call it."""
    folder: Path
    """Relative paths in it start here."""
    data: Any
    """A mapping, once ``read`` has checked it."""
    lines: dict[Place, int] = field(default_factory=dict)
    edits: dict[Place, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def problem(self, place: Place, message: str) -> None:
        """Note a problem with the value at ``place``; ``raise_problems`` tells all of them at once."""
        self.problems.append(": ".join(part for part in (self.where(place), spell(place), message) if part))

    def raise_problems(self) -> None:
        """Raise ``MatrixError`` with every problem noted so far, if there is one."""
        unique = list(dict.fromkeys(self.problems))
        if unique:
            head = f"{len(unique)} problems in {self.name}:\n  " if len(unique) > 1 else ""
            raise MatrixError(head + "\n  ".join(unique))

    def edit_of(self, place: Place) -> str | None:
        """The override that set this value or one that holds it, if any."""
        return next((self.edits[prefix] for prefix in _prefixes(place) if prefix in self.edits), None)

    def where(self, place: Place) -> str:
        """``file.yaml:12``, or the override that put the value there."""
        for prefix in _prefixes(place):
            if prefix in self.edits:
                return f"--set {self.edits[prefix]}"
            if prefix in self.lines:
                return f"{self.name}:{self.lines[prefix]}"
        return self.name

    def set(self, expression: str, expand: dict[str, dict[str, Any]]) -> None:
        """Apply one override, ``a.b=value``; an item of a list is chosen by its label or its index.

        ``expand`` says what a bare name in ``budgets`` stands for, so that one of its limits can be set.
        Raises ``MatrixError`` that names the override.
        """
        path, equals, text = expression.partition("=")
        path = path.strip()
        if not equals or not all(path.split(".")):
            raise MatrixError(
                f"--set {expression}: not of the form a.b=value.",
                fix="Write for example --set evaluation.prompts=16 or --set algorithms.grpo.learning_rate=1e-4.",
            )
        try:
            value = parse(text, f"--set {expression}")
        except yaml.YAMLError as error:
            raise MatrixError(f"--set {expression}: the value is not valid YAML: {_reason(error)}.") from error
        at: Any = self.data
        place: Place = ()
        while True:
            key, path = _step(at, path, expression, spell(place))
            place += (key,)
            if not path:
                break
            if isinstance(at, dict) and at.get(key) is None:
                at[key], self.edits[place] = {}, expression
            inner = at[key]
            if isinstance(inner, str):
                stock = expand.get(inner, {}) if "budget" in str(place[-1 if isinstance(at, dict) else -2]) else {}
                inner = {"name": inner, **stock}
            at[key] = {} if inner is None else inner
            at = at[key]
        at[key] = value
        for inner in [inner for inner in self.lines if inner[: len(place)] == place]:
            del self.lines[inner]
        self.edits[place] = expression


def parse(text: str, name: str) -> Any:
    """YAML text as plain data. Raises ``yaml.YAMLError``, or ``MatrixError`` when a key stands twice."""
    file = _compose(text, name, Path())
    file.raise_problems()
    return file.data


def read(text: str, name: str, folder: Path) -> MatrixFile:
    """A matrix file's text: a mapping, with its lines. Duplicate keys are among its problems.

    Raises ``MatrixError`` with the line when it is not YAML or no mapping.
    """
    try:
        file = _compose(text, name, folder)
    except yaml.YAMLError as error:
        line = _line_of(error, text)
        raise MatrixError(
            f"{name}{'' if line is None else f':{line}'}: not valid YAML: {_reason(error)}.",
            fix="Indent with spaces: YAML forbids tabs."
            if line is not None and "\t" in "".join(text.split("\n")[line - 1 : line])
            else "Check the indentation, the quotes and the colons there.",
        ) from error
    if not isinstance(file.data, dict):
        what = "is empty" if file.data is None else f"holds a {type(file.data).__name__} at the top"
        raise MatrixError(
            f"{name}: {what}, but a matrix file is a mapping.",
            fix="Give it models, tasks, budgets, algorithms and seeds; see the stock matrix smoke.yaml.",
        )
    return file


def dump(data: dict[str, Any]) -> str:
    """Plain data as YAML that ``read`` gives back unchanged."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def label_of(item: Any) -> str:
    """What an entry of an axis is called: its label, its name (of ``dpo:ipo`` the preset), or the last part of a
    model's source."""
    if not isinstance(item, dict):
        return str(item).rpartition(":")[2]
    if item.get("label") is not None:
        return str(item["label"])
    if item.get("name") is not None:
        return label_of(item["name"])
    source = next((item[key] for key in ("hub", "package", "folder", "gguf") if item.get(key)), "")
    last = str(source).replace("\\", "/").rstrip("/").rpartition("/")[2]
    return last[: -len(".gguf")] if last.lower().endswith(".gguf") else last


def spell(place: Place) -> str:
    """``algorithms[2].learning_rate``."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).lstrip(".")


def _prefixes(place: Place) -> Iterator[Place]:
    return (place[:length] for length in range(len(place), -1, -1))


def _step(at: Any, path: str, expression: str, spelled: str) -> tuple[Any, str]:
    """The next key of a dotted path in ``at``, and what is left of the path."""
    if isinstance(at, dict):
        key, _, rest = path.partition(".")
        return key, rest
    if not isinstance(at, list):
        raise MatrixError(f"--set {expression}: {spelled} is {at!r}, which has no parts to set.")
    labels = [label_of(item) for item in at]
    # A label may hold dots (a model called Llama-3.2-1B): the longest that fits is meant.
    fits = [label for label in labels if label and (path == label or path.startswith(label + "."))]
    if fits:
        label = max(fits, key=len)
        return labels.index(label), path[len(label) + 1 :]
    key, _, rest = path.partition(".")
    if key.isdecimal() and int(key) < len(at):
        return int(key), rest
    raise MatrixError(
        f"--set {expression}: no entry of {spelled} is called {key!r}.{registry.did_you_mean(key, labels)}",
        fix=f"It has: {', '.join(labels) or 'none'}; an index from 0 works too.",
    )


def _compose(text: str, name: str, folder: Path) -> MatrixFile:
    loader = _Loader(text)
    try:
        file = MatrixFile(name, folder, {})
        node = loader.get_single_node()
        file.data = None if node is None else _plain(loader, node, (), file, frozenset())
        return file
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    finally:
        loader.dispose()


def _plain(loader: _Loader, node: yaml.Node, place: Place, file: MatrixFile, open_nodes: frozenset[int]) -> Any:
    if id(node) in open_nodes:
        raise yaml.MarkedYAMLError(problem="an alias holds itself", problem_mark=node.start_mark)
    file.lines.setdefault(place, node.start_mark.line + 1)
    inside = open_nodes | {id(node)}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, item, (*place, index), file, inside) for index, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        try:
            return loader.construct_object(node)
        except (ValueError, LookupError, AttributeError):  # PyYAML's own constructors, of a value that is no such thing
            told = f"{node.value!r} is no {node.tag.rpartition(':')[2]}"
            raise yaml.MarkedYAMLError(problem=told, problem_mark=node.start_mark) from None
    seen: dict[str, int] = {}
    for key_node, _ in node.value:
        key, line = key_node.value, key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key is not a word", problem_mark=key_node.start_mark)
        if key in seen and key != "<<":
            file.lines[*place, key] = line
            file.problem((*place, key), f"stands twice, first in line {seen[key]}. Remove one of them.")
        seen[key] = line
    loader.flatten_mapping(node)
    data = {}
    for key_node, value_node in node.value:
        file.lines[*place, key_node.value] = key_node.start_mark.line + 1
        data[key_node.value] = _plain(loader, value_node, (*place, key_node.value), file, inside)
    return data


def _line_of(error: yaml.YAMLError, text: str) -> int | None:
    if mark := getattr(error, "problem_mark", None):
        return int(mark.line) + 1
    position = getattr(error, "position", None)  # of a character that YAML does not allow
    return None if position is None else text.count("\n", 0, position) + 1


def _reason(error: yaml.YAMLError) -> str:
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return str(reason).strip().rstrip(".")
