"""The promises of an algorithm. Each check runs cells on the toy model and compares."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

from bakeoff import cellprocess
from bakeoff.contracts import Source

from .lab import STEPS, Lab, Trained, ended, equal
from .promises import Broken, DoesNotApply, told
from .subject import explained, said

SPLITS = ("micro_batch", "gradient_accumulation_steps")
"""Settings that divide an optimizer step's rows among forward passes, and change nothing but memory."""
STANDARD: dict[str, str] = {"loss": "", "reward": "reward"}
"""Metrics that reports look for; the second, of algorithms that consume a reward."""
UNSEEN = 1.25
"""How much more may be computed than the meter sees; its count and torch's own differ by a twentieth."""
FREEZE = "Train only `context.roles.parameters('policy')`: never unfreeze the base."
CLOSE = 0.02
"""How far apart two adapters may be, as a share of the way they went, when only rounding differs."""


def described(lab: Lab) -> str:
    """It says what it is: a title, a docstring, what it trains on, and of each setting a default and what it does."""
    said(lab.plugin)
    if unknown := sorted(lab.plugin.consumes - set(get_args(Source))):
        raise Broken(
            f"`consumes` names {', '.join(map(repr, unknown))}, which no task can give.",
            f"Name what it trains on, of {', '.join(get_args(Source))}.",
        )
    if lab.plugin.trains and not lab.plugin.consumes:
        raise Broken("`consumes` is empty: it would get no row to train on.", "Set `consumes`, or `trains = False`.")
    for name, preset in lab.plugin.presets.items():
        try:
            lab.plugin.Settings.model_validate(dict(preset.settings))
        except ValueError as error:
            raise Broken(
                f"preset {name!r} has settings that are not valid: {told(error)}", "Mend the preset."
            ) from None
    return explained(lab)


def trains(lab: Lab) -> str:
    """It trains the policy in a cell as any other: the policy moves then, and not while it is measured."""
    trained = ended(lab.plain)
    # A reward model is normalised as it is saved, which is no algorithm's doing.
    if lab.plugin.role == "policy" and not equal(trained.adapter, trained.left):
        raise Broken(
            "the policy moved after training had ended, as held-out prompts were completed.",
            "Train in `train()` alone: `complete()` finds the policy as it is measured, and leaves it so.",
        )
    if not lab.plugin.trains:
        return "it leaves the policy as it is, and says so"
    if not trained.moved:
        raise Broken(
            f"after {trained.updates} updates the policy's adapter is what it was, bit for bit.",
            "Train `context.policy` itself, not a copy: its weights are `context.roles.parameters('policy')`.",
        )
    return f"the policy moved in {trained.steps} steps"


def budget(lab: Lab) -> str:
    """Training stops once the budget is spent, at most one step late; every step and all computing is counted."""
    trained = _within(lab.training())
    if trained.updates > STEPS:
        raise Broken(
            f"it made {trained.updates} updates of the policy on a budget of {STEPS}.",
            "One turn of `context.steps()` is one optimizer step; a trainer counts by `context.callbacks`.",
        )
    if not trained.fractions:
        raise Broken(
            f"it made {trained.updates} updates, and no step was counted.",
            "Loop over `context.steps()`, or hand `context.callbacks` to the trainer.",
        )
    flops = _flops(trained)
    half = _within(ended(lab.run(lab.cell(budget={"flops": 0.55 * flops}), count=True)))
    if half.computed > UNSEEN * (seen := _flops(half)):
        raise Broken(
            f"it computed {half.computed:.2g} FLOPs, of which the meter saw {seen:.2g}.",
            "Compute with the shared model only (`context.policy`, `context.roles`): no other is on the budget.",
        )
    late = half.spent - 1.0
    return f"{trained.steps} of {STEPS} steps; on a FLOPs budget {len(half.fractions)} steps, {late:.0%} over it"


def _within(trained: Trained) -> Trained:
    """Raises ``Broken`` when training went on after the budget was spent."""
    late = sum(fraction >= 1.0 for fraction in trained.fractions)
    after = trained.spent - (trained.fractions[-1] if trained.fractions else 0.0)
    largest = max((b - a for a, b in zip([0.0, *trained.fractions], trained.fractions, strict=False)), default=0.0)
    if late > 1 or (trained.fractions and after > 0.01 * largest) or (not trained.fractions and trained.spent > 1.0):
        steps = f"{late - 1} steps after it was spent" if late > 1 else "computing after its last step"
        raise Broken(
            f"it spent {trained.spent:.0%} of its budget, with {steps}.",
            "Stop when `context.meter.is_spent`: `for step in context.steps()` does, and so does a trainer "
            "with `context.callbacks`.",
        )
    return trained


def _flops(trained: Trained) -> float:
    return float(json.loads((trained.folder / "ledger.json").read_text())["spent"]["flops"])


def capacity(lab: Lab) -> str:
    """It trains the adapter that all algorithms are given: none of its weights is added, resized or taken away."""
    trained = lab.training()
    before, after = ({name: tuple(w.shape) for name, w in each.items()} for each in (trained.start, trained.adapter))
    sizes = [sum(w.numel() for w in each.values()) for each in (trained.start, trained.adapter)]
    if before != after:
        raise Broken(
            f"the policy's adapter had {sizes[0]} weights before training and has {sizes[1]} of other shapes.",
            "Train the adapter in place. An auxiliary model has a role of its own (`context.roles.add`).",
        )
    return f"{sizes[0]} weights before and after"


def base(lab: Lab) -> str:
    """The base that all algorithms share is the same after training, bit for bit."""
    return _untouched(lab.training(), "base", FREEZE)


def reference(lab: Lab) -> str:
    """The reference that every policy is measured against is the same after training, bit for bit."""
    fix = "Keep a moving average or another copy in an adapter of your own; the reference is the yardstick."
    return _untouched(lab.training(), "reference", fix)


def reward(lab: Lab) -> str:
    """The reward model is the same after training, bit for bit."""
    if "reward" not in lab.plugin.consumes:
        raise DoesNotApply("it does not train on a reward")
    lab.training()
    trained = ended(lab.run(lab.cell(rewarded=False)))
    return _untouched(trained, "reward", "Call `context.reward`; never train what answers it.")


def _untouched(trained: Trained, what: str, fix: str) -> str:
    if trained.frozen[what] != trained.frozen_after.get(what):
        raise Broken(f"the weights of the {what} differ after training.", fix)
    return f"sha256 {trained.frozen[what][:12]} before and after"


def seed(lab: Lab) -> str:
    """The seed determines the result: the same seed gives the same weights, bit for bit, another seed others."""
    first = lab.training()
    if not first.same_as(lab.again):
        raise Broken(
            "two runs of one seed ended with different weights.",
            "Draw from torch's global generator, which is seeded, or from one seeded with `derive_seed(context.seed, "
            "...)` of bakeoff.seeds; never from `random`, `numpy.random` or the clock.",
        )
    # From the same first weights: those differ by seed whatever the algorithm does.
    if first.same_as(ended(lab.run(lab.cell(seed=1), start=first.start))):
        raise Broken(
            "two seeds gave the same weights from the same start: its intervals would leave out its own randomness.",
            "Draw the order of rows and every sample from `context.seed`, not from a constant; a trainer gets it from "
            "`context.trainer_arguments()`.",
        )
    return "two runs of seed 0 are equal; seed 1 differs"


def held_out(lab: Lab) -> str:
    """What it learns does not depend on the held-out rows, which it is never shown."""
    first = lab.repeatable()
    if not first.same_as(ended(lab.run(lab.cell(held_out="other")))):
        raise Broken(
            "with other held-out rows and the same training rows, it ended with other weights.",
            "Train and tune on what `context` holds, and on nothing else.",
        )
    return "other held-out rows, the same weights"


def resume(lab: Lab) -> str:
    """A cell that was killed goes on from a checkpoint, and ends as one that never stopped: weights and log."""
    whole = lab.repeatable()
    cell = lab.cell(checkpoint_s=0.0)
    lab.run(cell, name="resumed", stop_after=STEPS - 1)
    checkpoints = [int(path.parent.name.rpartition("-")[2]) for path in _checkpoints(lab)]
    fix = (
        "A trainer: pass `resume_from_checkpoint=context.checkpoint`. An on-policy algorithm: keep what changes from "
        "step to step in `state()` and `restore()`. A loop: hand it to `context.steps(optimizer, ...)`."
    )
    if not checkpoints:
        raise Broken(f"killed in step {STEPS - 1}, it had left no checkpoint and would start again.", fix)
    since = f"step {max(checkpoints)}"
    try:
        resumed = ended(lab.run(cell, name="resumed"))
    except Exception as error:
        raise Broken(f"killed in step {STEPS - 1} and resumed from {since}, it failed: {told(error)}.", fix) from None
    if not resumed.same_as(whole):
        raise Broken(f"killed in step {STEPS - 1} and resumed from {since}, it ended with other weights.", fix)
    steps = [[line["step"] for line in each.lines] for each in (whole, resumed)]
    if steps[0] != steps[1]:
        raise Broken(
            f"the log has lines of steps {steps[1]}, without the interruption {steps[0]}.",
            "Log through `context.log`, once a step.",
        )
    return f"killed in step {STEPS - 1}, resumed from {since}: the same weights"


def _checkpoints(lab: Lab) -> Any:
    from bakeoff.checkpoint import STATE

    return (lab.folder / "run" / "cells").glob(f"resumed.partial/checkpoints/checkpoint-*/{STATE}")


def splitting(lab: Lab) -> str:
    """How an optimizer step's rows are split among forward passes changes memory, not the result."""
    lab.training()
    names = [name for name in SPLITS if name in lab.plugin.Settings.model_fields]
    if not names:
        raise DoesNotApply(f"it has no setting called {' or '.join(SPLITS)}")
    name, told_apart = names[0], []
    sizes = (3, 64) if name == "micro_batch" else (1, 3)
    runs = [ended(lab.run(lab.cell(settings={name: size}, budget={"steps": 2}))) for size in sizes]
    apart = runs[0].distance(runs[1])
    for first, second in zip(runs[0].lines, runs[1].lines, strict=False):
        told_apart += [
            f"{key} {first[key]:.4g} and {second[key]:.4g} at step {first['step']}"
            for key in sorted(first.keys() & second.keys() - {"seconds", "fraction"})
            if not math.isclose(first[key], second[key], rel_tol=CLOSE, abs_tol=1e-4)
        ]
    if apart > CLOSE or told_apart:
        raise Broken(
            f"with {name} {sizes[0]} and {sizes[1]} the weights are {apart:.1%} of their way apart"
            + (f"; the log says {', '.join(told_apart[:3])}." if told_apart else "."),
            "Divide each part's summed loss by the tokens (or rows) of the whole step, not by its own, and keep the "
            "rows of a step the same.",
        )
    return f"{name} {sizes[0]} and {sizes[1]}: the weights are {apart:.2%} of their way apart"


def metrics(lab: Lab) -> str:
    """It logs its loss at every optimizer step and, where it has one, its reward at every rollout: finite numbers."""
    trained = lab.training()
    logged = sorted({key for line in trained.lines for key in line} - {"step", "fraction", "seconds"})
    for name, need in STANDARD.items():
        steps = {line["step"] for line in trained.lines if isinstance(line.get(name), int | float)}
        # A rollout may serve several steps; there is one before the first.
        wanted = trained.steps if not need else int(need in lab.plugin.consumes)
        if len(steps) < wanted:
            told_now = ", ".join(logged) or "nothing"
            raise Broken(
                f"{name!r} is logged at {len(steps)} of {trained.steps} steps; logged is {told_now}.",
                f'Call `context.log({{"{name}": ...}})`; a trainer logs by `context.trainer_arguments()` and '
                "`context.callbacks`.",
            )
    for line in trained.lines:
        for key, value in line.items():
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise Broken(f"{key!r} is {value} at step {line['step']}.", "Log finite numbers only.")
    return ", ".join(logged)


def memory(lab: Lab) -> str:
    """Running out of memory ends the cell as "oom", or is survived with the same result; the next cell is as ever."""
    import torch

    whole = lab.repeatable()
    raised: list[bool] = []

    def run_out(trained: Trained) -> None:
        if trained.fractions and not raised:
            raised.append(True)
            raise torch.OutOfMemoryError("out of memory: this is a test of bakeoff.testing")

    status = "ok"
    try:
        survivor = ended(lab.run(lab.cell(), on_pass=run_out))
    except Exception as error:
        status = cellprocess.classify(error)
        if status != "oom":
            raise Broken(
                f"out of memory in its second step, the cell ended as {status!r}: {told(error)}.",
                "Let the exception through, or raise yours `from` it.",
            ) from None
    else:
        if not raised:
            raise DoesNotApply("it makes no pass with gradients after its first step")
        if not survivor.same_as(whole):
            raise Broken(
                "it went on after it ran out of memory, and ended with other weights than it does otherwise.",
                "Let the exception through: a cell that could not do its work must not look as if it had.",
            )
    if not whole.same_as(ended(lab.run(lab.cell()))):
        raise Broken(
            "after a cell that ran out of memory, the next one ended with other weights.",
            "Keep no state in the module or the class.",
        )
    return f"ended as {status!r}; the next cell gave the same weights"


def adapter(lab: Lab) -> str:
    """The adapter that a cell leaves is a standard PEFT folder, which loads onto the base as it was trained."""
    from peft import PeftModel

    from bakeoff import models

    trained = lab.training()
    folder, own = trained.folder / "adapter", list(trained.adapter.values())
    if lab.plugin.role == "reward":
        folder, own = folder / "reward", own[:-2]  # its head's weight and bias lie beside the adapter
    loaded: Any = PeftModel.from_pretrained(models.load_base(lab.cell().model), str(folder))
    weights = [weight.float() for name, weight in loaded.named_parameters() if "lora_" in name]
    if len(weights) != len(own) or not all(a.equal(b) for a, b in zip(weights, own, strict=True)):
        raise Broken(
            "peft loads other weights from the cell's adapter than were trained.",
            'Train the adapter "default" in place; do not rename, merge or replace it.',
        )
    return f"{len(weights)} weights, equal to those that were trained"


def four_bit(lab: Lab) -> str:
    """It trains on a 4-bit base with bf16 adapters, too, which is what most cells have."""
    lab.training()
    trained = ended(lab.run(lab.cell(precision="nf4", budget={"steps": 2})))
    _untouched(trained, "base", FREEZE)
    if not trained.moved:
        raise Broken(
            f"on an NF4 base the policy did not move in {trained.updates} updates.",
            "Use `context.optimizer(...)`, whose masters are fp32: small updates vanish in bf16.",
        )
    return f"nf4, {trained.updates} updates"


CHECKS = (
    described, trains, budget, capacity, base, reference, reward, seed, held_out, resume, splitting, metrics, memory,
    adapter, four_bit,
)  # fmt: skip
