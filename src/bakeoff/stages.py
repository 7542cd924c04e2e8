"""Work that cells share: the warm start, samples to make demonstrations and pairs of, the reward model.

A stage's id hashes what determines its result, so cells that need the same stage share it; a file lock keeps
two workers from computing it twice. Each stage has a ledger: a report charges it to those who use it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bakeoff
from bakeoff import models, registry
from bakeoff.budget import Meter
from bakeoff.errors import Incompatible
from bakeoff.seeds import derive_seed
from bakeoff.setup import Setup

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from bakeoff.reward_model import RewardModel
    from bakeoff.store import Store

VERSION = 1
"""Raise it when a stage computes something else from the same inputs."""

Progress = Callable[[str, float, str], None]

RESERVED = frozenset({"prompts", "completions", "completion_ids", "prompt_ids", "input_ids", "labels"}) | {
    "trainer_state",
    "log_extra",
    "log_metric",
}
"""Arguments of a reward function and columns of tokenised rows: a data column of that name is not passed on."""


class Stages:
    """The stages of one cell. ``shared`` collects the ledgers of those that it used."""

    def __init__(self, setup: Setup, store: Store, progress: Progress) -> None:
        self.setup = setup
        self.store = store
        self.progress = progress
        self.shared: list[dict[str, Any]] = []
        self.derived: dict[str, str] = {}
        self.reward_model_role: RewardModel | None = None
        self.reference_id: str | None = None
        self._warm_start_id: str | None = None
        self._reward_model_id: str | None = None

    # --------------------------------------------------------------------------------- the mechanism

    def _stage(self, kind: str, inputs: dict[str, Any], build: Callable[[Path, Meter], None]) -> Path:
        """The folder of a stage; computed under a lock and a meter of its own where it is not there yet."""
        versions = {"version": VERSION, "bakeoff": bakeoff.__version__}
        text = json.dumps({"kind": kind, **versions, **inputs}, sort_keys=True, default=str)
        stage_id = f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        folder = self.store.stage(stage_id)
        with self.store.lock("stage", stage_id):
            if not folder.exists():
                self.progress("stages", 0.0, kind.replace("-", " "))
                partial = self.store.partial_stage(stage_id)
                partial.mkdir(parents=True, exist_ok=True)
                meter = Meter({"seconds": math.inf})
                detach = meter.attach(self.setup.roles)
                meter.start()
                try:
                    build(partial, meter)
                finally:
                    meter.stop()
                    detach()
                ledger = {**meter.spent(), "roles": {name: asdict(role) for name, role in meter.roles.items()}}
                model = {name: getattr(self.setup.cell, name).model_dump(mode="json") for name in ("model", "lora")}
                record = {"id": stage_id, "kind": kind, "inputs": json.loads(text), "ledger": ledger, **model}
                self.store.write_json(partial / "stage.json", record)
                self.store.commit(partial)
        record = self.store.read_json(folder / "stage.json")
        self.shared.append({"stage": stage_id, "kind": kind, **record["ledger"]})
        return folder

    def _start(self) -> dict[str, Any]:
        """What determines the policy's starting point and the rows, for a stage's id."""
        cell, data = self.setup.cell, self.setup.data
        task = registry.load("task", cell.task.name)
        return {
            "model": models.fingerprint(cell.model),
            "precision": cell.model.precision,
            "device": self.setup.roles.device.type,
            # Files count by what is in them, which the data's fingerprint says, and not by where they lie.
            "task": [cell.task.name, registry.source_hash(task), _without_paths(self.setup.task.settings)],
            "data": data.fingerprint,
            "warm_start": self._warm_start_id,
        }

    # ------------------------------------------------------------------------------------ warm start

    def warm_start(self, train: Callable[[Path, Meter], None]) -> None:
        """Train the adapter by the warm start's algorithm, or load it; a frozen copy becomes the reference.

        ``train`` trains the policy of this cell's setup within the given meter.
        """
        from safetensors.torch import load_file, save_file

        cell, roles = self.setup.cell, self.setup.roles
        if cell.warm_start is None:
            return

        def tensors() -> dict[str, Any]:
            return {str(index): p.data for index, p in enumerate(roles.parameters("policy"))}

        def build(folder: Path, meter: Meter) -> None:
            train(folder, meter)
            save_file({key: value.contiguous() for key, value in tensors().items()}, folder / "policy.safetensors")

        algorithm = registry.load("algorithm", cell.warm_start.algorithm.name)
        inputs = {
            **self._start(),
            "lora": cell.lora.model_dump(),
            "algorithm": [
                cell.warm_start.algorithm.model_dump(exclude={"label", "preset"}),
                registry.source_hash(algorithm),
            ],
            "budget": cell.warm_start.budget.limits(),
            "preparation": cell.preparation.model_dump(),
            "seed": cell.seed,
        }
        folder = self._stage("warm-start", inputs, build)
        self._warm_start_id = folder.name
        for key, value in load_file(folder / "policy.safetensors").items():
            tensors()[key].copy_(value)
        roles.add("reference", copy_of="policy")

    # --------------------------------------------------------------- demonstrations, preferences, reward

    def samples(self) -> pd.DataFrame:
        """Completions of training prompts from the start, ranked: columns of ``draw_samples`` and ``reward``.

        Ranked by the gold reward where the task has one, since they stand for what an annotator would choose.
        """
        import pandas as pd

        from bakeoff.evaluation import draw_samples

        setup, spec = self.setup, self.setup.cell.preparation
        score = setup.gold or setup.train_reward
        if score is None:
            raise Incompatible(
                "the task has neither a reward to rank samples by nor the rows themselves.",
                fix="Give the task a reward, or rows of the kind that the algorithm consumes.",
            )
        rows = setup.rows.train[: spec.prompts]

        def build(folder: Path, meter: Meter) -> None:
            frame = draw_samples(
                setup.roles,
                "policy",
                rows,
                setup.tokenizer,
                seed=derive_seed("samples"),
                samples=spec.samples,
                max_new_tokens=setup.max_new_tokens,
                batch=setup.cell.evaluation.batch,
            )
            by_id = {row.row["id"]: row.row for row in rows}
            scored = score([by_id[name] for name in frame["prompt_id"]], frame["completion"].tolist())
            self.store.write_frame(folder / "samples.parquet", frame.assign(reward=scored))

        inputs = {**self._start(), "prompts": spec.prompts, "samples": spec.samples}
        return pd.read_parquet(self._stage("samples", inputs, build) / "samples.parquet")

    @property
    def _ranked_by(self) -> str:
        return "gold reward" if self.setup.gold else "training reward"

    def prompts(self) -> datasets.Dataset:
        """Training prompts with the task's own columns."""
        from datasets import Dataset

        # The rest goes to reward functions by name; a column must not pass for one of their own arguments.
        columns = {"prompt", "completion", "chosen", "rejected", "text"} | RESERVED
        return Dataset.from_list(
            [
                {"prompt": row.prompt, "prompt_ids": row.prompt_ids}
                | {key: value for key, value in row.row.items() if key not in columns}
                for row in self.setup.rows.train
            ]
        )

    def demonstrations(self) -> datasets.Dataset:
        """The task's completions; its chosen ones; or the best sample of each prompt."""
        from datasets import Dataset

        rows = []
        for row in self.setup.rows.train:
            ids = row.completions.get("completion") or row.completions.get("chosen")
            if ids:
                rows.append((row.row["id"], row.prompt_ids, list(ids)))
        if not rows:
            spec = self.setup.cell.preparation
            frame = self.samples()
            best = frame.loc[frame.groupby("prompt_id", sort=False)["reward"].idxmax()]
            if spec.min_reward is not None:
                best = best[best["reward"] >= spec.min_reward]
            rows = [
                (str(name), [int(i) for i in prompt], [int(i) for i in completion])
                for name, prompt, completion in zip(
                    best["prompt_id"], best["prompt_ids"], best["completion_ids"], strict=True
                )
            ]
            threshold = "" if spec.min_reward is None else f" with a reward of {spec.min_reward:g} or more"
            self.derived["demonstrations"] = (
                f"the best by {self._ranked_by} of {spec.samples} samples of the start{threshold}, {len(rows)} prompts"
            )
        if not rows:
            raise Incompatible(
                "no sample of the start is good enough to be a demonstration.",
                fix="Lower preparation.min_reward, or raise preparation.samples or preparation.prompts.",
            )
        return Dataset.from_list(
            [
                {"id": name, "input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}
                for name, prompt, completion in rows
            ]
        )

    def preferences(self) -> datasets.Dataset:
        """The task's pairs; or the best and the worst sample of each prompt."""
        from datasets import Dataset

        decode = self.setup.tokenizer.decode
        rows = [
            (row.row["id"], row.prompt_ids, list(row.completions["chosen"]), list(row.completions["rejected"]))
            for row in self.setup.rows.train
            if "chosen" in row.completions
        ]
        if not rows:
            spec = self.setup.cell.preparation
            for name, group in self.samples().groupby("prompt_id", sort=False):
                best, worst = group.iloc[group["reward"].argmax()], group.iloc[group["reward"].argmin()]
                if best["reward"] - worst["reward"] > spec.min_gap:
                    lists = (best["prompt_ids"], best["completion_ids"], worst["completion_ids"])
                    prompt, chosen, rejected = ([int(i) for i in ids] for ids in lists)
                    rows.append((str(name), prompt, chosen, rejected))
            self.derived["preferences"] = (
                f"the best and the worst by {self._ranked_by} of {spec.samples} samples of the start, {len(rows)} pairs"
            )
        if not rows:
            raise Incompatible(
                "all samples of the start have equal rewards: no pair can be made of them.",
                fix="Raise preparation.samples or preparation.prompts, or warm-start the policy.",
            )
        return Dataset.from_list(
            [
                {
                    "id": name,
                    "prompt": decode(prompt),
                    "chosen": decode(chosen),
                    "rejected": decode(rejected),
                    "prompt_ids": prompt,
                    "chosen_ids": chosen,
                    "rejected_ids": rejected,
                }
                for name, prompt, chosen, rejected in rows
            ]
        )

    def reward_model(self) -> None:
        """Where the task has no reward but pairs: train a reward model, or load it, as the training reward."""
        from bakeoff.reward_model import RewardModel

        setup, spec = self.setup, self.setup.cell.preparation
        if setup.train_reward is not None or "preferences" not in setup.data.provides:
            return
        model = RewardModel(setup.roles, setup.tokenizer, max_new_tokens=setup.max_new_tokens)

        def build(folder: Path, meter: Meter) -> None:
            model.fit(setup.rows.train, setup.rows.test, spec, seed=derive_seed("reward model"))
            model.save(folder)

        knobs = spec.model_dump(include={"reward_model_steps", "reward_model_batch", "reward_model_learning_rate"})
        inputs = {**self._start(), "warm_start": None, "lora": setup.cell.lora.model_dump(), **knobs}
        folder = self._stage("reward-model", inputs, build)
        model.restore(folder)
        self._reward_model_id = folder.name
        self.reward_model_role = model
        setup.train_reward = model.score
        accuracy = model.facts.get("pair_accuracy")
        held_out = (
            "" if accuracy is None else f", accuracy {accuracy:.3f} on {model.facts['test_pairs']} held-out pairs"
        )
        self.derived["reward"] = f"Bradley-Terry reward model of {model.facts['train_pairs']} pairs{held_out}"

    def reference_samples(self) -> pd.DataFrame:
        """Samples of the start on the evaluation prompts, with this seed's draws: what win rates are against."""
        import pandas as pd

        from bakeoff.evaluation import draw_samples

        setup, spec = self.setup, self.setup.cell.evaluation

        def build(folder: Path, meter: Meter) -> None:
            frame = draw_samples(
                setup.roles,
                "reference",
                setup.evaluation_rows,
                setup.tokenizer,
                seed=setup.cell.seed,
                samples=spec.samples,
                max_new_tokens=setup.max_new_tokens,
                batch=spec.batch,
            )
            self.store.write_frame(folder / "samples.parquet", frame)

        inputs = {**self._start(), "prompts": spec.prompts, "samples": spec.samples, "seed": setup.cell.seed}
        folder = self._stage("reference-samples", inputs, build)
        self.reference_id = folder.name
        self.shared.pop()  # measuring is nobody's training cost
        return pd.read_parquet(folder / "samples.parquet")

    def reference_pool(self) -> str | None:
        """The id of a stage with many scored samples of the start a prompt, for best-of-n; None without rewards.

        The same draws for every seed: the pool says what the start can do, not what a run did.
        """
        from bakeoff.evaluation import draw_samples

        setup, spec = self.setup, self.setup.cell.evaluation
        scores = {"gold_reward": setup.gold, "train_reward": setup.train_reward}
        rewards = {name: score for name, score in scores.items() if score is not None}
        if not rewards or not spec.reference_samples:
            return None

        def build(folder: Path, meter: Meter) -> None:
            rows = setup.evaluation_rows
            frame = draw_samples(
                setup.roles,
                "reference",
                rows,
                setup.tokenizer,
                seed=derive_seed("reference pool"),
                samples=spec.reference_samples,
                max_new_tokens=setup.max_new_tokens,
                batch=spec.batch,
            )
            by_id = {row.row["id"]: row.row for row in rows}
            scored = [by_id[name] for name in frame["prompt_id"]]
            columns = {name: score(scored, frame["completion"].tolist()) for name, score in rewards.items()}
            kept = frame[["prompt_id", "sample", "completion", "n_tokens"]].assign(**columns)
            self.store.write_frame(folder / "samples.parquet", kept)

        inputs = {
            **self._start(),
            "prompts": spec.prompts,
            "samples": spec.reference_samples,
            "rewards": sorted(rewards),
            "reward_model": self._reward_model_id,
        }
        folder = self._stage("reference-pool", inputs, build)
        self.shared.pop()  # measuring is nobody's training cost
        return folder.name


def _without_paths(settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.model_dump().items() if not isinstance(value, Path)}
