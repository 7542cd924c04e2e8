"""What a check is, what it finds, and the report that one can paste into a pull request.

A check is a function: its name is the promise's name, its docstring the promise. It gets what is checked, and returns
what it saw, or raises ``Broken`` or ``DoesNotApply``.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import bakeoff
from bakeoff.catalogue import PluginInfo
from bakeoff.cataloguepage import cell
from bakeoff.errors import BakeoffError, PluginError, PluginFailure
from bakeoff.registry import nearest

Check = Callable[[Any], str]
Verdict = Literal["kept", "broken", "does not apply", "not reached"]

STATIC = "described"
"""The check that runs nothing of the plugin: it hangs on no other, and no other hangs on it."""


class Broken(Exception):  # noqa: N818
    """A promise is not kept: what happened, and how to mend it."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(found)
        self.found, self.fix = found, fix


class DoesNotApply(Exception):  # noqa: N818
    """The promise says nothing of this plugin, for this reason."""


class ConformanceError(AssertionError):
    """Raised by ``check_algorithm`` and its siblings: every broken promise, each with its mending."""


@dataclass(frozen=True)
class Finding:
    """What one check found. ``fix`` is empty unless the promise is broken."""

    name: str
    promise: str
    verdict: Verdict
    found: str
    fix: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.name}\n  promised: {self.promise}\n  happened: {self.found}\n  to mend:  {self.fix}"


@dataclass(frozen=True)
class Conformance:
    """All findings on one plugin, with what they are about."""

    plugin: PluginInfo
    settings: dict[str, Any]
    source: str
    """sha256 over the plugin's source, or why there is none."""
    findings: Sequence[Finding]

    @property
    def broken(self) -> list[Finding]:
        """The promises that are not kept."""
        return [finding for finding in self.findings if finding.verdict == "broken"]

    @property
    def seconds(self) -> float:
        return sum(finding.seconds for finding in self.findings)

    def markdown(self) -> str:
        """The report: what was checked, in what environment, and what was found."""
        kept = sum(finding.verdict == "kept" for finding in self.findings)
        info = self.plugin
        origin = f"of {info.distribution} {info.version}" if info.version else info.distribution
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        lines = [
            f"### Conformance of {info.kind} `{info.name}`: {'passed' if not self.broken else 'failed'}",
            "",
            f"{info.title}. {kept} promises kept, {len(self.broken)} broken, "
            f"{len(self.findings) - kept - len(self.broken)} not checked, in {self.seconds:.0f} s.",
            "",
            f"`{info.value}` {origin}, source `{self.source[:16]}`, "
            f"settings {settings or 'as by default'}; bakeoff {bakeoff.__version__}, {_environment()}.",
            "",
            "| promise | | what was seen |",
            "|---|---|---|",
        ]
        mark = {"kept": "kept", "broken": "**broken**"}
        lines += [
            f"| {finding.name}: {cell(finding.promise)} | {mark.get(finding.verdict, finding.verdict)} | "
            f"{cell(finding.found)} |"
            for finding in self.findings
        ]
        for finding in self.broken:
            lines += ["", f"**{finding.name}**: {cell(finding.found)}", "", f"To mend it: {cell(finding.fix)}"]
        return "\n".join(lines) + "\n"

    def raise_if_broken(self) -> None:
        """Raises ``ConformanceError`` that tells each broken promise."""
        if self.broken:
            told = "\n".join(map(str, self.broken))
            raise ConformanceError(
                f"{self.plugin.kind} {self.plugin.name!r} breaks {len(self.broken)} of its promises:\n{told}"
            )


def find(checks: Sequence[Check], subject: Any, say: Callable[[Finding], None] = lambda finding: None) -> list[Finding]:
    """Run the checks in order and tell each finding as it is made.

    When the first that runs the plugin fails, those after it are not reached, but for the static one.
    """
    findings: list[Finding] = []
    failed = ""
    first = _first(checks)
    for check in checks:
        if failed and check.__name__ != STATIC:
            finding = Finding(check.__name__, _promise(check), "not reached", f"{failed} failed")
        else:
            finding = _find(check, subject)
        if check is first and finding.verdict == "broken":
            failed = finding.name
        findings.append(finding)
        say(finding)
    return findings


def _first(checks: Sequence[Check]) -> Check | None:
    """The first check that runs the plugin: the others of its kind say nothing of one that does not run."""
    return next((check for check in checks if check.__name__ != STATIC), None)


def _find(check: Check, subject: Any) -> Finding:
    started = time.perf_counter()
    verdict: Verdict = "broken"
    fix = ""
    try:
        verdict, found = "kept", check(subject)
    except DoesNotApply as reason:
        verdict, found = "does not apply", str(reason)
    except Broken as broken:
        verdict, found, fix = "broken", broken.found, broken.fix
    except Exception as error:
        cause = _cause(error)
        fix = cause.fix if isinstance(cause, BakeoffError) else ""
        fix = fix or f"Mend what raised it: {_where(cause, subject.plugin)}."
        verdict, found = "broken", told(error)
    return Finding(check.__name__, _promise(check), verdict, found, fix, time.perf_counter() - started)


def told(error: BaseException) -> str:
    """An exception in one line, with the one under it that a plugin raised; how to mend it is told apart."""
    cause = _cause(error)
    message = str(cause.args[0]) if isinstance(cause, BakeoffError) else str(cause)
    return f"{type(cause).__name__}: {' '.join(message.split())}"


def _cause(error: BaseException) -> BaseException:
    return error.__cause__ if isinstance(error, PluginFailure) and error.__cause__ else error


def _where(error: BaseException, plugin: type[Any]) -> str:
    """The innermost line of the plugin's own file or, where it has none in it, outside of installed libraries."""
    frames = traceback.extract_tb(error.__traceback__)
    file = getattr(sys.modules.get(plugin.__module__), "__file__", None)
    own = [frame for frame in frames if frame.filename == file]
    own = own or [frame for frame in frames if "site-packages" not in frame.filename] or list(frames)
    return f"{own[-1].filename}:{own[-1].lineno}" if own else "no traceback"


def chosen(checks: Sequence[Check], only: Iterable[str]) -> list[Check]:
    """The checks of these names, in order; all when ``only`` is empty.

    With them comes the first that runs the plugin, without which no other that does makes sense.

    Raises ``PluginError`` for a name that no check has.
    """
    known = {check.__name__: check for check in checks}
    wanted = list(only)
    for name in wanted:
        if name not in known:
            close = nearest(name, known)
            raise PluginError(
                f"there is no check {name!r}.{f' Did you mean {close[0]!r}?' if close else ''}",
                fix=f"Checks: {', '.join(known)}.",
            )
    if not wanted:
        return list(checks)
    first = None if set(wanted) == {STATIC} else _first(checks)
    return [check for check in checks if check.__name__ in wanted or check is first]


def _promise(check: Check) -> str:
    return " ".join((check.__doc__ or "").split())


def _environment() -> str:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    named = []
    for package in ("torch", "transformers", "trl", "peft"):
        try:
            named.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join([f"Python {platform.python_version()}", *named])
