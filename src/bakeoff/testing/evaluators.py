"""The promises of an evaluator: a row a sample and metric, numbers that mean what it declared, nothing filled in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bakeoff.contracts import EvalContext, Metric

from .playthings import ToyJudge, ToyTask
from .promises import Broken
from .subject import HOSTILE, Subject, described

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["prompt_id", "sample", "metric", "value"]
KEYS = ["prompt_id", "sample", "metric"]
NEEDS = ("samples", "logprobs", "reference_samples")
PLAIN = ("we were there.", "the film was good", "never seen a sweet film", "three, there were three", "good", "e e e")


def context_for(needs: frozenset[str], texts: Sequence[str] = PLAIN) -> EvalContext:
    """What an evaluator with these needs is handed in a cell, and no more: two samples of each of six prompts."""
    task = ToyTask()
    rows = task.load().test[:6]
    samples = _samples(rows, texts, 0)
    if "logprobs" in needs:
        lengths = samples["n_tokens"]
        samples["token_logps"] = [[-1.5 - 0.1 * place for place in range(n)] for n in lengths]
        samples["token_reference_logps"] = [[-1.6 - 0.05 * place for place in range(n)] for n in lengths]
        samples["token_kl"] = [[0.02 * (place + 1) for place in range(n)] for n in lengths]
    reference = _samples(rows, texts, 3)
    if "reference_samples" not in needs:
        reference = reference.iloc[:0]
    return EvalContext(rows, samples, reference, task, task.reward, task.gold, ToyJudge())


def _samples(rows: Sequence[Any], texts: Sequence[str], shift: int) -> pd.DataFrame:
    import pandas as pd

    records = []
    for number in range(2):
        for place, row in enumerate(rows):
            text = texts[(shift + number * len(rows) + place) % len(texts)]
            length = len(text[:20].split()) + 1
            records.append((row["id"], number, row["prompt"], text, length, place % 3 > 0, place % 3 == 0))
    names = ["prompt_id", "sample", "prompt", "completion", "n_tokens", "ended_eos", "truncated"]
    return pd.DataFrame(records, columns=names)


def scores(evaluator: Subject) -> str:
    """It gives one row a (prompt, sample, metric), of metrics that it declares: never a mean, never a sample twice."""
    context = context_for(evaluator.plugin.needs)
    frame = _score(evaluator, context)
    known = set(zip(context.samples["prompt_id"], context.samples["sample"], strict=True))
    found = set(zip(frame["prompt_id"], frame["sample"], strict=True))
    if found - known:
        raise Broken(f"it scored {sorted(found - known)[0]}, which was not sampled.", "Keep the samples' own keys.")
    if frame.duplicated(KEYS).any():
        twice = frame.loc[frame.duplicated(KEYS), KEYS].iloc[0].tolist()
        raise Broken(f"it scored {twice} twice.", "Give one row a (prompt, sample, metric).")
    declared = {metric.name for metric in evaluator.plugin.metrics}
    if extra := sorted(set(frame["metric"]) - declared):
        raise Broken(f"it gave the metric {extra[0]!r}, which it does not declare.", "Declare it in `metrics`.")
    for name, part in frame.groupby("metric"):
        if missing := sorted(set(context.samples["prompt_id"]) - set(part["prompt_id"])):
            raise Broken(
                f"{name!r} has {len(part)} values for {len(known)} samples, none of prompt {missing[0]!r}.",
                "Score every sample: intervals and paired comparisons need the single values.",
            )
    return f"{len(frame)} values of {', '.join(sorted(frame['metric'].unique())) or 'no metric'}"


def _score(evaluator: Subject, context: EvalContext) -> pd.DataFrame:
    import pandas as pd

    frame = evaluator.make().score(context)
    if not isinstance(frame, pd.DataFrame) or set(COLUMNS) - set(frame.columns):
        got = list(frame.columns) if isinstance(frame, pd.DataFrame) else type(frame).__name__
        raise Broken(f"score() gave {got}.", f"Return a data frame with the columns {', '.join(COLUMNS)}.")
    return frame[COLUMNS].sort_values(KEYS, ignore_index=True)


def declared(evaluator: Subject) -> str:
    """Of each metric it says the unit, which direction is better, what it is, and its range."""
    metrics = evaluator.plugin.metrics
    if not metrics or any(not isinstance(metric, Metric) for metric in metrics):
        raise Broken(f"`metrics` is {metrics!r}.", "Declare each as a bakeoff.contracts.Metric.")
    if len({metric.name for metric in metrics}) < len(metrics):
        raise Broken("two metrics share a name.", "Name each differently: a report finds them by name.")
    for metric in metrics:
        if metric.direction not in ("higher", "lower", "none") or not metric.unit or not metric.description:
            raise Broken(f"{metric.name!r} has no unit, direction or description.", "A reader must not have to guess.")
    if unknown := sorted(set(evaluator.plugin.needs) - set(NEEDS)):
        raise Broken(f"`needs` names {unknown[0]!r}.", f"Name what it reads, of {', '.join(NEEDS)}.")
    return ", ".join(f"{metric.name} ({metric.unit}, {metric.direction})" for metric in metrics)


def bounded(evaluator: Subject) -> str:
    """Every value is finite and within the range that its metric declares, whatever the model wrote."""
    ranges = {metric.name: (metric.low, metric.high) for metric in evaluator.plugin.metrics}
    extremes: list[float] = []
    for start in range(0, len(HOSTILE), 6):
        frame = _score(evaluator, context_for(evaluator.plugin.needs, HOSTILE[start : start + 6]))
        for name, value in zip(frame["metric"], frame["value"].astype(float), strict=True):
            low, high = ranges.get(name, (None, None))
            out = (low is not None and value < low - 1e-9) or (high is not None and value > high + 1e-9)
            if out or not abs(value) < float("inf"):
                raise Broken(f"{name!r} is {value}, and lies in [{low}, {high}].", "Mend the value or the range.")
            extremes.append(value)
    return f"{len(extremes)} values" + (f", {min(extremes):.3g} to {max(extremes):.3g}" if extremes else "")


def repeatable(evaluator: Subject) -> str:
    """The same samples get the same values: twice, with the task's rows in another order, and without a trace."""
    context = context_for(evaluator.plugin.needs)
    before = context.samples.copy(deep=True)
    first = _score(evaluator, context)
    if not context.samples.equals(before):
        raise Broken("it changed the samples, which other evaluators score, too.", "Work on a copy.")
    if not first.equals(_score(evaluator, context)):
        raise Broken("scored twice, the samples got other values.", "Seed every draw with a constant.")
    if not first.equals(_score(evaluator, dataclasses.replace(context, rows=list(reversed(context.rows))))):
        raise Broken(
            "with the rows in another order the values differ.", "Find a sample's row by its id, not by its place."
        )
    return "the same twice, and with the rows in another order"


def missing(evaluator: Subject) -> str:
    """A metric that cannot be had, without a reward, a gold reward or a judge, is left out whole."""
    whole = set(_score(evaluator, context_for(evaluator.plugin.needs))["metric"])
    left: list[str] = []
    for absent in ("train_reward", "gold", "judge"):
        nothing: Any = {absent: None}
        context = dataclasses.replace(context_for(evaluator.plugin.needs), **nothing)
        try:
            frame = _score(evaluator, context)
        except Exception as error:
            raise Broken(
                f"without {absent} it raised {type(error).__name__}: {error}.",
                "Leave the metric out: return no row of it.",
            ) from None
        if gone := whole - set(frame["metric"]):
            left += [f"without {absent}: no {', '.join(sorted(gone))}"]
        if frame["value"].isna().any():
            raise Broken(f"without {absent} some values are NaN.", "Leave the metric out: return no row of it.")
    return "; ".join(left) or "it needs none of them"


CHECKS = (scores, described, declared, bounded, repeatable, missing)
