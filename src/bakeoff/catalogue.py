"""What can be said of an installed plugin: its paper, its settings with their defaults, what it takes and gives."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from bakeoff import registry
from bakeoff.contracts import Metric
from bakeoff.errors import PluginError
from bakeoff.registry import Kind


@dataclass(frozen=True)
class Setting:
    """One setting of a plugin, as its class declares it. ``default`` is None when ``required``."""

    name: str
    type: str
    default: Any
    required: bool
    description: str
    """Its docstring: what it does, its typical range, where the default comes from."""
    bounds: str = ""
    """What a value must be, e.g. "> 0"."""


@dataclass(frozen=True)
class PresetInfo:
    """A published variant of an algorithm, written ``algorithm:name`` in a matrix."""

    name: str
    title: str
    paper: str
    settings: dict[str, Any]
    differs_from_paper: str


@dataclass(frozen=True)
class PluginInfo:
    """One plugin; ``error`` says why it cannot be used, if so."""

    name: str
    kind: Kind
    distribution: str
    version: str
    value: str
    """The entry point's target, ``module:Class``."""
    title: str = ""
    summary: str = ""
    """What it does: the first paragraph of its docstring."""
    paper: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    """What it consumes and what it gives, in words."""
    settings: tuple[Setting, ...] = ()
    presets: tuple[PresetInfo, ...] = ()
    error: str | None = None


def describe(kind: Kind, name: str) -> PluginInfo:
    """What the plugin of this name is. One that cannot be used says why in ``error`` instead of raising.

    Raises ``PluginError`` when no plugin has the name.
    """
    origin = registry.origin(kind, name)
    try:
        plugin = registry.load(kind, name)
        return PluginInfo(
            name,
            kind,
            *origin,
            title=plugin.title,
            summary=summary(plugin),
            paper=getattr(plugin, "paper", ""),
            facts=_facts(kind, plugin),
            settings=_settings(plugin),
            presets=_presets(plugin),
        )
    except PluginError as error:
        return PluginInfo(name, kind, *origin, error=str(error))
    except Exception as error:  # a default factory or a property of a stranger's class may raise anything
        told = f"{kind} {name!r} of {origin.distribution} cannot be described: {type(error).__name__}: {error}"
        return PluginInfo(name, kind, *origin, error=told)


def summary(plugin: type[Any]) -> str:
    """The first paragraph of the class's own docstring or, where it has none, of its module's; may be empty."""
    module = sys.modules.get(plugin.__module__)
    text = plugin.__dict__.get("__doc__") or getattr(module, "__doc__", None) or ""
    return " ".join(inspect.cleandoc(text).partition("\n\n")[0].split())


def _facts(kind: Kind, plugin: type[Any]) -> dict[str, str]:
    if kind == "algorithm":
        consumed = ", ".join(sorted(plugin.consumes)) if plugin.trains else "nothing: it leaves the policy as it is"
        facts = {"trains on": consumed or "nothing that a task gives"}
        if plugin.is_control:
            facts["role"] = "a control, held against the others"
        if plugin.trained_by:
            facts["trained by"] = plugin.trained_by
        if why := plugin.unavailable():
            facts["cannot run here"] = why
        return facts
    if kind == "task":
        metrics = {"training reward": plugin.reward_metric, "gold reward": plugin.gold_metric}
        # A task's settings may decide; then its instances have a metric where the class has none.
        return {name: _metric(metric) if metric else "none, or as its settings say" for name, metric in metrics.items()}
    if kind == "evaluator":
        measured = {f"metric {metric.name}": _metric(metric) for metric in plugin.metrics}
        return {"needs": ", ".join(sorted(plugin.needs)), **measured}
    return {}


def _metric(metric: Metric) -> str:
    better = {"higher": "higher is better", "lower": "lower is better", "none": "neither direction is better"}
    low = "-inf" if metric.low is None else f"{metric.low:g}"
    high = "inf" if metric.high is None else f"{metric.high:g}"
    return f"{metric.description.rstrip('.')}; {metric.unit}, {better[metric.direction]}, {low} to {high}"


def _settings(plugin: type[Any]) -> tuple[Setting, ...]:
    if not hasattr(plugin, "Settings"):
        return ()
    return tuple(
        Setting(
            name,
            _plain_type(info.annotation),
            None if info.is_required() else info.get_default(call_default_factory=True),
            info.is_required(),
            _description(plugin.Settings, name),
            _bounds(info.metadata),
        )
        for name, info in plugin.Settings.model_fields.items()
    )


def _description(settings: type[Any], name: str) -> str:
    """The field's docstring; that of a base class's field where this one only changes the default."""
    fields = [known[name] for base in settings.__mro__ if name in (known := getattr(base, "model_fields", {}))]
    return next((" ".join(field.description.split()) for field in fields if field.description), "")


def _bounds(constraints: list[Any]) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    told = [
        f"{sign} {getattr(constraint, name):g}"
        for constraint in constraints
        for name, sign in signs.items()
        if isinstance(getattr(constraint, name, None), int | float)
    ]
    return ", ".join(told)


def _plain_type(annotation: Any) -> str:
    """As a matrix would write its values: ``a | b`` for two literals, ``{name: float}`` for named numbers."""
    parts, origin = get_args(annotation), get_origin(annotation)
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin is Annotated:
        return _plain_type(parts[0])
    if origin in (Union, UnionType):
        return " | ".join("null" if part is type(None) else _plain_type(part) for part in parts)
    if origin is dict:
        return f"{{name: {_plain_type(parts[1])}}}"
    if isinstance(annotation, type) and not parts:
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("pathlib.", "")


def _presets(plugin: type[Any]) -> tuple[PresetInfo, ...]:
    presets: Mapping[str, Any] = getattr(plugin, "presets", {})
    return tuple(
        PresetInfo(name, each.title, each.paper, dict(each.settings), each.differs_from_paper)
        for name, each in presets.items()
    )
