"""From a matrix file's data to a MatrixSpec: every problem is noted at its line and told at once."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bakeoff import registry
from bakeoff.errors import PluginError
from bakeoff.identity import parts_of, path_fields, plain
from bakeoff.matrixfile import MatrixFile, Place, label_of
from bakeoff.registry import did_you_mean
from bakeoff.spec import (
    AlgorithmSpec,
    AnalysisSpec,
    BudgetSpec,
    EvaluationSpec,
    LoraSpec,
    MatrixSpec,
    ModelSpec,
    PluginSpec,
    PreparationSpec,
    ScheduleSpec,
    WarmStartSpec,
)
from bakeoff.store import NAME

AXES = ("model", "task", "budget", "algorithm", "seed")
SOURCES = ("folder", "hub", "gguf", "package")
MAX_SEEDS = 1000
"""A count above it is taken for a seed that was meant as one: 20240101."""

SpecT = TypeVar("SpecT", bound=BaseModel)
ItemT = TypeVar("ItemT")


class MatrixReader:
    """Turns a file's data into a MatrixSpec; notes every problem and raises them together."""

    def __init__(self, file: MatrixFile, stock_budgets: Mapping[str, Mapping[str, Any]]) -> None:
        self.file = file
        self.stock_budgets = stock_budgets

    def matrix(self) -> MatrixSpec:
        """The spec. Raises ``MatrixError`` with every problem that was found."""
        # A key without a value is a key that is not there.
        data = {key: value for key, value in self.file.data.items() if value is not None}
        evaluators = self.axis("evaluators", functools.partial(self.plugin, "evaluator"))
        read = {
            "models": self.axis("models", self.model),
            "tasks": self.axis("tasks", functools.partial(self.plugin, "task")),
            "budgets": self.axis("budgets", self.budget),
            "algorithms": self.axis("algorithms", self.algorithm),
            "evaluators": evaluators,
            "judge": self.plugin("judge", data.get("judge"), ("judge",)),
            "seeds": self.seeds(data.get("seeds")),
            "analysis": self.section(AnalysisSpec, "analysis"),
            "lora": self.section(LoraSpec, "lora"),
            "evaluation": self.section(EvaluationSpec, "evaluation"),
            "preparation": self.section(PreparationSpec, "preparation"),
            "schedule": self.section(ScheduleSpec, "schedule"),
        }
        fields = {"name": Path(self.file.name).stem, **data, **read}
        if not NAME.fullmatch(str(fields["name"])):
            form = "letters, digits, '.', '_' and '-', beginning with a letter or a digit"
            self.file.problem(("name",), f"is {fields['name']!r}, but names a folder: {form}.")
        fields["warm_start"] = self.warm_start(data.get("warm_start"))
        fields |= {key: self.rules(key, read) for key in ("include", "exclude")}
        if evaluators is not None:
            self.primary_metric(evaluators)
        # What is None has told its problems already.
        told = {key for key, value in read.items() if value is None}
        spec = self.build(MatrixSpec, fields, (), "a matrix file", skip=told)
        self.file.raise_problems()
        assert spec is not None
        return spec

    def axis(self, key: str, item: Callable[[Any, Place], ItemT | None]) -> tuple[ItemT, ...] | None:
        """All entries of an axis; None when one has a problem. Labels and contents must be unique."""
        entries = self.file.data.get(key)
        if not isinstance(entries, list) or not entries:
            problem = "is missing" if entries is None else f"is {entries!r}"
            self.file.problem((key,), f"{problem}, but has to be a list with at least one entry.")
            return None
        read = [item(entry, (key, index)) for index, entry in enumerate(entries)]
        labels: dict[str, int] = {}
        contents: dict[str, int] = {}
        for index, entry in enumerate(read):
            if not isinstance(entry, BaseModel):
                continue
            label = called(entry)
            content = json.dumps(
                plain(entry.model_copy(update={_label_field(entry): "", "preset": ""})), sort_keys=True
            )
            if label in labels:
                self.file.problem(
                    (key, index),
                    f"a second entry is called {label!r} (the first is {key}[{labels[label]}]), and tables could "
                    f"not tell them apart. Give one of them another `{_label_field(entry)}`.",
                )
            elif content in contents:
                self.file.problem(
                    (key, index),
                    f"{label!r} is the same as {key}[{contents[content]}] in everything but its label, so every "
                    "cell would be trained twice. Remove one of them.",
                )
            labels.setdefault(label, index)
            contents.setdefault(content, index)
        done = tuple(entry for entry in read if entry is not None)
        return done if len(done) == len(read) else None

    def plugin(self, kind: registry.Kind, entry: Any, place: Place) -> PluginSpec | None:
        """An entry that names a plugin, its settings checked and completed by the plugin's own class."""
        if isinstance(entry, str):
            entry = {"name": entry}
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            self.file.problem(
                place, f"is {entry!r}, but has to be the name of the {kind} or {{name: ..., setting: ...}}."
            )
            return None
        name, _, preset = entry["name"].partition(":")
        try:
            plugin = registry.load(kind, name)
            chosen = registry.preset(kind, name, preset).settings if preset else {}
        except PluginError as error:
            self.file.problem(place, " ".join(str(error).split()))
            return None
        settings = {key: value for key, value in entry.items() if key not in ("name", "label")}
        resolved = {**chosen, **settings, **self.paths(plugin.Settings, settings, place)}
        try:
            built = self.build(plugin.Settings, resolved, place, entry["name"], noun="setting")
            settings = plain(built) if built else {}
        except Exception as error:  # of a default or a validator, which are the plugin's own code
            told = " ".join(f"{type(error).__name__}: {error}".split())
            self.file.problem(
                place, f"the settings of {kind} {name!r} raised {told}. Mend or uninstall the plugin, or leave it out."
            )
            return None
        if built is None:
            return None
        return PluginSpec(name=name, preset=preset, label=label_of(entry), settings=settings)

    def algorithm(self, entry: Any, place: Place) -> AlgorithmSpec | None:
        """A plugin whose entry may say what of the section ``preparation`` is another for it."""
        entry, own = (dict(entry), entry.get("preparation")) if isinstance(entry, dict) else (entry, None)
        if own is not None:
            del entry["preparation"]
        plugin = self.plugin("algorithm", entry, place)
        own = {} if own is None else own
        fits = self.build(PreparationSpec, own, (*place, "preparation"), "the section preparation")
        return AlgorithmSpec(**dict(plugin), preparation=own) if plugin and fits else None

    def paths(self, settings: type[BaseModel], given: Mapping[str, Any], place: Place) -> dict[str, str]:
        """The settings that are declared as paths, made absolute. Each must exist."""
        found = {}
        for name, optional in path_fields(settings).items():
            if isinstance(given.get(name), str) and (path := self.path(given[name], (*place, name), optional)):
                found[name] = str(path)
        return found

    def path(self, text: str, place: Place, optional: bool = False) -> Path | None:
        """A path in the file starts at the file's folder, one given by an override at the current folder."""
        folder = Path.cwd() if self.file.edit_of(place) else self.file.folder
        path = (folder / Path(text).expanduser()).resolve()
        if path.exists():
            return path
        if not optional:
            self.file.problem(place, f"{text!r} does not exist; it was looked for as {path}.")
        return None

    def model(self, entry: Any, place: Place) -> ModelSpec | None:
        given = [source for source in SOURCES if isinstance(entry, dict) and entry.get(source) is not None]
        if len(given) != 1:
            told = f"{' and '.join(given)} are given" if given else f"{entry!r} has no source"
            meant = _meant(entry, SOURCES, ModelSpec.model_fields)
            self.file.problem(
                place, f"{told}, but a model has exactly one of {', '.join(SOURCES)}, such as {{hub: org/name}}.{meant}"
            )
            return None
        fields = {"label": label_of(entry), **entry}
        if given[0] in ("folder", "gguf"):
            path = self.path(str(entry[given[0]]), (*place, given[0]))
            if path is None:
                return None
            fields[given[0]] = path
        return self.build(ModelSpec, fields, place, "a model")

    def budget(self, entry: Any, place: Place) -> BudgetSpec | None:
        """A stock budget's name, or a budget written out: ``{name: quick, flops: 6.0e12}``."""
        if isinstance(entry, str):
            if entry not in self.stock_budgets:
                known = ", ".join(sorted(self.stock_budgets))
                self.file.problem(
                    place,
                    f"no stock budget is called {entry!r}.{did_you_mean(entry, self.stock_budgets)} "
                    f"There are: {known}. Or write one out: {{name: mine, steps: 100}}.",
                )
                return None
            entry = {"name": entry, **self.stock_budgets[entry]}
        budget = self.build(BudgetSpec, entry, place, "a budget")
        if budget is not None and not budget.limits():
            self.file.problem(
                place, f"budget {budget.name!r} limits nothing. Give it steps, prompts, flops or seconds."
            )
            return None
        return budget

    def seeds(self, entry: Any) -> tuple[int, ...] | None:
        """A count n means the seeds 0 to n - 1; a list means itself."""
        if isinstance(entry, int) and not isinstance(entry, bool) and 1 <= entry <= MAX_SEEDS:
            return tuple(range(entry))
        fits = isinstance(entry, list) and entry and all(type(seed) is int and 0 <= seed < 2**32 for seed in entry)
        if not fits or len(set(entry)) < len(entry):
            told = "is missing" if entry is None else f"is {entry!r}"
            self.file.problem(
                ("seeds",),
                f"{told}, but has to be how many there are, {MAX_SEEDS} at most, or a list of distinct integers from "
                "0 to 2^32 - 1.",
            )
            return None
        return tuple(entry)

    def section(self, model: type[SpecT], key: str) -> SpecT | None:
        given = self.file.data.get(key)
        return self.build(model, {} if given is None else given, (key,), f"the section {key}")

    def warm_start(self, entry: Any) -> tuple[WarmStartSpec, ...]:
        """One stage or a list of them."""
        if entry is None:
            return ()
        stages = entry if isinstance(entry, list) else [entry]
        read = []
        for index, stage in enumerate(stages):
            place: Place = ("warm_start", index) if isinstance(entry, list) else ("warm_start",)
            if not isinstance(stage, dict) or set(stage) != {"algorithm", "budget"}:
                meant = _meant(stage, WarmStartSpec.model_fields, WarmStartSpec.model_fields)
                self.file.problem(
                    place, f"is {stage!r}, but has to be {{algorithm: ..., budget: ...}}, or a list of these.{meant}"
                )
                continue
            algorithm = self.plugin("algorithm", stage["algorithm"], (*place, "algorithm"))
            budget = self.budget(stage["budget"], (*place, "budget"))
            if algorithm and (why := _no_start(algorithm.name)):
                self.file.problem(
                    (*place, "algorithm"),
                    f"{algorithm.name} {why}, so a warm start of it changes nothing. Take it out of warm_start, "
                    "or give a stage that trains the policy, such as sft.",
                )
            elif algorithm and budget:
                read.append(WarmStartSpec(algorithm=algorithm, budget=budget))
        return tuple(read)

    def rules(self, key: str, axes: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The include or exclude rules, each name checked against the labels of its axis."""
        entries = self.file.data.get(key)
        rules = [entries] if isinstance(entries, dict) else [] if entries is None else entries
        if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
            self.file.problem((key,), f"is {entries!r}, but has to be a list of {{task: ..., algorithm: ...}}.")
            return []
        for index, rule in enumerate(rules):
            for axis, wanted in rule.items():
                place: Place = (key, index, axis) if isinstance(entries, list) else (key, axis)
                if axis in AXES and axes[f"{axis}s"] is None:
                    continue
                if wanted == []:
                    self.file.problem(
                        place, f"is empty, so the rule would hold for no cell. Name one, or leave {axis} out."
                    )
                for value in wanted if isinstance(wanted, list) else [wanted]:
                    if problem := unknown_label(axis, str(value), axes.get(f"{axis}s")):
                        self.file.problem(place, problem)
        return rules

    def build(
        self,
        model: type[SpecT],
        data: Any,
        place: Place,
        what: str,
        *,
        noun: str = "key",
        skip: Collection[str | int] = (),
    ) -> SpecT | None:
        """Validate ``data``; note each of pydantic's complaints at its line, and return None if there is one."""
        try:
            return model.model_validate(data)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                if not detail["loc"] or detail["loc"][0] not in skip:
                    self.file.problem((*place, *_location(detail, data)), _told(detail, model, what, noun))
            return None

    def primary_metric(self, evaluators: Iterable[PluginSpec]) -> None:
        """What decides has to be measured, unless it is the default. ``name@judge`` is of a later ``bakeoff score``."""
        analysis = self.file.data.get("analysis")
        named = analysis.get("primary_metric") if isinstance(analysis, dict) else None
        if not isinstance(named, str) or named == AnalysisSpec().primary_metric or "@" in named:
            return
        known = [metric.name for each in evaluators for metric in registry.load("evaluator", each.name).metrics]
        if named not in known:
            self.file.problem(
                ("analysis", "primary_metric"),
                f"no evaluator of the matrix measures {named!r}.{did_you_mean(named, known)} "
                f"They measure: {', '.join(known)}.",
            )


def unknown_label(axis: str, value: str, entries: Iterable[Any] | None) -> str:
    if axis not in AXES:
        return f"{axis!r} is no axis.{did_you_mean(axis, AXES)} The axes: {', '.join(AXES)}."
    labels = [called(entry) for entry in entries or ()]
    if value in labels:
        return ""
    return f"no {axis} is called {value!r}.{did_you_mean(value, labels)} The matrix has: {', '.join(labels)}."


def _no_start(name: str) -> str:
    """Why the algorithm leaves the policy where it was, or empty."""
    algorithm = registry.load("algorithm", name)
    if not algorithm.trains:
        return "does not train"
    return "" if algorithm.role == "policy" else f"trains the {algorithm.role} model and not the policy"


def called(entry: Any) -> str:
    return str(getattr(entry, _label_field(entry))) if isinstance(entry, BaseModel) else str(entry)


def _label_field(entry: BaseModel) -> str:
    return "label" if "label" in type(entry).model_fields else "name"


def _location(detail: Mapping[str, Any], data: Any) -> Place:
    """Pydantic's location without the tags that it adds for unions: as far as the file's data goes."""
    if detail["type"] == "missing":
        return detail["loc"]
    place: Place = ()
    for key in detail["loc"]:
        try:
            data = data[key]
        except (LookupError, TypeError):
            break
        place += (key,)
    return place


def _told(detail: Mapping[str, Any], model: type[BaseModel], what: str, noun: str) -> str:
    key = str(detail["loc"][-1]) if detail["loc"] else ""
    owner = _owner(model, detail["loc"])
    whose = what if owner is model else str(detail["loc"][-2])
    known = sorted(owner.model_fields)
    got = detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown {noun} {key!r} of {whose}.{did_you_mean(key, known)} It has: {', '.join(known) or 'none'}."
        case "missing":
            return f"{whose} needs {key!r}. {_doc(owner, key)}".strip()
        case "model_type" | "dict_type":
            return f"is {got!r}, but has to be a mapping: {{key: value}}."
    message = detail["msg"].removeprefix("Value error, ")
    if not detail["loc"]:
        return f"{what}: {message}."
    near = did_you_mean(got, re.findall(r"'([^']*)'", message)) if isinstance(got, str) else ""
    doc = _doc(owner, key) or _doc(model, str(detail["loc"][0]))
    return f"{message[:1].lower()}{message[1:]}, got {got!r}.{near} {doc}".strip()


def _owner(model: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel]:
    """The model, inside ``model`` or itself, that has what pydantic calls ``location`` as a field."""
    for key in location[:-1]:
        field = model.model_fields.get(str(key))
        parts = parts_of(field.annotation) if field else set()
        inner = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
        if len(inner) != 1:
            break
        model = inner[0]
    return model


def _meant(entry: Any, names: Iterable[str], known: Collection[str]) -> str:
    """Which of ``names`` the keys that nobody knows may stand for."""
    unknown = [key for key in entry if key not in known] if isinstance(entry, dict) else []
    return "".join(dict.fromkeys(did_you_mean(key, names) for key in unknown))


def _doc(model: type[BaseModel], field: str) -> str:
    info = model.model_fields.get(field)
    return " ".join((info.description or "").split()) if info else ""
