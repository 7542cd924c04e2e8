"""From a plugin to its findings, kind by kind."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bakeoff import catalogue, registry
from bakeoff.contracts import Algorithm, Evaluator, Judge, Report, Task
from bakeoff.errors import PluginError
from bakeoff.registry import Kind

from . import algorithms, evaluators, judges, reports, tasks
from .lab import Lab, one_cpu, surroundings
from .promises import Check, Conformance, Finding, chosen, find
from .subject import Subject

CHECKS: Mapping[Kind, tuple[Check, ...]] = {
    "algorithm": algorithms.CHECKS,
    "task": tasks.CHECKS,
    "evaluator": evaluators.CHECKS,
    "judge": judges.CHECKS,
    "report": reports.CHECKS,
}


def examine(
    kind: Kind,
    plugin: type[Any] | str,
    settings: Mapping[str, Any] | None = None,
    *,
    only: Iterable[str] = (),
    say: Callable[[Finding], None] = lambda finding: None,
) -> Conformance:
    """Check a class or an installed plugin; ``"dpo:ipo"`` is an algorithm's preset. ``only`` names checks.

    ``say`` is told each finding as it is made. Raises ``PluginError`` for what cannot be checked at all: an unknown
    name, a class that is none of its kind, settings that are wrong or missing.
    """
    checks = chosen(CHECKS[kind], only)
    settings = dict(settings or {})
    with contextlib.ExitStack() as stack:
        stack.enter_context(surroundings())
        if isinstance(plugin, str):
            name, _, preset = plugin.partition(":")
            if preset:
                settings = {**registry.preset(kind, name, preset).settings, **settings}
        else:
            name = f"{plugin.__name__}, not installed"
            stack.enter_context(registry.lend(kind, name, plugin))
        loaded = registry.load(kind, name)
        _validate(kind, name, loaded, settings)
        info = catalogue.describe(kind, name)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bakeoff-check-")))
        subject: Any = Subject(loaded, info, settings)
        if kind == "algorithm":
            stack.enter_context(one_cpu())
            subject = Lab(loaded, info, settings, folder)
        elif kind == "report":
            subject = reports.Desk(loaded, info, folder)
        findings = find(checks, subject, say)
    shown = dataclasses.replace(info, name=plugin if isinstance(plugin, str) else loaded.__name__)
    return Conformance(shown, settings, _source(loaded), findings)


def check_algorithm(algorithm: type[Algorithm] | str, **settings: Any) -> Conformance:
    """Train a toy model and hold an algorithm to its promises; seconds on a CPU. Raises ``ConformanceError``."""
    return _kept("algorithm", algorithm, settings)


def check_task(task: type[Task] | str, **settings: Any) -> Conformance:
    """Hold a task's rows and rewards to its promises. Raises ``ConformanceError``."""
    return _kept("task", task, settings)


def check_evaluator(evaluator: type[Evaluator] | str, **settings: Any) -> Conformance:
    """Hold an evaluator's scores of a dozen samples to its promises. Raises ``ConformanceError``."""
    return _kept("evaluator", evaluator, settings)


def check_judge(judge: type[Judge] | str, **settings: Any) -> Conformance:
    """Hold a judge's verdicts on a few pairs to its promises. Raises ``ConformanceError``."""
    return _kept("judge", judge, settings)


def check_report(report: type[Report] | str) -> Conformance:
    """Hold what a report writes of a small run to its promises. Raises ``ConformanceError``."""
    return _kept("report", report, {})


def _kept(kind: Kind, plugin: type[Any] | str, settings: Mapping[str, Any]) -> Conformance:
    conformance = examine(kind, plugin, settings)
    conformance.raise_if_broken()
    return conformance


def _validate(kind: Kind, name: str, plugin: type[Any], settings: Mapping[str, Any]) -> None:
    if not hasattr(plugin, "Settings"):
        return
    try:
        plugin.Settings.model_validate(settings)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'settings'}: {each['msg']}" for each in error.errors())
        raise PluginError(
            f"{kind} {name!r} cannot be made with these settings: {told}.",
            fix="Give what it needs: keyword arguments in Python, --set NAME=VALUE on the command line.",
        ) from None


def _source(plugin: type[Any]) -> str:
    try:
        return registry.source_hash(plugin)
    except PluginError:
        return "no source file"
