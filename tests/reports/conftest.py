"""A run folder made of numbers with a known shape: four trained algorithms and base, three seeds, 48 prompts."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bakeoff.reports.frame import Results

from bakeoff.declaration import digest

HOSTILE = {
    "p000": "<script>alert('xss')</script>",
    "p001": "</script><script>alert(1)</script>",
    "p002": "<img src=x onerror=alert(1)> <svg/onload=alert(2)>",
    "p003": "line\u2028separator and par\u2029agraph",
    "p004": "abc\u202egnp.exe\u202c and zero\u200bwidth",
    "p005": "x" * 20_000,
    "p006": "null\x00byte and escape \x1b[31m",
    "p007": '{{ 7 * 7 }} {% raw %} =HYPERLINK("http://evil") " \' & \\input{/etc/passwd}',
}
ALGORITHMS = {  # label: (entry point, title, gain at the end, KL at the end, seconds, shared FLOPs)
    "base": ("base", "Untrained", 0.0, 0.0, 0.0, 0.0),
    "sft": ("sft", "Supervised Fine-Tuning", 0.18, 3.1, 31.0, 1.1e12),
    "dpo": ("dpo", "Direct Preference Optimization", 0.27, 7.5, 38.0, 1.1e12),
    "ppo": ("ppo", "Proximal Policy Optimization", 0.22, 5.2, 52.0, 0.0),
    "grpo-lr3": ("grpo", "Group Relative Policy Optimization", 0.36, 9.4, 45.0, 0.0),
}
SEEDS = (0, 1, 2)
PROMPTS = 48
METRICS = [
    ("gold_reward", "VADER compound", "higher", "gold reward", -1.0, 1.0, "reward"),
    ("train_reward", "VADER compound", "higher", "reward that training optimised", -1.0, 1.0, "reward"),
    ("win_rate", "share", "higher", "against the start", 0.0, 1.0, "win_rate"),
    ("kl", "nats/sequence", "none", "exact KL from the start", 0.0, None, "kl"),
    ("length_tokens", "tokens", "none", "completion length", 0.0, None, "health"),
    ("ended_eos", "share", "none", "ends by itself", 0.0, 1.0, "health"),
    ("distinct_2", "share", "higher", "distinct bigrams", 0.0, 1.0, "health"),
]
LIMIT = 6e12
POOL = "reference-pool-0123456789ab"


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema_version": 1} | content), encoding="utf-8")


class RunWriter:
    """Writes a run in the store's schema; ``write`` once, then change what a test is about."""

    def __init__(
        self,
        folder: Path,
        *,
        tasks: tuple[str, ...] = ("sentiment",),
        seeds: tuple[int, ...] = SEEDS,
        prompts: int = PROMPTS,
    ):
        self.folder, self.tasks, self.seeds = folder, tasks, seeds
        self.prompts = [f"p{i:03d}" for i in range(prompts)]
        self.random = np.random.default_rng(7)
        self.ease = {prompt: self.random.normal(0, 0.18) for prompt in self.prompts}

    def write(self) -> "RunWriter":
        cells = [self._cell(task, label, seed) for task in self.tasks for label in ALGORITHMS for seed in self.seeds]
        budget = {"name": "6tf", "version": 1, "flops": LIMIT, "steps": None}
        matrix = {"name": "synthetic", "budgets": [budget]}
        plan = {"name": "synthetic", "created": "2026-11-23T12:00:00Z", "command": "bakeoff run synthetic"}
        _write(
            self.folder / "plan.json", plan | {"declarations": [self.declaration()], "matrix": matrix, "cells": cells}
        )
        self._pool()
        packages = {"torch": "2.13.0", "transformers": "5.23.0", "trl": "1.16.0", "bakeoff": "0.1.0"}
        where = {"python": "3.11.2", "platform": "Linux-6.1-x86_64", "cpu": "AMD EPYC 7R13", "threads": 2, "gpu": []}
        git = {"commit": "0123456789abcdef", "dirty": False}
        _write(
            self.folder / "environment.json",
            where | {"memory_bytes": 8 << 30, "packages": packages, "git": git, "command": "bakeoff run synthetic"},
        )
        for cell in cells:
            if cell["algorithm"] == "ppo" and cell["seed"] == self.seeds[-1] and len(self.seeds) > 1:
                self._fail(cell, "oom", "out of memory: tried to allocate 2.0 GiB <b>of 8</b>")
            else:
                self._ok(cell)
        return self

    def declaration(self, **changes: object) -> dict:
        """As the runner writes it, its hash with it."""
        analysis = {"primary_metric": "gold_reward", "margin": None, "family": "against-base"}
        design = {"seeds": list(self.seeds), "prompts": len(self.prompts), "samples": 1, "checkpoint": "last"}
        fields = analysis | design | changes
        return fields | {"hash": digest(fields), "declared": "2026-11-23T12:00:00+00:00", "results": 0}

    def _pool(self) -> None:
        """Sixteen scored samples of the start a prompt, spread as those of the base are."""
        folder = self.folder / "stages" / POOL
        folder.mkdir(parents=True)
        rows = [(p, i, np.clip(0.31 + self.ease[p] + self.random.normal(0, 0.2), -1, 1))
                for p in self.prompts for i in range(16)]  # fmt: skip
        pool = pd.DataFrame(rows, columns=["prompt_id", "sample", "gold_reward"])
        pool.assign(train_reward=pool["gold_reward"]).to_parquet(folder / "samples.parquet")

    def results(self) -> Results:
        return Results.read(self.folder)

    def path(self, algorithm: str, seed: int = 0, task: str | None = None) -> Path:
        return self.folder / "cells" / self._id(task or self.tasks[0], algorithm, seed)

    def edit(self, file: Path, **changes: object) -> None:
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    @staticmethod
    def _id(task: str, label: str, seed: int) -> str:
        return f"{task[:4]}-{label}-{seed}"

    def _cell(self, task: str, label: str, seed: int) -> dict:
        name, title, *_ = ALGORITHMS[label]
        cell = {"id": self._id(task, label, seed), "model": "SmolLM2-135M", "task": task, "budget": "6tf", "seed": seed}
        return cell | {"algorithm": label, "algorithm_name": name, "title": title, "incompatible": None}

    def _fail(self, cell: dict, status: str, reason: str) -> None:
        folder = self.folder / "cells" / cell["id"]
        _write(folder / "status.json", {"status": status, "reason": reason, "traceback": "Traceback …", "wall_s": 9.0})

    def _ok(self, cell: dict) -> None:
        folder = self.folder / "cells" / cell["id"]
        _, _, gain, kl, seconds, shared = ALGORITHMS[cell["algorithm"]]
        trained = cell["algorithm"] != "base"
        names = ("name", "unit", "direction", "description", "low", "high", "evaluator")
        parity = {"model_sha": "aa11", "device": "cpu", "lora": {"r": 16}, "train_rows_sha": "bb22"}
        _write(
            folder / "cell.json",
            {key: cell[key] for key in cell if key != "incompatible"}
            | {"paper": "", "settings": {"learning_rate": 3e-4}, "parity": parity}
            | {"metrics": [dict(zip(names, metric, strict=True)) for metric in METRICS]}
            | {"reference_pool": POOL}
            | {"references": {"best constant answer 'good'": 0.44}, "data": {"source": "invented", "test_rows": 48}}
            | {"data": {"source": "synthetic films", "licence": "Apache-2.0", "train_rows": 900, "test_rows": 48}},
        )
        _write(folder / "status.json", {"status": "ok", "reason": "", "traceback": None, "wall_s": seconds + 20})
        offset = self.random.normal(0, 0.02)
        fractions = (0.33 + 0.01 * cell["seed"], 0.67, 1.0) if trained else (1.0,)
        scores, samples = [], []
        for fraction in fractions:
            for prompt in self.prompts if fraction == 1.0 else self.prompts[:32]:
                scored, text = self._sample(prompt, cell, gain * fraction**0.7 + offset, kl * fraction)
                scores += [(prompt, 0, fraction, metric, value) for metric, value in scored.items()]
                tokens = self._token_kl(cell, kl) if fraction == 1.0 else None
                samples.append(
                    (prompt, 0, fraction, f"Review of film {prompt}:", text, 24, True, False, -30.0, -31.0, kl, tokens)
                )
        columns = ["prompt_id", "sample", "fraction"]
        pd.DataFrame(scores, columns=[*columns, "metric", "value"]).to_parquet(folder / "scores.parquet")
        texts = ["prompt", "completion", "n_tokens", "ended_eos", "truncated", "logp", "reference_logp", "kl"]
        texts.append("token_kl")
        pd.DataFrame(samples, columns=[*columns, *texts]).to_parquet(folder / "samples.parquet")
        self._ledger(folder, fractions, seconds, shared if trained else 0.0, trained)
        log = [{"step": i, "fraction": i / 20, "seconds": i * seconds / 20, "loss": 2.0 - i / 20} for i in range(20)]
        (folder / "training.jsonl").write_text("\n".join(json.dumps(row) for row in log if trained))

    @staticmethod
    def _token_kl(cell: dict, kl: float) -> np.ndarray:
        """24 tokens: sft spends its KL evenly, all others three fifths at the first token and the rest evenly."""
        even = np.full(24, kl / 24, dtype=np.float32)
        return even if cell["algorithm"] == "sft" else np.r_[0.6 * kl, np.full(23, 0.4 * kl / 23)].astype(np.float32)

    def _sample(self, prompt: str, cell: dict, gain: float, kl: float) -> tuple[dict[str, float], str]:
        gold = float(np.clip(0.31 + self.ease[prompt] + gain + self.random.normal(0, 0.2), -1, 1))
        scored = {"gold_reward": gold, "train_reward": min(1.0, gold + 0.05 * kl / 9), "win_rate": float(gain > 0.1)}
        scored |= {"kl": max(0.0, kl * (1 + self.random.normal(0, 0.1))), "length_tokens": 24 + 20 * gain}
        scored |= {"ended_eos": 1.0, "distinct_2": 0.9 - 0.2 * gain}
        return scored, HOSTILE.get(
            prompt, f"A wonderful film that {cell['algorithm']} praises warmly, seed {cell['seed']}."
        )

    def _ledger(self, folder: Path, fractions: tuple, seconds: float, shared: float, trained: bool) -> None:
        on_policy = shared == 0.0 and trained
        spent = {"steps": 60, "prompts": 960, "tokens_trained": 61440, "tokens_generated": 30720 * on_policy}
        spent |= {"tokens_scored": 12000, "flops": LIMIT * 1.01, "seconds": seconds}
        spent = {name: value * trained for name, value in spent.items()}
        _write(
            folder / "ledger.json",
            {"budget": {"name": "6tf", "version": 1, "limits": {"flops": LIMIT}}, "spent": spent, "roles": {}}
            | {"overshoot": {"flops": 0.01 * trained}, "peak_bytes": 1.3e9}
            | {"trainable": {"policy": 4_884_480, "auxiliary": 577 * on_policy}}
            | {"shared": [{"stage": "pairs-1", "kind": "pairs", "flops": shared, "seconds": 12.0}] if shared else []}
            | {"probes": [{"fraction": f} | {name: value * f for name, value in spent.items()} for f in fractions]},
        )


@pytest.fixture
def run(tmp_path: Path) -> RunWriter:
    """A written run that a test may change."""
    return RunWriter(tmp_path / "run").write()


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A run that no test changes."""
    return RunWriter(tmp_path_factory.mktemp("shared") / "run").write().results()


@pytest.fixture(scope="session")
def five_seeds(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The same with enough seeds for verdicts."""
    return RunWriter(tmp_path_factory.mktemp("five") / "run", seeds=(0, 1, 2, 3, 4)).write().results()
