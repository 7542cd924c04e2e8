"""Names to plugins by entry point: late loading, clear complaints, nothing special-cased for built-ins.

A plugin is found through the entry-point group of its kind (``bakeoff.algorithms``, ``bakeoff.tasks``,
``bakeoff.evaluators``, ``bakeoff.judges``, ``bakeoff.reports``). Listing names reads metadata only; a
module is imported when its name is asked for, so one broken plugin never hides the others.
"""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

from bakeoff.contracts import Algorithm, Evaluator, Judge, Metric, PluginSettings, Preset, Report, Task
from bakeoff.errors import PluginError

Kind = Literal["algorithm", "task", "evaluator", "judge", "report"]

BASES: dict[Kind, type] = {
    "algorithm": Algorithm,
    "task": Task,
    "evaluator": Evaluator,
    "judge": Judge,
    "report": Report,
}


class Origin(NamedTuple):
    """The distribution that a plugin is of, and the entry point's target, ``module:Class``.

    Of a name that several claim, the distributions, each with its version, and the targets, in one order.
    """

    distribution: str
    version: str
    value: str


_lent: dict[tuple[Kind, str], type[Any]] = {}


def names(kind: Kind) -> list[str]:
    """Names of the plugins of this kind, sorted. Imports none of them."""
    return sorted({point.name for point in _points(kind)} | {name for other, name in _lent if other == kind})


@contextmanager
def lend(kind: Kind, name: str, plugin: type[Any]) -> Iterator[None]:
    """Within the block, and in this process only, ``name`` is ``plugin``: for classes that are not installed.

    It hides an installed plugin of the name. Raises ``PluginError`` as ``load`` does.
    """
    before = _lent.get((kind, name))
    _lent[kind, name] = _kept_contract(kind, plugin, f"{kind} {name!r} ({plugin!r})")
    try:
        yield
    finally:
        del _lent[kind, name]
        if before is not None:
            _lent[kind, name] = before


@overload
def load(kind: Literal["algorithm"], name: str) -> type[Algorithm]: ...
@overload
def load(kind: Literal["task"], name: str) -> type[Task]: ...
@overload
def load(kind: Literal["evaluator"], name: str) -> type[Evaluator]: ...
@overload
def load(kind: Literal["judge"], name: str) -> type[Judge]: ...
@overload
def load(kind: Literal["report"], name: str) -> type[Report]: ...
@overload
def load(kind: Kind, name: str) -> type[Any]: ...
def load(kind: Kind, name: str) -> type[Any]:
    """The plugin class of this name.

    Raises ``PluginError`` when no plugin or more than one has the name, when its import fails, or
    when what it names is not a usable subclass of the kind's base class.
    """
    return _lent.get((kind, name)) or _imported(kind, _find(kind, name))


def preset(kind: Kind, name: str, preset: str) -> Preset:
    """The preset ``preset`` of the algorithm ``name``. Raises ``PluginError`` when it has none of that name."""
    known: Mapping[str, Preset] = getattr(load(kind, name), "presets", {})
    if preset not in known:
        close = nearest(preset, known)
        told = f" Did you mean {' or '.join(f'{name}:{each}' for each in close)}?" if close else ""
        raise PluginError(
            f"{kind} {name!r} has no preset {preset!r}.{told}",
            fix=f"Its presets: {', '.join(known) or 'none'}. Or give the settings themselves.",
        )
    return known[preset]


def variant(name: str, preset_name: str = "") -> Preset | type[Algorithm]:
    """What has the title and the paper of an algorithm as a matrix runs it: the preset's, or its own."""
    return preset("algorithm", name, preset_name) if preset_name else load("algorithm", name)


def source_hash(plugin: type) -> str:
    """sha256 over the plugin's source: its module, the siblings that it imports, its distribution's version.

    Siblings are modules reached by relative import, directly or through one another: an advantage
    function in a shared file changes the result as much as the class that calls it.

    Raises ``PluginError`` when the class has no source file (defined at a prompt or in a notebook).
    """
    digest = hashlib.sha256(_version_of(plugin.__module__).encode())
    for path in sorted(_source_files(plugin)):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def origin(kind: Kind, name: str) -> Origin:
    """Where the plugin of this name comes from, whether or not it can be used: imports nothing.

    Raises ``PluginError`` when no plugin has the name.
    """
    if lent := _lent.get((kind, name)):
        return Origin("not installed", "", f"{lent.__module__}:{lent.__qualname__}")
    claims = _claims(kind, name)
    if len(claims) == 1:
        return Origin(*_distribution(claims[0]), claims[0].value)
    who = " and ".join(" ".join(_distribution(point)).rstrip() for point in claims)
    return Origin(who, "", " and ".join(point.value for point in claims))


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Up to three known names that are spelled like this one, best first."""
    return difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'sft'?``, or nothing where no known name is near.

    The name of an algorithm is no misspelling: 'grpo' is never offered for 'gpro', nor the other way round.
    """
    close = [] if word in names("algorithm") else nearest(word, known)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


# --------------------------------------------------------------------------- finding entry points


def _points(kind: Kind) -> list[EntryPoint]:
    return _scan(f"bakeoff.{kind}s", tuple(sys.path))


@functools.lru_cache(maxsize=16)
def _scan(group: str, path: tuple[str, ...]) -> list[EntryPoint]:
    """The group's entry points. Reading every distribution's metadata is slow: once for each ``sys.path``."""
    return list(importlib.metadata.entry_points(group=group))


def _distribution(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else ("(unknown)", "")


def _claims(kind: Kind, name: str) -> list[EntryPoint]:
    """Every entry point of this name, more than one where distributions collide."""
    claims = [point for point in _points(kind) if point.name == name]
    if not claims:
        raise PluginError(f"no {kind} is called {name!r}.{_close(kind, name)}", fix=_installed(kind))
    return claims


def _find(kind: Kind, name: str) -> EntryPoint:
    claims = _claims(kind, name)
    if len(claims) > 1:
        who = " and ".join(f"{_distribution(point)[0]} ({point.value})" for point in claims)
        raise PluginError(
            f"{kind} {name!r} is claimed by {len(claims)} distributions: {who}.",
            fix="Uninstall all but one of them, or rename an entry point.",
        )
    return claims[0]


def _close(kind: Kind, name: str) -> str:
    """Names like the wrong one, each with its full title: 'gpro' and 'grpo' differ by one slip."""
    offered = [f"{plugin}:{name}" for plugin in names(kind) if name in _presets(kind, plugin)]
    if offered:
        return f" It is a preset: write {' or '.join(map(repr, offered))}."
    near = nearest(name, names(kind))
    # One that has the same letters is as near, however the letters that are missing count.
    close = near + [other for other in names(kind) if other not in near and sorted(other) in map(sorted, near)]
    told = [f"{each!r} ({title})" if (title := _title(kind, each)) else repr(each) for each in close]
    if not told:
        return ""
    return f" Did you mean {told[0]}?" if len(told) == 1 else f" Names like it: {', '.join(told)}."


def _title(kind: Kind, name: str) -> str:
    try:
        return str(load(kind, name).title)
    except PluginError:
        return ""


def _presets(kind: Kind, name: str) -> Mapping[str, Preset]:
    try:
        return getattr(load(kind, name), "presets", {})
    except PluginError:
        return {}


def _installed(kind: Kind) -> str:
    return (
        f"Installed: {', '.join(names(kind)) or 'none'}. An entry point that was added since "
        "the last install is seen after installing again (`pip install -e .`)."
    )


# ------------------------------------------------------------------------------- loading one


def _imported(kind: Kind, point: EntryPoint) -> type[Any]:
    """What the entry point names, if it keeps the contract of its kind."""
    who = f"{kind} {point.name!r} of {_distribution(point)[0]} ({point.value})"
    if not point.pattern.match(point.value):
        raise PluginError(
            f"{who} has an entry point that names no class: {point.value!r} is not of the form module:Class.",
            fix=f'Write it as {point.name} = "package.module:Class" in its pyproject.toml and install it again.',
        )
    try:
        plugin = point.load()
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"{who} cannot be imported: {type(error).__name__}: {error}", fix=_mend(point, error)
        ) from error
    return _kept_contract(kind, plugin, who)


def _kept_contract(kind: Kind, plugin: Any, who: str) -> type[Any]:
    """The plugin. Raises ``PluginError`` where it cannot be used as one of its kind."""
    base = BASES[kind]
    wrong = ""
    settings = getattr(plugin, "Settings", PluginSettings)
    if not (isinstance(plugin, type) and issubclass(plugin, base)):
        wrong = f"is not a subclass of bakeoff.contracts.{base.__name__}"
    elif inspect.isabstract(plugin):
        wrong = f"does not define {', '.join(sorted(getattr(plugin, '__abstractmethods__', ())))}()"
    elif not isinstance(getattr(plugin, "title", None), str):
        wrong = "has no `title`"
    elif not (isinstance(settings, type) and issubclass(settings, PluginSettings)):
        wrong = "has a `Settings` that is not a subclass of bakeoff.contracts.PluginSettings"
    elif taken := sorted({"name", "label"} & set(settings.model_fields)):
        wrong = f"has a setting called {taken[0]!r}, which a matrix file uses for itself"
    else:
        wrong = _misshapen(kind, plugin)
    if wrong:
        raise PluginError(f"{who} {wrong}.", fix="Mend the plugin or its entry point; see CONTRIBUTING.md.")
    return plugin


def _are_names(value: Any) -> bool:
    return isinstance(value, set | frozenset) and all(isinstance(name, str) for name in value)


def _are_metrics(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(metric, Metric) for metric in value)


def _are_presets(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(preset, Preset) and isinstance(preset.settings, Mapping)
        for name, preset in value.items()
    )


_FORMS: Mapping[Kind, Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "algorithm": {
        "consumes": (_are_names, 'a set of sources, such as frozenset({"demonstrations"})'),
        "presets": (_are_presets, 'a mapping from names to presets, such as {"ipo": Preset(title, paper, settings)}'),
    },
    "evaluator": {
        "metrics": (_are_metrics, "a tuple of bakeoff.contracts.Metric, such as (Metric(...),)"),
        "needs": (_are_names, 'a set of what it reads, such as frozenset({"samples"})'),
    },
}
"""What plans and lists read of every class, and so has to have its form for the others' sake. A source that nobody
knows and an evaluator without metrics stop none of them: `bakeoff plugins check` tells those."""


def _misshapen(kind: Kind, plugin: type[Any]) -> str:
    """What of the class has not the form that it has to have, or empty."""
    for name, (fits, form) in _FORMS.get(kind, {}).items():
        if not hasattr(plugin, name):
            return f"has no `{name}`, which has to be {form}"
        if not fits(value := getattr(plugin, name)):
            return f"has `{name} = {value!r}`, which has to be {form}"
    return ""


def _mend(point: EntryPoint, error: BaseException) -> str:
    missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    if missing and missing.split(".")[0] != _package(point):
        return f"Install {missing.split('.')[0]!r}, which the plugin needs."
    return f"Mend or uninstall {_distribution(point)[0]}; every other plugin still works."


# ------------------------------------------------------------------------------ source of one


def _version_of(module: str) -> str:
    """Version of the distribution whose entry points name this module's package, or empty."""
    package = module.partition(".")[0]
    points = (point for kind in BASES for point in _points(kind))
    return next((_distribution(point)[1] for point in points if _package(point) == package), "")


def _package(point: EntryPoint) -> str:
    return point.value.split(":")[0].split(".")[0]


def _source_files(plugin: type) -> set[Path]:
    module = plugin.__module__
    spec = importlib.util.find_spec(module) if module != "__main__" else None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise PluginError(
            f"{plugin.__qualname__} has no source file, so results cannot be tied to its code.",
            fix="Define the plugin in a module of an installed package.",
        )
    found: set[Path] = set()
    waiting = [Path(spec.origin)]
    while waiting:
        if (path := waiting.pop()) not in found:
            found.add(path)
            waiting.extend(_siblings(path))
    return found


def _siblings(path: Path) -> Iterable[Path]:
    """Files that this one imports relatively. By path: to find a module by name would import the one it is in."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1]
            places = [base := base.joinpath(*node.module.split("."))] if node.module else []
            places += [base / alias.name for alias in node.names]
            files = (file for place in places for file in (place.parent / f"{place.name}.py", place / "__init__.py"))
            yield from (file for file in files if file.is_file())
