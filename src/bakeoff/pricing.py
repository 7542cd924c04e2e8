"""What a cell needs and should cost, before any model is loaded. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from bakeoff import modelfiles, registry
from bakeoff.contracts import Algorithm, Source, TaskData
from bakeoff.environment import cores, gpus
from bakeoff.errors import ModelError
from bakeoff.executors import default_workers
from bakeoff.setup import task_and_data
from bakeoff.spec import CellSpec
from bakeoff.stageids import StageKey, has_reward_model

BYTES_PER_WEIGHT = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "nf4": 0.52}
FLOPS_PER_SECOND = {"gpu": 5e13, "core": 7e10}
"""What small batches reach, roughly: a current GPU, one core of a current server CPU in bf16."""
LOAD_S = 6.0
"""Loading a model and writing the results."""
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
    if reasons := [reason for name in names if (reason := _lacking(name, has, cell.task.label, data))]:
        return reasons[0]
    if encoder := _starts_at_encoder(cell, algorithm):
        return encoder
    if unmeasured := _unmeasured(cell, algorithm):
        return unmeasured
    if has_reward_model(cell):
        if "preferences" not in has:
            return f"preparation.reward is model, but task '{cell.task.label}' has nothing to rank completions by"
        wanted, there = cell.preparation.reward_model.comparisons or 0, _prompts_ranked(cell)
        if wanted > there:
            return f"its reward model is to learn from {wanted} comparisons, but at most {there} prompts are ranked"
    return None


def _lacking(name: str, has: set[Source], task: str, data: TaskData) -> str | None:
    """What the algorithm needs of this environment or of the task, which ``has`` that in all, and does not get."""
    algorithm = registry.load("algorithm", name)
    try:
        why = algorithm.unavailable()
    except (Exception, SystemExit) as error:  # one plugin's own code leaves the others their plan
        told = " ".join(f"{type(error).__name__}: {error}".split())
        why = f"its unavailable() raised {told}; mend or uninstall the plugin"
    if why:
        return f"{name} cannot run here: {why}"
    if missing := algorithm.consumes - has:
        return (
            f"{name} trains on {', '.join(sorted(missing))}, which task '{task}' neither has nor yields "
            f"(it has {', '.join(sorted(data.provides))}{'; ' + data.unread if data.unread else ''})"
        )
    return None


def _starts_at_encoder(cell: CellSpec, algorithm: type[Algorithm]) -> str | None:
    """Why the policy that the warm start leaves cannot be sampled, or None."""
    stages = [stage.algorithm.name for stage in cell.warm_start]
    encoders = [name for name in stages if registry.load("algorithm", name).bidirectional]
    if not encoders or not algorithm.is_sampled():
        return None
    return (
        f"it starts at {encoders[0]}, which attends to both sides and is no policy to sample from: take {encoders[0]} "
        f"out of warm_start, or put {cell.algorithm.name} into a matrix without it"
    )


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


def estimate(cell: CellSpec, stages: Collection[StageKey] = ()) -> Estimate:
    """A rough price from the model's shape, the rows and the budget; past cells of a run are the better guess.

    ``stages`` are those that this cell is the first to need: what cells share is paid once.
    """
    weights, tokens, spec = _weights(cell), _tokens(cell), cell.evaluation
    rate = FLOPS_PER_SECOND["gpu"] if gpus() else FLOPS_PER_SECOND["core"] * (cores() // default_workers())
    pace = _Pace(weights, tokens, rate)
    train = _training_s(cell.algorithm.name, cell.algorithm.settings, cell.budget.limits(), pace)
    shared = sum(_stage_s(cell, key, pace) for key in stages)
    # Each completion is sampled, and scored by policy and reference.
    measured = (spec.prompts * spec.samples + spec.probes * spec.probe_prompts) * pace.sequence_s(6)
    trainable = 0.04 * weights * 12 * 2
    activations = 16 * tokens * weights**0.5 * 100  # 16 sequences; 1.2 MB a token at 135M weights
    size = PROCESS_BYTES + weights * BYTES_PER_WEIGHT[cell.model.precision] + trainable + activations
    basis = "a guess from the model's size and the budget" if weights else "no model size known"
    return Estimate(LOAD_S + train + shared + measured, size, basis)


class _Pace(NamedTuple):
    """What seconds are made of: the model's weights, the tokens of a sequence, FLOPs a second."""

    weights: float
    tokens: float
    rate: float

    def sequence_s(self, flops: float) -> float:
        """Seconds a sequence, for so many FLOPs a weight and token: 2 to sample, 2 to score, 4 to train on."""
        return flops * self.weights * self.tokens / self.rate


def _training_s(name: str, settings: Mapping[str, Any], limits: Mapping[str, float], pace: _Pace) -> float:
    """Seconds until the first limit is spent. Sequences a step are read off settings that go by their usual names."""
    plugin = registry.load("algorithm", name)
    if not plugin.trains:
        return 0.0
    rolls_out = "prompts" in plugin.consumes
    pairs = bool(plugin.consumes & {"preferences", "rankings"}) and not rolls_out
    group = _count(settings, "group", default=1 + pairs)
    prompts = _count(settings, "prompts_per_rollout", "batch", default=16)
    sequence_s = pace.sequence_s(8 if rolls_out else 6)
    seconds_each = {
        "seconds": 1.0,
        "flops": 1 / pace.rate,
        "steps": prompts * group / _count(settings, "minibatches", default=1) * sequence_s,
        "prompts": group * sequence_s,
        "tokens_trained": sequence_s / pace.tokens,
        "tokens_generated": sequence_s / pace.tokens,
    }
    return min(limit * seconds_each[name] for name, limit in limits.items())


def _count(settings: Mapping[str, Any], *names: str, default: int) -> int:
    """The first of these settings that is there; a stranger's may go by the name and be something else."""
    counts = (settings.get(name) for name in names)
    return next((count for count in counts if type(count) is int and count > 0), default)


def _stage_s(cell: CellSpec, key: StageKey, pace: _Pace) -> float:
    """Seconds of a stage that is computed by this cell."""
    made, measured = cell.preparation, cell.evaluation
    if key.kind == "warm-start":
        algorithm, _ = key.inputs["algorithm"]
        return _training_s(algorithm["name"], algorithm["settings"], key.inputs["budget"], pace)
    if key.kind == "reward-model":
        model = made.reward_model
        each = 2 if "preferences" in task_and_data(cell.task)[1].provides else made.samples
        return model.steps * model.batch * each * pace.sequence_s(4)
    drawn = {
        "samples": made.prompts * made.samples,
        "held-out-samples": measured.prompts * made.samples,
        "reference-samples": measured.prompts * measured.samples,
        "reference-pool": measured.prompts * measured.reference_samples,
    }
    return drawn[key.kind] * pace.sequence_s(2)


def _tokens(cell: CellSpec) -> float:
    """Tokens of a sequence: four characters of the prompt make one, and completions are as long as they may be."""
    task, data = task_and_data(cell.task)
    asked = [row.get("prompt") or row.get("text") or "" for row in data.train[:100]]
    texts = [text if isinstance(text, str) else "".join(str(part.get("content")) for part in text) for text in asked]
    prompt = sum(map(len, texts)) / 4 / max(1, len(texts))
    return min(prompt, task.settings.max_prompt_tokens) + float(task.settings.max_new_tokens)


def _weights(cell: CellSpec) -> float:
    """The number of weights: from the config, else from the size of the GGUF file at 4.5 bits a weight."""
    try:
        config = modelfiles.read_config(cell.model)
        source = modelfiles.locate(cell.model)
    except ModelError:
        return 0.0
    if config:
        hidden, layers = config.get("hidden_size") or config.get("n_embd", 0), config.get("num_hidden_layers") or 0
        layers = layers or config.get("n_layer", 0)
        inner = config.get("intermediate_size") or 4 * hidden
        return float(layers * (4 * hidden**2 + 3 * hidden * inner) + config.get("vocab_size", 0) * hidden)
    return source.gguf.stat().st_size * 8 / 4.5 if source.gguf is not None else 0.0
