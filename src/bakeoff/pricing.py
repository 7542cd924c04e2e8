"""What a cell needs and should cost, before any model is loaded. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from bakeoff import models, registry
from bakeoff.contracts import Algorithm, Source
from bakeoff.environment import cores, gpus
from bakeoff.errors import ModelError
from bakeoff.setup import task_and_data
from bakeoff.spec import CellSpec
from bakeoff.stageids import has_reward_model

BYTES_PER_WEIGHT = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "nf4": 0.52}
FLOPS_PER_SECOND = {"gpu": 5e13, "core": 7e10}
"""What small batches reach, roughly: a current GPU, one core of a current server CPU in bf16."""
PROCESS_BYTES = 1.2e9
"""A Python process with torch, transformers and trl imported, and its allocator's slack."""


@dataclass(frozen=True)
class Estimate:
    """Wall-clock ``seconds`` and peak ``bytes`` of a cell, and what the guess rests on."""

    seconds: float
    bytes: float
    basis: str


def incompatible(cell: CellSpec) -> str | None:
    """Why the cell cannot run, or None: what the algorithm consumes that the task neither has nor yields.

    A reward yields demonstrations, pairs and rankings (samples, ranked); pairs yield a reward (a reward model).
    """
    task, data = task_and_data(cell.task)
    algorithm = registry.load("algorithm", cell.algorithm.name)
    names = [cell.algorithm.name, *(stage.algorithm.name for stage in cell.warm_start)]
    has = set(data.provides)
    if has & {"reward"} or task.gold_metric is not None:
        has |= {"demonstrations", "preferences"}
    if "preferences" in has:
        has |= {"rankings", "reward"}
    if reasons := [reason for name in names if (reason := _lacking(name, has, cell.task.label, data.provides))]:
        return reasons[0]
    if unmeasured := _unmeasured(cell, algorithm):
        return unmeasured
    if has_reward_model(cell):
        if "preferences" not in has:
            return f"preparation.reward is model, but task '{cell.task.label}' has nothing to rank completions by"
        wanted, there = cell.preparation.reward_model.comparisons or 0, _prompts_ranked(cell)
        if wanted > there:
            return f"its reward model is to learn from {wanted} comparisons, but at most {there} prompts are ranked"
    return None


def _lacking(name: str, has: set[Source], task: str, provides: Collection[Source]) -> str | None:
    """What the algorithm needs of this environment or of the task, which ``has`` that in all, and does not get."""
    algorithm = registry.load("algorithm", name)
    if why := algorithm.unavailable():
        return f"{name} cannot run here: {why}"
    if missing := algorithm.consumes - has:
        return (
            f"{name} trains on {', '.join(sorted(missing))}, which task '{task}' neither has nor yields "
            f"(it has {', '.join(sorted(provides))})"
        )
    return None


def _unmeasured(cell: CellSpec, algorithm: type[Algorithm]) -> str | None:
    """Why no evaluator can measure the cell, or None."""
    name, given = cell.algorithm.name, algorithm.measured_by()
    needs = [registry.load("evaluator", spec.name).needs for spec in cell.evaluators]
    if algorithm.role == "reward":
        if any("pairs" in need for need in needs):
            return None
        return (
            f"{name} trains a reward model, which none of the evaluators measures "
            f"({', '.join(spec.name for spec in cell.evaluators)}): add one that needs pairs"
        )
    if "logprobs" in given or any(need <= given for need in needs):
        return None
    if algorithm.bidirectional:
        return (
            f"{name} attends to both sides and is never sampled, but every evaluator needs samples: "
            "add one that needs the model alone, such as masked_accuracy or retrieval"
        )
    return (
        f"{name} completes prompts by other means than sampling a policy, but every evaluator needs the policy: "
        "add one that needs samples alone, such as reward or health"
    )


def _prompts_ranked(cell: CellSpec) -> int:
    """How many prompts a reward model can learn from at most: the task's pairs, or the prompts that are sampled."""
    _, data = task_and_data(cell.task)
    return len(data.train) if "preferences" in data.provides else min(cell.preparation.prompts, len(data.train))


def estimate(cell: CellSpec) -> Estimate:
    """A rough price from the model's shape and the budget; past cells of a run are the better guess."""
    weights = _weights(cell)
    rate = FLOPS_PER_SECOND["gpu"] if gpus() else FLOPS_PER_SECOND["core"] * cores()
    task, _ = task_and_data(cell.task)
    tokens = task.settings.max_new_tokens + min(32, task.settings.max_prompt_tokens)
    limits = cell.budget.limits()
    # 32 sequences a step, generated, scored and trained on: 2 + 2 + 4 FLOPs a weight and token.
    guesses = {
        "seconds": limits.get("seconds"),
        "flops": limits["flops"] / rate if "flops" in limits else None,
        "steps": limits["steps"] * 32 * tokens * 8 * weights / rate if "steps" in limits else None,
        "prompts": limits["prompts"] * 4 * tokens * 8 * weights / rate if "prompts" in limits else None,
        "tokens_trained": limits["tokens_trained"] * 8 * weights / rate if "tokens_trained" in limits else None,
        "tokens_generated": limits["tokens_generated"] * 8 * weights / rate if "tokens_generated" in limits else None,
    }
    train = min((guess for guess in guesses.values() if guess is not None), default=0.0)
    if not registry.load("algorithm", cell.algorithm.name).trains:
        train = 0.0
    stages = _stage_tokens(cell, tokens) * 6 * weights / rate
    measured = (
        cell.evaluation.prompts * cell.evaluation.samples + cell.evaluation.probes * cell.evaluation.probe_prompts
    )
    seconds = 6.0 + train + stages + measured * tokens * 6 * weights / rate
    trainable = 0.04 * weights * 12 * 2
    activations = 16 * tokens * weights**0.5 * 100  # 16 sequences; 1.2 MB a token at 135M weights
    size = PROCESS_BYTES + weights * BYTES_PER_WEIGHT[cell.model.precision] + trainable + activations
    return Estimate(seconds, size, "a guess from the model's size and the budget" if weights else "no model size known")


def _stage_tokens(cell: CellSpec, tokens: int) -> float:
    """What the cell's reward model and its samples cost, in trained tokens.

    Each cell that uses it is charged, though only the first computes it: a plan is on the safe side.
    """
    spec = cell.preparation
    if not has_reward_model(cell):
        return 0.0
    pairs = "preferences" in task_and_data(cell.task)[1].provides
    completions = spec.reward_model.steps * spec.reward_model.batch * (2 if pairs else spec.samples)
    sampled = 0 if pairs else spec.prompts * spec.samples
    return tokens * (completions + sampled / 3)  # a sampled token costs 2 FLOPs a weight, a trained one 6


def _weights(cell: CellSpec) -> float:
    """The number of weights: from the config, else from the size of the GGUF file at 4.5 bits a weight."""
    try:
        config = models.read_config(cell.model)
        source = models.locate(cell.model)
    except ModelError:
        return 0.0
    if config:
        hidden, layers = config.get("hidden_size") or config.get("n_embd", 0), config.get("num_hidden_layers") or 0
        layers = layers or config.get("n_layer", 0)
        inner = config.get("intermediate_size") or 4 * hidden
        return float(layers * (4 * hidden**2 + 3 * hidden * inner) + config.get("vocab_size", 0) * hidden)
    return source.gguf.stat().st_size * 8 / 4.5 if source.gguf is not None else 0.0
