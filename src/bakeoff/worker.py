"""One cell in one process: load, stages, train, evaluate, write. Importing this file imports no torch."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bakeoff import modelfiles
from bakeoff.contracts import Algorithm, Source, TrainContext
from bakeoff.errors import PluginError, PluginFailure
from bakeoff.pricing import Estimate, estimate, incompatible
from bakeoff.records import cell_record, ledger
from bakeoff.setup import Setup, load, make, task_and_data
from bakeoff.spec import CellSpec
from bakeoff.stageids import planned_stages

if TYPE_CHECKING:
    from bakeoff.budget import Meter
    from bakeoff.rows import Tokenised
    from bakeoff.stages import Progress
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
    "bakeoff.measuring",
    "bakeoff.on_policy_trainer",
)
"""What the fork server imports once, so that each cell's fresh process starts at once."""

DISK_ERRORS = (errno.ENOSPC, errno.EIO)
"""The machine's failures, not an algorithm's: the cell keeps its checkpoints."""


def fingerprints(cell: CellSpec) -> dict[str, str]:
    """Hashes of what a cell stands on but does not hold: the model's files and the task's rows."""
    return {"model": modelfiles.fingerprint(cell.model), "data": task_and_data(cell.task)[1].fingerprint}


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
    for name in ("bitsandbytes", "transformers.trainer_utils"):  # the latter on checkpoints within one second
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft|accelerate)\.")


class CellRun:
    """The state of one cell while it runs."""

    def __init__(self, cell: CellSpec, cell_id: str, setup: Setup, store: Store, progress: Progress) -> None:
        from bakeoff.budget import meter_for
        from bakeoff.measuring import Measuring
        from bakeoff.stages import Stages

        self.cell, self.cell_id, self.setup, self.store, self.progress = cell, cell_id, setup, store, progress
        self.folder = store.partial(cell_id)
        self.algorithm: Algorithm = make("algorithm", cell.algorithm)
        self.stages = Stages(setup, store, progress)
        self.meter = meter_for(cell.budget)
        self.measuring = Measuring(
            setup, self.algorithm, meter=self.meter, stages=self.stages, store=store, folder=self.folder
        )
        self.overshoot: dict[str, float] = {}

    def run(self) -> None:
        """All phases."""
        self.progress("stages", 0.0, "")
        self.meter.trained = self.algorithm.role
        self.stages.reward_model()
        self._warm_start()
        context = self._context(self.algorithm, self.meter, self.folder / "checkpoints", self.cell.seed)
        self.measuring.prepare()
        self.store.write_json(self.folder / "cell.json", cell_record(self))
        if self.algorithm.trains:
            self._train(context)
        self.overshoot = self.meter.overshoot()
        self.progress("evaluate", 0.0, "")
        if self.algorithm.role == "reward" and self.algorithm.trains:
            # Part of saving it, and so on no budget.
            context.reward_model.normalise(context.rankings)
        self.measuring.measure(1.0)
        self._write_results()

    # -------------------------------------------------------------------------------------- training

    def _context(self, algorithm: Algorithm, meter: Meter, folder: Path, seed: int) -> TrainContext:
        """What the algorithm is handed; stages fill in what the task lacks."""
        setup, stages = self.setup, self.stages
        sources: dict[Source, Callable[[], Any]] = {
            "prompts": stages.prompts,
            "demonstrations": stages.demonstrations,
            "preferences": stages.preferences,
            "rankings": stages.rankings,
            "reward": lambda: self._reward,
            "text": stages.text,
        }
        given: dict[str, Any] = {
            name: made() if name in algorithm.consumes else _NotConsumed(name) for name, made in sources.items()
        }
        nothing: Any = None
        return TrainContext(
            **given,
            policy=setup.roles.model,
            roles=setup.roles,
            tokenizer=setup.tokenizer,
            reward_model=stages.new_reward_model() if algorithm.role == "reward" else nothing,
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
        rows = self._rows_of(completions, columns.get("id"))
        if self.stages.reward_model_role is not None and "completion_ids" in columns:
            # The very tokens that were sampled: text, tokenised again, need not give them back.
            return self.stages.reward_model_role.rewards([row.prompt_ids for row in rows], columns["completion_ids"])
        return self.setup.train_reward([row.row for row in rows], completions)

    def _rows_of(self, completions: list[str], ids: list[str] | None) -> list[Tokenised]:
        """The training row of each completion. Raises ``PluginError`` where ``ids`` do not say which it is."""
        fix = 'Pass a list, the `id` of each completion\'s row of `context.prompts`: id=[row["id"] for row in rows].'
        if ids is None:
            raise PluginError(
                "`context.reward` was called without `id`, by which it finds the row of each completion.",
                fix=fix,
            )
        if len(ids) != len(completions):
            raise PluginError(
                f"`context.reward` was given {len(ids)} ids for {len(completions)} completions, and each has one.",
                fix=fix,
            )
        unknown = [name for name in ids if name not in self._train_rows]
        if unknown:
            raise PluginError(f"`context.reward` was given the id {unknown[0]!r}, which no training row has.", fix=fix)
        return [self._train_rows[name] for name in ids]

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
        meter.limits = context.meter.limits
        context.meter, context.folder = meter, folder / "checkpoints"
        context.on_step = lambda: self.progress("stages", min(1.0, meter.fraction), "warm start")
        _resume(context)
        self._fit(algorithm, context, "the warm start", dict)
        shutil.rmtree(context.folder, ignore_errors=True)
        if self.setup.roles.has("value"):  # a cell that loads the stage has none
            self.setup.roles.remove("value")

    def _train(self, context: TrainContext) -> None:
        """Train the cell's own algorithm, with probes on the way."""
        self.measuring.probes = _resume(context).get("probes", [])
        context.on_step = self._after_step
        log = self.folder / "training.jsonl"
        self.store.write_bytes(log, _kept_lines(log, self.meter.steps).encode())
        with log.open("a", buffering=1) as stream:

            def record(metrics: Mapping[str, float]) -> None:
                where = {"step": self.meter.steps, "fraction": self.meter.fraction, "seconds": self.meter.seconds}
                print(json.dumps({**where, **metrics}), file=stream)

            context.record = record
            with self.meter.counting(self.setup.roles):
                self.progress("train", 0.0, "")
                self._fit(self.algorithm, context, self.cell.algorithm.name, lambda: {"probes": self.measuring.probes})

    def _fit(self, algorithm: Algorithm, context: TrainContext, name: str, extra: Callable[[], dict[str, Any]]) -> None:
        """Let the algorithm train; checkpoints hold the meter's state and what ``extra`` gives."""
        import torch

        from bakeoff.callbacks import CellCallback
        from bakeoff.checkpoint import LoopCheckpoints

        def state() -> dict[str, Any]:
            return {"meter": context.meter.state(), **extra()}

        checkpoint_s = self.cell.checkpoint_s
        context.loop_checkpoints = LoopCheckpoints(context.folder, context.roles, checkpoint_s, state)
        context.callbacks = [
            CellCallback(
                context,
                after_step=context.on_step,
                dtype=self.setup.dtype,
                checkpoint_s=checkpoint_s,
                state=state,
            )
        ]
        torch.manual_seed(context.seed)
        with _blaming(name):
            algorithm.train(context)
        self.setup.roles.tidy()

    def _after_step(self) -> None:
        """Off the clock: show progress, and probe when the next share of the budget is spent."""
        with self.meter.off():
            self.progress("train", min(1.0, self.meter.fraction), "")
            self.measuring.probe_when_due()

    def _write_results(self) -> None:
        self.measuring.write()
        self.store.write_json(self.folder / "ledger.json", ledger(self))
        if self.algorithm.trains and self.algorithm.role == "policy":
            self.setup.roles.model.save_pretrained(str(self.folder / "adapter"), selected_adapters=["default"])
        elif self.stages.reward_model_role and self.algorithm.trains:
            self.stages.reward_model_role.save(self.folder / "adapter")


class _NotConsumed:
    """Stands in a context for what the algorithm does not consume, and says so as soon as it is used."""

    def __init__(self, source: str) -> None:
        self._source = source

    def _refuse(self, *ignored: Any, **columns: Any) -> Any:
        raise PluginError(
            f"`context.{self._source}` is not there: the algorithm does not consume it.",
            fix=f'Add "{self._source}" to `consumes`.',
        )

    __getattr__ = __getitem__ = __iter__ = __len__ = __call__ = _refuse


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


def _resume(context: TrainContext) -> dict[str, Any]:
    """Go on from the newest checkpoint in the context's folder, if any; what it holds beside the trainer's state."""
    from bakeoff.checkpoint import STATE, latest_checkpoint

    context.resume_from = latest_checkpoint(context.folder)
    if context.resume_from is None:
        return {}
    state: dict[str, Any] = json.loads((context.resume_from / STATE).read_text())
    context.meter.restore(state["meter"])
    return state


def _kept_lines(log: Path, steps: int) -> str:
    """The lines of the log up to a checkpoint. Those after it, cut off or not, will be written again."""
    lines = [line for line in log.read_text().splitlines() if line.endswith("}")] if log.exists() else []
    return "".join(f"{line}\n" for line in lines if 0 < json.loads(line)["step"] <= steps)
