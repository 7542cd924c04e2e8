"""Red flags: what a careful reader would want to know before believing a report. Pure functions on its results.

``flags(results)`` is data; every form of the report shows it. A flag that blocks says that a comparison is not one;
any other says what to bear in mind. Each detector stands in ``DETECTORS``, and a test plants its defect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bakeoff.declaration import RULES
from bakeoff.matrix import selects

from .analysis.section import Section, sections
from .formats import phrase
from .frame import Results
from .records.evidence import output_of, unlisted_cells
from .records.lock import LOCKED_OUT
from .records.scored import scorings
from .statistics import paired_difference
from .tables.judged import judged

TOLERANCE = 0.05
"""Shares of a budget may differ by this and by one step, since training ends with a whole step."""
ENOUGH_PROMPTS = 8
"""Fewer texts that are all the same may be chance."""
UNANSWERED = 0.1
"""Share of a judge's comparisons without a verdict from which on it is said."""
CUT = 0.5
"""Share of completions cut at the length limit from which on it is said."""
PRECISION = ("precision", "dtype", "device")
"""Fields of ``parity`` that are about arithmetic."""
PENDING = ("ok", "incompatible", "not_run", "running", LOCKED_OUT)


@dataclass(frozen=True)
class Flag:
    """One thing that is wrong, in one sentence with its numbers."""

    kind: str
    """A key of ``DETECTORS``."""
    text: str
    section: str = ""
    """Title of the section; empty for the whole run."""
    algorithms: tuple[str, ...] = ()
    """Labels that it is about; empty for all of the section."""
    blocks: bool = False
    """Whether comparisons of these algorithms, on ``metrics`` where there are any, decide nothing."""
    metrics: tuple[str, ...] = ()
    spares: tuple[str, ...] = ()
    """Labels that they can be compared with all the same."""

    @property
    def level(self) -> Literal["blocks", "mind"]:
        return "blocks" if self.blocks else "mind"

    @property
    def title(self) -> str:
        return phrase(self.kind)


def flags(results: Results) -> tuple[Flag, ...]:
    """All flags of a run, those that block first; found once."""
    if "flags" not in results.memo:
        found = [flag for detect in DETECTORS.values() for flag in detect(results)]
        results.memo["flags"] = tuple(sorted(found, key=lambda flag: not flag.blocks))
    made: tuple[Flag, ...] = results.memo["flags"]
    return made


def blocking(section: Section, a: str, b: str, metric: str) -> Flag | None:
    """The first flag that keeps a comparison of ``a`` with ``b`` on ``metric`` from deciding anything.

    Under an equal amount of a currency it is no matter what part of the budget each spent in the end.
    """
    for flag in flags(section.results):
        if flag.kind == unequal_budget.__name__ and section.currency:
            continue
        here = flag.section in ("", section.title) and (not flag.algorithms or {a, b} & set(flag.algorithms))
        if flag.blocks and here and not {a, b} & set(flag.spares) and (not flag.metrics or metric in flag.metrics):
            return flag
    return None


def _ok(section: Section) -> Mapping[str, list[tuple[int, str]]]:
    """By algorithm: (seed, cell id) of the cells that ended well."""
    done = section.cells[section.cells["status"] == "ok"]
    return {str(name): [(int(seed), str(cell)) for seed, cell in zip(rows["seed"], rows["id"], strict=True)]
            for name, rows in done.groupby("algorithm", sort=False, observed=True)}  # fmt: skip


# ---------------------------------------------------------------------------------------- detectors


def hacked_judge(results: Results) -> Iterator[Flag]:
    """A judge that falls for a canary, or agrees with the gold reward less than a coin."""
    for section in sections(results):
        for each in judged(section):
            label = each.scoring.label
            metrics = [f"win_rate@{label}", *(["win_rate"] if _is_own(results, section, label) else [])]
            for why in each.audit.failures:
                yield Flag(
                    "hacked_judge", f"Judge {label} is not to be believed: {why}.", section.title, (), True, (*metrics,)
                )


def _is_own(results: Results, section: Section, label: str) -> bool:
    specs = (results.record(cell).get("spec") or {} for cell in section.cells["id"])
    return any((spec.get("judge") or {}).get("label") == label for spec in specs)


def silent_judge(results: Results) -> Iterator[Flag]:
    """A judge that gave no verdict on many comparisons: what is left may not stand for all."""
    for section in sections(results):
        for each in judged(section):
            if each.audit.invalid > UNANSWERED:
                yield Flag(
                    "silent_judge",
                    f"Judge {each.scoring.label} gave no verdict on {each.audit.invalid:.0%} of comparisons.",
                    section.title,
                )


def leaked_prompt(results: Results) -> Iterator[Flag]:
    """Test prompts that stand in the training rows, exactly or almost."""
    for section in sections(results):
        found = [(results.record(cell).get("data") or {}).get("overlap") or {} for cell in section.cells["id"]]
        for kind, what, blocks in (("exact", "training prompts too", True), ("near", "nearly training prompts", False)):
            worst = max(found, key=lambda overlap: overlap.get(kind, 0), default={})
            if count := worst.get(kind, 0):
                before = 0 if blocks else worst["exact"]  # the examples of exact ones come first
                names = ", ".join(map(str, worst["examples"][before : before + 3]))
                many = f"{count} test prompts are" if count > 1 else "1 test prompt is"
                text = f"{many} {what}{f', such as {names}' if names else ''}."
                yield Flag("leaked_prompt", text, section.title, (), blocks)


def unequal_budget(results: Results) -> Iterator[Flag]:
    """Trained algorithms that spent different shares of the budget, or more than all of it."""
    for section in sections(results):
        trained = [name for name in section.trained if name not in section.idle]
        shares = {name: found for name in trained if (found := _spent(section, name)) is not None}
        if not shares:
            continue
        fullest = max(shares, key=lambda name: min(1.0, shares[name][0]))
        for name, (share, step) in shares.items():
            slack = TOLERANCE + max(step, shares[fullest][1])
            spared: list[str] = []
            if share > 1 + slack:
                text = f"{name} spent {share:.0%} of the budget."
            elif min(1.0, shares[fullest][0]) - share > slack:
                text = f"{name} spent {share:.0%} of the budget, {fullest} {shares[fullest][0]:.0%}."
                # What it won over the untrained policy it won with less, and those who spent as little are its equals.
                spared = [
                    other for other in section.finished if abs(shares.get(other, (share, 0.0))[0] - share) <= slack
                ]
            else:
                continue
            spares = tuple(other for other in spared if other != name)
            yield Flag("unequal_budget", text, section.title, (name,), True, spares=spares)


def _spent(section: Section, name: str) -> tuple[float, float] | None:
    """(largest share of a limit, mean over seeds; share of one step), None without a limit or a ledger."""
    done = section.cells[(section.cells["algorithm"] == name) & (section.cells["status"] == "ok")]
    shares = [float(done[f"spent_{currency}"].mean()) / limit for currency, limit in section.limits.items()]
    steps = float(done["spent_steps"].mean())
    if not shares or not np.isfinite(shares).any():
        return None
    return float(np.nanmax(shares)), 1 / steps if steps > 0 else 1.0


def dead_seed(results: Results) -> Iterator[Flag]:
    """A seed that learned nothing, collapsed to one text, or is a copy of another seed."""
    for section in sections(results):
        done = _ok(section)
        start = {seed: output_of(results, cell) for seed, cell in done.get(section.baseline or "", [])}
        for name in section.trained:
            if name in section.idle:
                continue
            outputs = {seed: output_of(results, cell) for seed, cell in done.get(name, [])}
            for seed, output in outputs.items():
                if output.prompts < ENOUGH_PROMPTS:
                    continue
                said = ""
                if seed in start and output.text == start[seed].text:
                    said = f"learned nothing: its samples are those of {section.baseline}"
                elif output.distinct == 1:
                    said = "gives one and the same text to every prompt"
                if said:
                    yield Flag("dead_seed", f"{name} seed {seed} {said}.", section.title, (name,))
                twin = next((s for s, other in outputs.items() if s < seed and other.text == output.text), None)
                if twin is not None and output.distinct > 1:
                    text = f"{name} seeds {twin} and {seed} gave the same samples: they are one seed, counted twice."
                    yield Flag("dead_seed", text, section.title, (name,), True)


def no_signal(results: Results) -> Iterator[Flag]:
    """Every completion of every algorithm has one and the same score: nothing can be told apart by it."""
    for section in sections(results):
        metric = section.primary.name
        scores = [section.values(name, metric).unique() for name in section.finished]
        found = {float(value) for values in scores for value in values}
        if section.contenders and len(found) == 1:
            text = f"Every completion of every algorithm scores {found.pop():.3g} {phrase(metric)}: the task is out of "
            text += "reach of this model, or without effort, or its reward does not read these answers."
            yield Flag("no_signal", text, section.title, (), True, (metric,))


def hidden_run(results: Results) -> Iterator[Flag]:
    """Runs that a reader would not see: on disk and in no table, failed and left out, or of seeds that others have."""
    for cell, what in unlisted_cells(results):
        yield Flag("hidden_run", f"Cell {cell} is in the run's folder and not in its plan: {what}.", blocks=True)
    for section in sections(results):
        cells = section.cells
        for name, rows in cells.groupby("algorithm", sort=False, observed=True):
            failed = rows[~rows["status"].isin(PENDING)]
            if len(failed) and len(failed) < len(rows):
                why = ", ".join(
                    f"seed {seed} {status}" for seed, status in zip(failed["seed"], failed["status"], strict=True)
                )
                text = f"{len(failed)} of {len(rows)} seeds of {name} failed ({why}): its means are of the others."
                yield Flag("hidden_run", text, section.title, (str(name),))
            others = sorted({*cells["seed"], *results.declaration.get("seeds", ())} - {*rows["seed"]})
            if missing := [seed for seed in others if _was_declared(section, str(name), seed)]:
                text = f"{name} was not run with seeds that were declared or that others had: {_listed(missing)}."
                yield Flag("hidden_run", text, section.title, (str(name),))


def _was_declared(section: Section, algorithm: str, seed: int) -> bool:
    """Whether the rules that were declared before the run have this seed of the algorithm."""
    labels = {"model": section.model, "task": section.task, "budget": section.budget, "algorithm": algorithm}
    rules = (section.results.declaration.get(key, ()) for key in RULES)
    return selects(labels | {"seed": str(seed)}, *rules)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def changed_plan(results: Results) -> Iterator[Flag]:
    """A declaration that was changed after there were results to look at, or by hand."""
    for line in results.amendments:
        yield Flag("changed_plan", f"{line[:1].upper()}{line[1:]}.")


def changed_matrix(results: Results) -> Iterator[Flag]:
    """Cells with other settings that were run before these: what is shown may have been chosen by what was seen."""
    retired = [cell for cell in results.plan.get("retired") or () if (results.folder / "cells" / cell["id"]).is_dir()]
    by_label: dict[str, int] = {}
    for cell in retired:
        by_label[cell["algorithm"]] = by_label.get(cell["algorithm"], 0) + 1
    if by_label:
        told = ", ".join(f"{count} of {name}" for name, count in by_label.items())
        yield Flag("changed_matrix", f"Cells were run with other settings first and are left out: {told}.")


def mixed_precision(results: Results) -> Iterator[Flag]:
    """Cells of one comparison in different precisions, or on different devices."""
    yield from _mixed(results, "mixed_precision", lambda field: field in PRECISION)


def mixed_setup(results: Results) -> Iterator[Flag]:
    """Cells of one comparison that differ in weights, tokenizer, template, LoRA, rows or decoding."""
    yield from _mixed(results, "mixed_setup", lambda field: field not in PRECISION)


def _mixed(results: Results, kind: str, concerns: Callable[[str], bool]) -> Iterator[Flag]:
    """Cells that the parity lock left out; or, where the reader mixes them, the fields that differ."""
    names = {cell["id"]: f"{cell['algorithm']} seed {cell['seed']}" for cell in results.plan["cells"]}
    for section in sections(results):
        out = section.cells[section.cells["status"] == LOCKED_OUT]
        for cell, name, reason in zip(out["id"], out["algorithm"], out["reason"], strict=True):
            differs = [
                part for part in reason.removeprefix("not comparable: ").split("; ") if concerns(part.split(" ")[0])
            ]
            if differs:
                yield Flag(kind, f"{names[cell]} is left out: {'; '.join(differs)}.", section.title, (str(name),))
    if results.mixed:
        for field, values in results.parity():
            if concerns(field):
                found = "; ".join(
                    f"{value} in {', '.join(names[cell] for cell in ids)}" for value, ids in values.items()
                )
                yield Flag(kind, f"Not a comparison of like with like: cells are mixed, as asked, by {field}: {found}.")


def over_optimised(results: Results) -> Iterator[Flag]:
    """Training reward up and gold reward down: the policy learned to please the proxy."""
    for section in sections(results):
        if section.baseline is None or not {"gold_reward", "train_reward"} <= set(section.metrics):
            continue
        for name in section.trained:
            gains = {}
            for metric in ("train_reward", "gold_reward"):
                ours, base = section.grid(name, metric), section.grid(section.baseline, metric)
                seeds, prompts = ours.index.intersection(base.index), ours.columns.intersection(base.columns)
                if len(seeds) and len(prompts) > 1:
                    pair = (grid.loc[seeds, prompts].to_numpy(float) for grid in (ours, base))
                    gains[metric] = paired_difference(*pair)
            if len(gains) == 2 and gains["train_reward"].low > 0 and gains["gold_reward"].high < 0:
                proxy, gold = gains["train_reward"].mean, gains["gold_reward"].mean
                text = f"{name} gained {proxy:+.3g} training reward and {gold:+.3g} gold reward."
                yield Flag("over_optimised", text, section.title, (name,))


def cut_off(results: Results) -> Iterator[Flag]:
    """Most completions end at the length limit: reward, length and KL are of beginnings."""
    for section in sections(results):
        names = section.finished if "truncated" in section.metrics else []
        shares = {name: float(section.grid(name, "truncated").to_numpy(float).mean()) for name in names}
        if cut := {name: share for name, share in shares.items() if share > CUT}:
            told = ", ".join(f"{share:.0%} of {name}" for name, share in cut.items())
            told = "every completion" if min(shares.values()) == 1 else f"most completions ({told})"
            text = f"The length limit cuts {told}: scores, lengths and KL are of beginnings."
            yield Flag("cut_off", text, section.title, tuple(cut))


def stale_scores(results: Results) -> Iterator[Flag]:
    """Scores of samples that have been drawn anew since."""
    for scoring in scorings(results):
        if scoring.stale:
            kind, label = scoring.record["kind"], scoring.label
            text = f"{scoring.stale} cells were trained again since {kind} {label} scored them: score them again."
            yield Flag("stale_scores", text)


DETECTORS: Mapping[str, Callable[[Results], Iterator[Flag]]] = {
    detect.__name__: detect
    for detect in (
        hacked_judge, silent_judge, leaked_prompt, unequal_budget, dead_seed, no_signal, hidden_run, changed_plan,
        changed_matrix, mixed_precision, mixed_setup, over_optimised, cut_off, stale_scores,
    )
}  # fmt: skip
"""By the kind of flag that it finds."""
