"""Is a run good enough to pass? One exit code for a build to act on, and the reasons in words.

Against another run, every algorithm is compared with itself there, paired by seed and prompt; alone, with the
untrained policy of its own run. A regression is a difference in the wrong direction, larger than the margin and
significant after Holm's adjustment over all algorithms, or an algorithm that no longer trains. Controls are told and
not held: nobody would use one, so none can be too bad to pass. One that crashes is broken code all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import numpy as np
from scipy import stats

from .analysis.section import Section, sections
from .flags import flags
from .formats import fixed
from .frame import Results
from .records.lock import LOCKED_OUT
from .statistics import ALPHA, Estimate, holm, two_way

INFRASTRUCTURE = ("infra_error", "oom", "timeout")
"""Statuses that are the machine's failure as far as anybody can tell."""
BROKEN = ("plugin_error", "diverged")
"""Statuses that are the algorithm's own."""


class Code(IntEnum):
    """Exit codes of ``bakeoff gate``. Where several hold, the first of ``PRECEDENCE`` counts."""

    OK = 0
    REGRESSION = 1
    NOTHING_MEASURED = 2
    INFRASTRUCTURE = 3
    NOT_COMPARABLE = 4


PRECEDENCE = (Code.NOT_COMPARABLE, Code.REGRESSION, Code.INFRASTRUCTURE, Code.NOTHING_MEASURED)


@dataclass
class Gate:
    """The findings of one gate: (code, sentence) each."""

    findings: list[tuple[Code, str]] = field(default_factory=list)

    @property
    def code(self) -> Code:
        found = {code for code, _ in self.findings}
        return next((code for code in PRECEDENCE if code in found), Code.OK)


@dataclass(frozen=True)
class _Held:
    """An algorithm held against its reference: ``change`` is new less old, signed so that more is better."""

    what: str
    change: Estimate
    is_control: bool = False


def gate(results: Results, against: Results | None = None, *, margin: float = 0.0, metric: str = "") -> Gate:
    """Hold a run against another one, or against its own untrained policy.

    ``margin`` is the loss that does not matter, in the metric's unit; ``metric`` is the run's primary one unless
    named. Results that were read as ``mixed`` are compared across all that differs.
    """
    held: list[_Held] = []
    made = Gate()
    made.findings += _failures(results, against)
    made.findings += _red_flags(results, metric)
    if against is None:
        for section in sections(results):
            held += _against_baseline(section, metric)
    else:
        old = {section.title: section for section in sections(against)}
        new = {section.title: section for section in sections(results)}
        if not set(old) & set(new):
            made.findings.append((Code.NOT_COMPARABLE, "the runs share no task, model and budget"))
        for title in [title for title in old if title in new]:
            found, problems = _against_section(new[title], old[title], metric, mixed=results.mixed)
            held += found
            made.findings += problems
    contenders = [each for each in held if not each.is_control]
    if not contenders:
        made.findings.append((Code.NOTHING_MEASURED, "no contender has scores to hold against anything"))
    # Half of the two-sided p value: only a loss matters.
    adjusted = holm([_p_of_loss(each.change, margin) for each in contenders])
    for each, p in zip(contenders, adjusted, strict=True):
        lost = each.change.mean < -margin and (p < ALPHA)
        made.findings.append((Code.REGRESSION if lost else Code.OK, _told(each)))
    made.findings += [(Code.OK, f"{_told(each)} (a control: not held)") for each in held if each.is_control]
    return made


def _told(held: _Held) -> str:
    change = held.change
    interval = f"[{fixed(change.low, sign=True)}, {fixed(change.high, sign=True)}]"
    return f"{held.what}: {fixed(change.mean, sign=True)} {interval}, more is better"


def _controls(results: Results) -> frozenset[str]:
    """Labels of all rows that are held against others; the untrained policy is one."""
    return frozenset(
        name for section in sections(results) for name in (*section.controls, section.baseline) if name is not None
    )


def _p_of_loss(change: Estimate, margin: float) -> float:
    """One-sided p value of "no worse than ``-margin``"; without any spread the mean itself decides."""
    if change.se == 0:
        return 0.0 if change.mean < -margin else 1.0
    if not change.df > 0:
        return 1.0
    return float(stats.t.cdf((change.mean + margin) / change.se, change.df))


def _failures(results: Results, against: Results | None) -> Iterator[tuple[Code, str]]:
    """Cells that failed. One that failed of itself in both runs has got no worse, nor has a control that diverged."""
    codes = {**dict.fromkeys(INFRASTRUCTURE, Code.INFRASTRUCTURE), **dict.fromkeys(BROKEN, Code.REGRESSION)}
    place = ["model", "task", "budget", "algorithm", "seed"]
    old = against.cells if against is not None else results.cells.iloc[:0]
    broken = set(old.loc[old["status"].isin(BROKEN), place].itertuples(index=False, name=None))
    controls = _controls(results)
    for cell in results.cells.to_dict("records"):
        code = codes.get(cell["status"])
        lost = cell["status"] == "diverged" and cell["algorithm"] in controls
        if code is Code.REGRESSION and (lost or tuple(cell[key] for key in place) in broken):
            code = Code.OK
        if code is not None:
            yield code, f"{cell['algorithm']} seed {cell['seed']}: {cell['status']}: {cell['reason']}"


def _red_flags(results: Results, metric: str) -> Iterator[tuple[Code, str]]:
    """Flags that block the metric that decides, but those of controls alone; cells that the parity lock leaves out."""
    controls = _controls(results)
    for flag in flags(results):
        deciding = {metric} if metric else {section.primary.name for section in sections(results)}
        if flag.algorithms and controls.issuperset(flag.algorithms):
            continue
        if flag.blocks and (not flag.metrics or deciding & set(flag.metrics)):
            yield Code.NOT_COMPARABLE, f"{flag.title}: {flag.text}"
    for cell in results.cells[results.cells["status"] == LOCKED_OUT].to_dict("records"):
        yield Code.NOT_COMPARABLE, f"{cell['algorithm']} seed {cell['seed']}: {cell['reason']}"


def _against_baseline(section: Section, metric: str) -> Iterator[_Held]:
    name = metric or section.primary.name
    if section.baseline is None:
        return
    for algorithm in section.trained:
        change = _change(section, section, algorithm, section.baseline, name)
        if change is not None:
            what = f"{section.title}: {algorithm} against {section.baseline}, {name}"
            yield _Held(what, change, algorithm in section.controls)


def _against_section(
    new: Section, old: Section, metric: str, *, mixed: bool
) -> tuple[list[_Held], list[tuple[Code, str]]]:
    """Every algorithm that the old section measured, against itself; and what keeps that from being a comparison."""
    name = metric or old.primary.name
    problems: list[tuple[Code, str]] = []
    if not mixed:
        problems += [(Code.NOT_COMPARABLE, f"{new.title}: {text}") for text in _mismatches(new, old)]
    held = []
    controls = new.controls | old.controls | {old.baseline}
    for algorithm in old.finished:
        if algorithm not in new.finished:
            statuses = set(new.cells.loc[new.cells["algorithm"] == algorithm, "status"])
            if algorithm not in controls and not statuses & {*INFRASTRUCTURE, *BROKEN}:  # those are told already
                text = f"{new.title}: {algorithm} was measured then and is not now"
                problems.append((Code.NOTHING_MEASURED, text))
            continue
        change = _change(new, old, algorithm, algorithm, name)
        if change is None and algorithm in controls:
            continue
        if change is None:
            text = f"{new.title}: {algorithm} shares no seed and prompt with itself then, or has no {name}"
            problems.append((Code.NOT_COMPARABLE, text))
        else:
            held.append(_Held(f"{new.title}: {algorithm}, {name}", change, algorithm in controls))
    return held, problems


def _mismatches(new: Section, old: Section) -> Iterator[str]:
    """Budget and fields of ``parity`` that the two sections' cells do not share."""
    if new.limits != old.limits:
        yield f"the budget was {old.limits} and is {new.limits}"
    prints: list[dict[str, Any]] = []
    for section in (old, new):
        records = [section.results.record(cell) for cell in section.cells.loc[section.cells["status"] == "ok", "id"]]
        prints.append(next((record["parity"] for record in records if record.get("parity")), {}))
    for field_name, value in prints[0].items():
        other = prints[1].get(field_name)
        if value is not None and other is not None and value != other:
            yield f"{field_name} was {value} and is {other}"


def _change(new: Section, old: Section, algorithm: str, other: str, metric: str) -> Estimate | None:
    """``algorithm`` in ``new`` less ``other`` in ``old`` on shared seeds and prompts, more being better."""
    ours, theirs = new.grid(algorithm, metric), old.grid(other, metric)
    seeds, prompts = ours.index.intersection(theirs.index), ours.columns.intersection(theirs.columns)
    if not (len(seeds) and len(prompts)):
        return None
    change = new.direction(metric) * (
        ours.loc[seeds, prompts].to_numpy(float) - theirs.loc[seeds, prompts].to_numpy(float)
    )
    estimate = two_way(change)
    # Without any spread the interval is the point: the same cell held against itself, most of all.
    point = estimate.mean if np.ptp(change) == 0 else None
    return estimate if point is None else replace(estimate, se=0.0, low=point, high=point)
