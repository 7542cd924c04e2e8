"""Work that cells share: the warm start, samples to make demonstrations and pairs of, the reward model.

A stage's id hashes what determines its result, so cells that need the same stage share it; a file lock keeps
two workers from computing it twice. Each stage has a ledger: a report charges it to those who use it.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bakeoff import rankings
from bakeoff.budget import Meter
from bakeoff.errors import Incompatible
from bakeoff.rows import pieces
from bakeoff.seeds import derive_seed
from bakeoff.setup import Setup
from bakeoff.stageids import StageKey, StageKeys, has_reward_model, learns_from_reward

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from bakeoff.checkpoint import Stateful
    from bakeoff.rankings import Rankings
    from bakeoff.reward_model import RewardModel
    from bakeoff.rows import Tokenised
    from bakeoff.store import Store

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
        self._annotator = setup.gold or setup.train_reward
        self.keys = StageKeys(setup.cell, setup.roles.device.type)

    # --------------------------------------------------------------------------------- the mechanism

    def _stage(self, key: StageKey, build: Callable[[Path, Meter], None]) -> Path:
        """The folder of a stage; computed under a lock and a meter of its own where it is not there yet."""
        folder = self.store.stage(key.id)
        with self.store.lock("stage", key.id):
            if not folder.exists():
                self.progress("stages", 0.0, key.label)
                partial = self.store.partial_stage(key.id)
                partial.mkdir(parents=True, exist_ok=True)
                meter = Meter({"seconds": math.inf})
                with meter.counting(self.setup.roles):
                    build(partial, meter)
                ledger = {**meter.spent(), "roles": {name: asdict(role) for name, role in meter.roles.items()}}
                spec = {name: getattr(self.setup.cell, name).model_dump(mode="json") for name in ("model", "lora")}
                record = {"id": key.id, "kind": key.kind, "label": key.label, "inputs": key.record, "ledger": ledger}
                record |= spec
                self.store.write_json(partial / "stage.json", record)
                self.store.commit(partial)
        if key.charged:
            ledger = self.store.read_json(folder / "stage.json")["ledger"]
            self.shared.append({"stage": key.id, "kind": key.kind, "label": key.label, **ledger})
        return folder

    # ------------------------------------------------------------------------------------ warm start

    def warm_start(self, number: int, train: Callable[[Path, Meter], None]) -> None:
        """Train the adapter by stage ``number`` of the warm start, or load it; a frozen copy becomes the reference.

        ``train`` trains the policy of this cell's setup within the given meter.
        """
        from safetensors.torch import load_file, save_file

        roles = self.setup.roles

        def tensors() -> dict[str, Any]:
            return {str(index): p.data for index, p in enumerate(roles.parameters("policy"))}

        def build(folder: Path, meter: Meter) -> None:
            train(folder, meter)
            save_file({key: value.contiguous() for key, value in tensors().items()}, folder / "policy.safetensors")

        folder = self._stage(self.keys.warm_start(number), build)
        self.keys.warm_start_id = folder.name
        for key, value in load_file(folder / "policy.safetensors").items():
            tensors()[key].copy_(value)
        roles.add("reference", copy_of="policy")

    # --------------------------------------------------------------- demonstrations, preferences, reward

    def samples(self) -> pd.DataFrame:
        """Completions of training prompts from the start, ranked: columns of ``draw_samples`` and ``reward``.

        Ranked by the gold reward where the task has one, since they stand for what an annotator would choose.
        """
        spec = self.setup.cell.preparation
        return self._ranked_samples(self.keys.samples(), self.setup.rows.train[: spec.prompts])

    def _ranked_samples(self, key: StageKey, rows: Sequence[Tokenised]) -> pd.DataFrame:
        import pandas as pd

        setup, spec, score = self.setup, self.setup.cell.preparation, self._annotator
        if score is None:
            raise Incompatible(
                "the task has neither a reward to rank samples by nor the rows themselves.",
                fix="Give the task a reward, or rows of the kind that the algorithm consumes.",
            )

        def build(folder: Path, meter: Meter) -> None:
            frame = setup.draw_samples("policy", rows, seed=derive_seed(key.kind), samples=spec.samples)
            by_id = {row.row["id"]: row.row for row in rows}
            scored = score([by_id[name] for name in frame["prompt_id"]], frame["completion"].tolist())
            self.store.write_frame(folder / "samples.parquet", frame.assign(reward=scored))

        return pd.read_parquet(self._stage(key, build) / "samples.parquet")

    @property
    def _ranked_by(self) -> str:
        return "gold reward" if self.setup.gold else "training reward"

    def prompts(self) -> datasets.Dataset:
        """Training prompts with the task's own columns.

        A column that Arrow cannot hold, of mixed types or of integers over 64 bits, is not among them; rewards are
        given whole rows.
        """
        from datasets import Dataset

        # The rest goes to reward functions by name; a column must not pass for one of their own arguments.
        left_out = {"prompt", "completion", "chosen", "rejected", "text"} | RESERVED
        rows = self.setup.rows.train
        names = dict.fromkeys(name for row in rows for name in row.row if name not in left_out)
        own = {name: [row.row.get(name) for row in rows] for name in names}
        return Dataset.from_dict(
            {"prompt": [row.prompt for row in rows], "prompt_ids": [row.prompt_ids for row in rows]}
            | {name: values for name, values in own.items() if _arrow_holds(values)}
        )

    def text(self) -> datasets.Dataset:
        """The task's texts, cut to the longest sequence in training."""
        from datasets import Dataset

        return Dataset.from_list(pieces(self.setup.rows.train, self.setup.max_tokens))

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
        ranked = self._ranked("preferences", "the best and the worst by {by} of {samples} samples of the start")
        rows = []
        for row in ranked:
            prompt, scores = row["prompt_ids"], row["scores"]
            chosen, rejected = (row["completion_ids"][scores.index(pick(scores))] for pick in (max, min))
            text = {"prompt": decode(prompt), "chosen": decode(chosen), "rejected": decode(rejected)}
            ids = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
            rows.append({"id": row["id"], **text, **ids})
        return Dataset.from_list(rows)

    def rankings(self) -> datasets.Dataset:
        """The task's pairs; or all samples of each prompt, with the rewards that rank them."""
        from datasets import Dataset

        return Dataset.from_list(list(self._ranked("rankings", "{samples} samples of the start by {by}")))

    def _ranked(self, name: str, how: str) -> Rankings:
        """The task's own pairs, or samples of the start that are not all alike; ``how`` is told of ``name`` then."""
        if own := rankings.of_pairs(self.setup.rows.train):
            return own
        spec = self.setup.cell.preparation
        rows = rankings.of_samples(self.samples(), min_gap=spec.min_gap)
        if not rows:
            raise Incompatible(
                "all samples of the start have equal rewards: no pair can be made of them.",
                fix="Raise preparation.samples or preparation.prompts, or warm-start the policy.",
            )
        told = how.format(samples=spec.samples, by=self._ranked_by)
        self.derived[name] = f"{told}, {len(rows)} {'pairs' if name == 'preferences' else 'prompts'}"
        return rows

    def held_out_rankings(self) -> Rankings:
        """The same of the held-out prompts: what reward models are measured on. Empty where the task has neither.

        Ask for it before training: samples are the start's.
        """
        rows = self.setup.evaluation_rows
        own = rankings.of_pairs(rows)
        if own or self._annotator is None:
            return own
        return rankings.of_samples(self._ranked_samples(self.keys.held_out_samples(), rows))

    def new_reward_model(self) -> RewardModel:
        """The cell's reward model, as yet untrained."""
        from bakeoff.reward_model import RewardModel

        setup = self.setup
        self.reward_model_role = RewardModel(setup.roles, setup.tokenizer, max_new_tokens=setup.max_new_tokens)
        return self.reward_model_role

    def reward_model(self) -> None:
        """Train a reward model or load it as the training reward, where one is asked for or the task has none.

        It is made before a warm start and knows nothing of it, so that all seeds share it.
        """
        from bakeoff.checkpoint import STATE, LoopCheckpoints, latest_checkpoint
        from bakeoff.reward_model import CHECKED

        setup, spec = self.setup, self.setup.cell.preparation
        if not has_reward_model(setup.cell):
            return
        model, paid = self.new_reward_model(), len(self.shared)
        learned_from = self._ranked("rankings", "{samples} samples of the start by {by}")
        key = self.keys.reward_model()

        def build(folder: Path, meter: Meter) -> None:
            count = spec.reward_model.steps
            meter.limits = {"steps": count}

            def state() -> dict[str, Any]:
                return {"meter": meter.state()}

            checkpoints = LoopCheckpoints(folder / "checkpoints", setup.roles, setup.cell.checkpoint_s, state)

            def steps(optimizer: Stateful) -> Iterator[int]:
                if (found := latest_checkpoint(checkpoints.folder)) is not None:
                    meter.restore(json.loads((found / STATE).read_text())["meter"])
                    checkpoints.restore(found, [optimizer])
                while not meter.is_spent:
                    self.progress("stages", meter.fraction, key.label)
                    yield meter.steps
                    meter.count_step()
                    checkpoints.save_when_due(meter.steps, [optimizer])

            seed = derive_seed("reward model")
            model.fit(learned_from, spec.reward_model, steps=steps, decay=lambda step: 1 - step / count, seed=seed)
            model.normalise(learned_from)
            if held_out := rankings.of_pairs(setup.rows.test)[:CHECKED]:
                right = model.pairs(held_out)["logit"] > 0
                model.facts |= {"test_pairs": len(held_out), "pair_accuracy": float(right.mean())}
            model.save(folder)
            shutil.rmtree(checkpoints.folder, ignore_errors=True)

        model.restore(self._stage(key, build))
        if not learns_from_reward(setup.cell):
            del self.shared[paid:]  # it measures this cell, and measuring is nobody's training cost
        setup.train_reward = model.score
        facts, noise = model.facts, spec.reward_model.label_noise
        told = f"reward model, loss {facts['loss']}, of {facts['comparisons']} comparisons"
        told += f", {noise:.0%} of them turned round" if noise else ""
        if "pair_accuracy" in facts:
            told += f", accuracy {facts['pair_accuracy']:.3f} on {facts['test_pairs']} held-out pairs"
        self.derived["reward"] = told

    def reference_samples(self) -> pd.DataFrame:
        """Samples of the start on the evaluation prompts, with this seed's draws: what win rates are against."""
        import pandas as pd

        setup = self.setup

        def build(folder: Path, meter: Meter) -> None:
            seed, samples = setup.cell.seed, setup.cell.evaluation.samples
            frame = setup.draw_samples("reference", setup.evaluation_rows, seed=seed, samples=samples)
            self.store.write_frame(folder / "samples.parquet", frame)

        folder = self._stage(self.keys.reference_samples(), build)
        self.reference_id = folder.name
        return pd.read_parquet(folder / "samples.parquet")

    def reference_pool(self) -> str | None:
        """The id of a stage with many scored samples of the start a prompt, for best-of-n; None without rewards.

        The same draws for every seed: the pool says what the start can do, not what a run did.
        """
        setup, count = self.setup, self.setup.cell.evaluation.reference_samples
        scores = {"gold_reward": setup.gold, "train_reward": setup.train_reward}
        rewards = {name: score for name, score in scores.items() if score is not None}
        if not rewards or not count:
            return None

        def build(folder: Path, meter: Meter) -> None:
            rows = setup.evaluation_rows
            frame = setup.draw_samples("reference", rows, seed=derive_seed("reference pool"), samples=count)
            by_id = {row.row["id"]: row.row for row in rows}
            scored = [by_id[name] for name in frame["prompt_id"]]
            columns = {name: score(scored, frame["completion"].tolist()) for name, score in rewards.items()}
            kept = frame[["prompt_id", "sample", "completion", "n_tokens"]].assign(**columns)
            self.store.write_frame(folder / "samples.parquet", kept)

        return self._stage(self.keys.reference_pool(), build).name


def _arrow_holds(values: Sequence[Any]) -> bool:
    import pyarrow as pa

    try:
        pa.array(values)
    except (pa.ArrowException, OverflowError):
        return False
    return True
