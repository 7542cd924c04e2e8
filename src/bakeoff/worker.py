"""One cell in one process: load, stages, train, evaluate, write. Importing this file imports no torch."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bakeoff import models, registry
from bakeoff.contracts import Algorithm, CompletionContext, TrainContext
from bakeoff.errors import PluginFailure
from bakeoff.overlap import overlap
from bakeoff.pricing import Estimate, estimate, incompatible
from bakeoff.setup import Setup, load, make, parity, task_and_data
from bakeoff.spec import CellSpec, PluginSpec
from bakeoff.stageids import planned_stages

if TYPE_CHECKING:
    import pandas as pd

    from bakeoff.budget import Meter
    from bakeoff.rankings import Rankings
    from bakeoff.rows import Tokenised
    from bakeoff.stages import Progress, Stages
    from bakeoff.store import Store

__all__ = ["PRELOAD", "Estimate", "estimate", "fingerprints", "incompatible", "planned_stages", "run_cell"]

PRELOAD = (
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.trainer",
    "peft",
    "trl.trainer.sft_trainer",
    "trl.trainer.dpo_trainer",
    "trl.trainer.grpo_trainer",
    "datasets",
    "pandas",
    "bakeoff.stages",
    "bakeoff.evaluation",
    "bakeoff.on_policy_trainer",
)
"""What the fork server imports once, so that each cell's fresh process starts at once."""

DISK_ERRORS = (errno.ENOSPC, errno.EIO)
"""The machine's failures, not an algorithm's: the cell keeps its checkpoints."""


def fingerprints(cell: CellSpec) -> dict[str, str]:
    """Hashes of what a cell stands on but does not hold: the model's files and the task's rows."""
    return {"model": models.fingerprint(cell.model), "data": task_and_data(cell.task)[1].fingerprint}


def run_cell(cell: CellSpec, cell_id: str, store: Store, progress: Progress) -> None:
    """Run the cell and write its files into ``store.partial(cell_id)``; raises when it fails."""
    quiet()
    progress("load", 0.0, "")
    setup = load(cell)
    CellRun(cell, cell_id, setup, store, progress).run()


def quiet() -> None:
    """Libraries' notices that no reader of a log can act on."""
    import logging
    import warnings

    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft|accelerate)\.")


class CellRun:
    """The state of one cell while it runs."""

    def __init__(self, cell: CellSpec, cell_id: str, setup: Setup, store: Store, progress: Progress) -> None:
        from bakeoff.budget import meter_for
        from bakeoff.stages import Stages

        self.cell, self.cell_id, self.setup, self.store, self.progress = cell, cell_id, setup, store, progress
        self.folder = store.partial(cell_id)
        self.algorithm: Algorithm = make("algorithm", cell.algorithm)
        self.evaluators = [make("evaluator", spec) for spec in cell.evaluators]
        self.judge = make("judge", cell.judge)
        self.stages: Stages = Stages(setup, store, progress)
        self.meter: Meter = meter_for(cell.budget)
        self.probes: list[dict[str, Any]] = []
        self.overshoot: dict[str, float] = {}
        self.reference: pd.DataFrame
        self.reference_pool: str | None = None
        self.held_out: Rankings = ()

    def run(self) -> None:
        """All phases."""
        from bakeoff.evaluation import no_samples

        self.progress("stages", 0.0, "")
        self.meter.trained = self.algorithm.role
        self.stages.reward_model()
        self._warm_start()
        context = self._context(self.algorithm, self.meter, self.folder / "checkpoints", self.cell.seed)
        self.reference = self.stages.reference_samples() if self.algorithm.is_sampled() else no_samples()
        self.reference_pool = self.stages.reference_pool() if self.algorithm.is_sampled() else None
        if self.stages.reward_model_role and any("pairs" in evaluator.needs for evaluator in self.evaluators):
            self.held_out = self.stages.held_out_rankings()
        self._write_cell()
        if self.algorithm.trains:
            self._train(context)
        self.overshoot = self.meter.overshoot()
        self.progress("evaluate", 0.0, "")
        if self.algorithm.role == "reward" and self.algorithm.trains:
            # Part of saving it, and so on no budget.
            context.reward_model.normalise(context.rankings)
        self._measure(1.0)
        self._write_results()

    # -------------------------------------------------------------------------------------- training

    def _context(self, algorithm: Algorithm, meter: Meter, folder: Path, seed: int) -> TrainContext:
        """What the algorithm is handed; stages fill in what the task lacks."""
        setup, needs = self.setup, algorithm.consumes
        nothing: Any = None
        return TrainContext(
            policy=setup.roles.model,
            roles=setup.roles,
            tokenizer=setup.tokenizer,
            prompts=self.stages.prompts() if "prompts" in needs else nothing,
            demonstrations=self.stages.demonstrations() if "demonstrations" in needs else nothing,
            preferences=self.stages.preferences() if "preferences" in needs else nothing,
            rankings=self.stages.rankings() if "rankings" in needs else nothing,
            reward=self._reward if "reward" in needs else nothing,
            reward_model=self.stages.new_reward_model() if algorithm.role == "reward" else nothing,
            text=self.stages.text() if "text" in needs else nothing,
            schedule=self.cell.schedule,
            meter=meter,
            seed=seed,
            folder=folder,
            max_new_tokens=setup.max_new_tokens,
            max_tokens=setup.max_tokens,
        )

    def _reward(self, prompts: Any, completions: list[str], **columns: Any) -> list[float]:
        """The training reward with TRL's signature; the row is found by its id."""
        assert self.setup.train_reward is not None
        rows = [self._train_rows[name] for name in columns["id"]]
        if self.stages.reward_model_role is not None and "completion_ids" in columns:
            # The very tokens that were sampled: text, tokenised again, need not give them back.
            return self.stages.reward_model_role.rewards([row.prompt_ids for row in rows], columns["completion_ids"])
        return self.setup.train_reward([row.row for row in rows], completions)

    @property
    def _train_rows(self) -> dict[str, Tokenised]:
        if not hasattr(self, "_by_id"):
            self._by_id = {row.row["id"]: row for row in self.setup.rows.train}
        return self._by_id

    def _warm_start(self) -> None:
        """The warm start's stages in order, each trained within a budget of its own, or loaded."""
        from bakeoff.budget import meter_for

        for number, stage in enumerate(self.cell.warm_start):
            algorithm: Algorithm = make("algorithm", stage.algorithm)
            # Its data are stages of their own, with their own ledgers: made before its meter runs.
            context = self._context(algorithm, meter_for(stage.budget), self.folder, self.cell.seed)
            self.stages.warm_start(number, functools.partial(self._train_stage, algorithm, context))

    def _train_stage(self, algorithm: Algorithm, context: TrainContext, folder: Path, meter: Meter) -> None:
        """Train one stage of the warm start, counted by the stage's ``meter``."""
        import torch

        from bakeoff.callbacks import CellCallback

        meter.limits = context.meter.limits
        context.meter, context.folder = meter, folder / "checkpoints"
        context.on_step = lambda: self.progress("stages", min(1.0, meter.fraction), "warm start")
        context.callbacks = [
            CellCallback(context, after_step=context.on_step, dtype=self.setup.dtype, checkpoint_s=math.inf, state=dict)
        ]
        torch.manual_seed(context.seed)
        with _blaming("the warm start"):
            algorithm.train(context)
        self.setup.roles.tidy()
        if self.setup.roles.has("value"):  # a cell that loads the stage has none
            self.setup.roles.remove("value")

    def _train(self, context: TrainContext) -> None:
        import torch

        from bakeoff.callbacks import CellCallback
        from bakeoff.checkpoint import STATE, LoopCheckpoints, latest_checkpoint

        context.resume_from = latest_checkpoint(context.folder)
        if context.resume_from is not None:
            state = json.loads((context.resume_from / STATE).read_text())
            self.meter.restore(state["meter"])
            self.probes = state["probes"]
        log = self.folder / "training.jsonl"
        _keep_lines(log, self.meter.steps if context.resume_from else 0)
        with log.open("a", buffering=1) as stream:

            def record(metrics: Mapping[str, float]) -> None:
                where = {"step": self.meter.steps, "fraction": self.meter.fraction, "seconds": self.meter.seconds}
                print(json.dumps({**where, **metrics}), file=stream)

            def state() -> dict[str, Any]:
                return {"meter": self.meter.state(), "probes": self.probes}

            checkpoint_s = self.cell.checkpoint_s
            context.record = record
            context.on_step = self._after_step
            context.loop_checkpoints = LoopCheckpoints(context.folder, context.roles, checkpoint_s, state)
            context.callbacks = [
                CellCallback(
                    context,
                    after_step=self._after_step,
                    dtype=self.setup.dtype,
                    checkpoint_s=checkpoint_s,
                    state=state,
                )
            ]
            torch.manual_seed(context.seed)
            with self.meter.counting(self.setup.roles):
                self.progress("train", 0.0, "")
                with _blaming(self.cell.algorithm.name):
                    self.algorithm.train(context)
        self.setup.roles.tidy()

    def _after_step(self) -> None:
        """Off the clock: show progress, and probe when the next share of the budget is spent."""
        with self.meter.off():
            self.progress("train", min(1.0, self.meter.fraction), "")
            count = self.cell.evaluation.probes
            due = (len(self.probes) + 1) / (count + 1)
            if len(self.probes) < count and due <= self.meter.fraction < 1.0:
                self._measure(round(due, 4))

    # -------------------------------------------------------------------------------------- measuring

    def _measure(self, fraction: float) -> None:
        """Sample, score, evaluate, and keep the results beside the ledger's state."""
        import torch

        from bakeoff.evaluation import evaluate, no_samples
        from bakeoff.modelview import ModelView

        setup, spec = self.setup, self.cell.evaluation
        rows = setup.evaluation_rows if fraction == 1.0 else setup.evaluation_rows[: spec.probe_prompts]
        model = ModelView(
            setup.roles,
            setup.tokenizer,
            bidirectional=self.algorithm.bidirectional,
            max_tokens=setup.max_tokens,
            batch=spec.batch,
        )
        training = setup.roles.model.training
        with torch.no_grad():
            samples = self._complete(rows, fraction) if self.algorithm.is_sampled() else no_samples()
            pairs = self._pairs(rows, fraction)
            has = self.algorithm.measured_by() | ({"pairs"} if pairs is not None else set())
            scores, stored = evaluate(
                [evaluator for evaluator in self.evaluators if evaluator.needs <= has],
                rows,
                samples,
                self.reference,
                task=setup.task,
                train_reward=setup.train_reward,
                gold=setup.gold,
                judge=self.judge,
                model=model,
                fraction=fraction,
                pairs=pairs,
            )
        setup.roles.model.train(training)
        self.probes.append({"fraction": fraction, **self.meter.spent()})
        for name, frame in (("scores", scores), ("samples", stored)):
            self.store.write_frame(self.folder / "probes" / f"{len(self.probes)}.{name}.parquet", frame)

    def _pairs(self, rows: Sequence[Tokenised], fraction: float) -> pd.DataFrame | None:
        """The reward model's rewards on held-out pairs; one that only serves a policy does not change on the way."""
        model, known = self.stages.reward_model_role, {row.row["id"] for row in rows}
        held_out = [ranking for ranking in self.held_out if ranking["id"] in known]
        if model is None or not held_out or (fraction < 1.0 and self.algorithm.role == "policy"):
            return None
        return model.pairs(held_out)

    def _complete(self, rows: Sequence[Tokenised], fraction: float) -> pd.DataFrame:
        """The algorithm's completions, with log-probabilities where they are the policy's and an evaluator needs them.

        Sampling a policy is measuring, and nobody's cost; completing by other means is the algorithm's own work,
        which is counted once, at the end.
        """
        from bakeoff.evaluation import add_logps, completions

        setup, spec = self.setup, self.cell.evaluation
        reward: Any = setup.train_reward if "reward" in self.algorithm.consumes else None
        context = CompletionContext(
            rows=[row.row for row in rows],
            samples=spec.samples,
            sample=lambda count: setup.draw_samples("policy", rows, seed=self.cell.seed, samples=count),
            write=lambda texts: setup.write_samples(texts, rows, samples=spec.samples),
            reward=reward,
        )
        if "logprobs" not in self.algorithm.measured_by():
            with self.meter.counting(setup.roles) if fraction == 1.0 else contextlib.nullcontext():
                return completions(self.algorithm, context)
        samples = completions(self.algorithm, context)
        if any("logprobs" in evaluator.needs for evaluator in self.evaluators):
            samples = add_logps(samples, setup.roles, pad=setup.tokenizer.pad_token_id, batch=spec.batch)
        return samples

    # ---------------------------------------------------------------------------------------- writing

    def _write_cell(self) -> None:
        cell, setup = self.cell, self.setup
        variant = registry.variant(cell.algorithm.name, cell.algorithm.preset)
        kinds: list[tuple[str, PluginSpec]] = [("evaluator", spec) for spec in cell.evaluators]
        metrics = [
            {**asdict(metric), "evaluator": spec.name}
            for (_, spec), evaluator in zip(kinds, self.evaluators, strict=True)
            for metric in evaluator.metrics
        ]
        fields = {
            "id": self.cell_id,
            "model": cell.model.label,
            "task": cell.task.label,
            "budget": cell.budget.name,
            "algorithm": cell.algorithm.label,
            "algorithm_name": cell.algorithm.name,
            "preset": cell.algorithm.preset,
            "title": variant.title,
            "paper": variant.paper,
            "differs_from_paper": getattr(variant, "differs_from_paper", ""),
            "settings": self.algorithm.settings.model_dump(mode="json"),
            "is_sampled": self.algorithm.is_sampled(),
            "is_control": self.algorithm.is_control,
            "kl_bound": self.algorithm.kl_bound(),
            "seed": cell.seed,
            "metrics": metrics,
            "references": dict(setup.data.references),
            "reference_pool": self.reference_pool,
            "parity": parity(setup),
            "reference_samples": self.stages.reference_id,
            "data": {
                "source": setup.data.source,
                "licence": setup.data.licence,
                "fingerprint": setup.data.fingerprint,
                "train_rows": len(setup.rows.train),
                "test_rows": len(setup.rows.test),
                "overlap": overlap(
                    [row.prompt for row in setup.rows.train],
                    {row.row["id"]: row.prompt for row in setup.evaluation_rows},
                ),
                "left_out": dict(setup.rows.left_out),
                "bad_rows": len(setup.data.bad_rows),
                "bad_row_examples": [asdict(row) for row in setup.data.bad_rows[:20]],
                "derived": self.stages.derived,
            },
            "spec": cell.model_dump(mode="json"),
        }
        self.store.write_json(self.folder / "cell.json", fields)

    def _write_results(self) -> None:
        import pandas as pd

        for name in ("scores", "samples"):
            parts = [
                pd.read_parquet(self.folder / "probes" / f"{number}.{name}.parquet")
                for number in range(1, len(self.probes) + 1)
            ]
            self.store.write_frame(self.folder / f"{name}.parquet", pd.concat(parts, ignore_index=True))
        for path in (self.folder / "probes").iterdir():
            path.unlink()
        (self.folder / "probes").rmdir()
        roles = self.setup.roles
        auxiliary = roles.parameters("value") if roles.has("value") else []
        ledger = {
            "budget": {"name": self.cell.budget.name, "version": self.cell.budget.version}
            | {"limits": self.cell.budget.limits()},
            "spent": self.meter.spent(),
            "roles": {name: asdict(role) for name, role in self.meter.roles.items()},
            "overshoot": self.overshoot,
            "peak_bytes": _peak_bytes(),
            "trainable": {
                "policy": sum(p.numel() for p in roles.parameters(self.algorithm.role)),
                "auxiliary": sum(p.numel() for p in auxiliary),
            },
            "shared": self.stages.shared,
            "probes": self.probes,
        }
        self.store.write_json(self.folder / "ledger.json", ledger)
        if self.algorithm.trains and self.algorithm.role == "policy":
            roles.model.save_pretrained(str(self.folder / "adapter"), selected_adapters=["default"])
        elif self.stages.reward_model_role and self.algorithm.trains:
            self.stages.reward_model_role.save(self.folder / "adapter")


@contextlib.contextmanager
def _blaming(name: str) -> Iterator[None]:
    """What is raised inside is the failure of ``name``, unless it is another plugin's or the disk's."""
    try:
        yield
    except PluginFailure:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        raise PluginFailure(f"{name} failed") from error


def _keep_lines(path: Path, steps: int) -> None:
    """Drop log lines of steps after the checkpoint, the cut-off last one too: they will be written again."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        path.write_text("".join(f"{line}\n" for line in lines if 0 < json.loads(line)["step"] <= steps))


def _peak_bytes() -> int:
    """The process's peak resident memory, or the GPU's peak where there is one."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
