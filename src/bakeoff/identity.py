"""The id of a cell: a hash of exactly what determines its result."""

from __future__ import annotations

import functools
import hashlib
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import bakeoff
from bakeoff import registry
from bakeoff.spec import IDENTITY, CellSpec, PluginSpec

SCHEMA_VERSION = 3
"""Raise it when what an id hashes changes, so that old and new ids never mix."""


def cell_id(cell: CellSpec, *, fingerprints: Mapping[str, str]) -> str:
    """16 hexadecimal digits that are equal exactly when the cell's result is meant to be.

    Hashed are the fields in ``IDENTITY`` with all defaults filled in, the source of each plugin, this
    package's version, and ``fingerprints``: hashes of what the cell stands on but does not hold. The
    entry "model" (of the weights' file) replaces the model's path, and a file or folder that a task's
    setting names counts by its content, so moving it retrains nothing. Labels do not count.
    """
    plugins = {"algorithm": cell.algorithm, "task": cell.task, "judge": cell.judge}
    parts: dict[str, Any] = {name: plain(getattr(cell, name)) for name in IDENTITY}
    parts |= {kind: plugin_identity(kind, plugin) for kind, plugin in plugins.items()}
    parts["evaluators"] = sorted(
        (plugin_identity("evaluator", plugin) for plugin in cell.evaluators), key=lambda part: part["name"]
    )
    parts["budget"].pop("name")
    parts["model"].pop("label")
    if "model" in fingerprints:
        parts["model"] |= {"folder": None, "gguf": None}
    for stage, part in zip(cell.warm_start, parts["warm_start"], strict=True):
        part["algorithm"] = plugin_identity("algorithm", stage.algorithm)
        part["budget"].pop("name")
    parts |= {
        "schema_version": SCHEMA_VERSION,
        "bakeoff": bakeoff.__version__,
        "fingerprints": dict(fingerprints),
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plugin_identity(kind: Any, spec: PluginSpec) -> dict[str, Any]:
    """What of a plugin and its settings determines a result: name, settings but transport, a hash of its source."""
    plugin = registry.load(kind, spec.name)
    settings = plain(plugin.Settings.model_validate(spec.settings))
    settings = {name: value for name, value in settings.items() if name not in plugin.Settings.transport}
    for name in path_fields(plugin.Settings):
        path = Path(str(settings.get(name)))
        if settings.get(name) is not None and path.exists():
            settings[name] = _content(path)
    return {"name": spec.name, "settings": settings, "source": registry.source_hash(plugin)}


def _content(path: Path) -> Any:
    """The hash of a file; of a folder, the names below it with theirs."""
    if path.is_dir():
        return {str(file.relative_to(path)): _content(file) for file in sorted(path.rglob("*")) if file.is_file()}
    return _file_hash(path, path.stat().st_size, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _file_hash(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def plain(value: Any) -> Any:
    """A settings object as JSON types, the same on every machine: sets sorted, no negative zero."""
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(inner) for inner in value), key=repr)
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value + 0.0
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def path_fields(settings: type[BaseModel]) -> dict[str, bool]:
    """Settings declared as a path; True where the annotation allows a plain string too (a hub id, say)."""
    parts = {name: parts_of(field.annotation) for name, field in settings.model_fields.items()}
    return {name: str in types for name, types in parts.items() if Path in types}


def parts_of(annotation: Any) -> set[Any]:
    """An annotation and the types that it is made of."""
    return {annotation}.union(*map(parts_of, typing.get_args(annotation)))
