"""Measuring one cell: what it is held against, looks along its training, and one at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from bakeoff.contracts import Algorithm, CompletionContext
from bakeoff.evaluation import add_logps, completions, evaluate, no_samples
from bakeoff.modelview import ModelView
from bakeoff.setup import Setup, make

if TYPE_CHECKING:
    from bakeoff.budget import Meter
    from bakeoff.rankings import Rankings
    from bakeoff.rows import Tokenised
    from bakeoff.stages import Stages
    from bakeoff.store import Store


class Measuring:
    """Measures the model of one cell. Each look is a probe, whose files outlive the attempt: it may resume."""

    def __init__(
        self, setup: Setup, algorithm: Algorithm, *, meter: Meter, stages: Stages, store: Store, folder: Path
    ) -> None:
        self.setup, self.algorithm, self.meter = setup, algorithm, meter
        self.stages, self.store, self.folder = stages, store, folder
        self.evaluators = [make("evaluator", spec) for spec in setup.cell.evaluators]
        self.judge = make("judge", setup.cell.judge)
        self.probes: list[dict[str, Any]] = []
        """What was spent at each look, and the share of the budget that this is; checkpoints hold it."""
        self.reference: pd.DataFrame
        self.reference_pool: str | None = None
        self.held_out: Rankings = ()

    def prepare(self) -> None:
        """What the model is held against. Ask for it before training: it is of the start."""
        sampled = self.algorithm.is_sampled()
        self.reference = self.stages.reference_samples() if sampled else no_samples()
        self.reference_pool = self.stages.reference_pool() if sampled else None
        if self.stages.reward_model_role and any("pairs" in evaluator.needs for evaluator in self.evaluators):
            self.held_out = self.stages.held_out_rankings()

    def probe_when_due(self) -> None:
        """Measure along training when the next of the evenly spaced shares of the budget is spent."""
        count = self.setup.cell.evaluation.probes
        due = (len(self.probes) + 1) / (count + 1)
        if len(self.probes) < count and due <= self.meter.fraction < 1.0:
            self.measure(round(due, 4))

    def measure(self, fraction: float) -> None:
        """Sample, score, evaluate, and keep the results beside the ledger's state."""
        setup, spec = self.setup, self.setup.cell.evaluation
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
            self.store.write_frame(self._file(len(self.probes), name), frame)

    def write(self) -> None:
        """Join the probes' files to the cell's ``scores.parquet`` and ``samples.parquet``."""
        for name in ("scores", "samples"):
            parts = [pd.read_parquet(self._file(number, name)) for number in range(1, len(self.probes) + 1)]
            self.store.write_frame(self.folder / f"{name}.parquet", pd.concat(parts, ignore_index=True))

    def _file(self, number: int, name: str) -> Path:
        return self.folder / "probes" / f"{number}.{name}.parquet"

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
        setup, spec = self.setup, self.setup.cell.evaluation
        reward: Any = setup.train_reward if "reward" in self.algorithm.consumes else None
        context = CompletionContext(
            rows=[row.row for row in rows],
            samples=spec.samples,
            sample=lambda count: setup.draw_samples("policy", rows, seed=setup.cell.seed, samples=count),
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
