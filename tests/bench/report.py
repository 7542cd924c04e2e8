"""Seconds and peak memory of a report over a synthetic run of a million samples. Run: make bench-report.

Eight algorithms and the untrained base, five seeds, three probes and the end, 16 samples a prompt, seven metrics: the
store that a large run leaves. It is written into a temporary folder first, which is not timed; then a fresh process
writes all reports. The last line is JSON: samples, seconds, peak_bytes (of that process and its children).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from bakeoff.declaration import digest

SEEDS, SAMPLES, PROBES, PROBE_PROMPTS = 5, 16, 3, 100
ALGORITHMS = ("base", "sft", "dpo", "kto", "ppo", "grpo", "rloo", "gpro", "dr-grpo")
METRICS = {
    "gold_reward": ("higher", -1.0, 1.0),
    "train_reward": ("higher", -1.0, 1.0),
    "win_rate": ("higher", 0.0, 1.0),
    "kl": ("lower", 0.0, None),
    "length_tokens": ("none", 0.0, None),
    "ended_eos": ("none", 0.0, 1.0),
    "distinct_2": ("higher", 0.0, 1.0),
}
POOL = "reference-pool-synthetic"
TEXT = """a wonderful dull film with some quiet charm and one very long second half that never quite ends"""
WORDS = np.array(TEXT.split())


def write(folder: Path, samples: int) -> int:
    """Write a run of about ``samples`` samples in the store's schema; how many there are."""
    rng = np.random.default_rng(0)
    cells = len(ALGORITHMS) * SEEDS
    probed = (cells - SEEDS) * PROBES * PROBE_PROMPTS * SAMPLES
    prompts = max(PROBE_PROMPTS, -(-(samples - probed) // (cells * SAMPLES)))
    ease = rng.normal(0, 0.2, prompts)
    entries, total = [], 0
    for rank, name in enumerate(ALGORITHMS):
        for seed in range(SEEDS):
            entry = {
                "id": f"{name}-{seed}",
                "model": "synthetic-1B",
                "task": "reviews",
                "budget": "large",
                "seed": seed,
            }
            entry |= {"algorithm": name, "algorithm_name": name, "title": name.upper(), "incompatible": None}
            entries.append(entry)
            total += _cell(folder / "cells" / entry["id"], entry, rank, ease, rng)
    analysis = {"primary_metric": "gold_reward", "margin": None, "family": "against-base"}
    design = {"seeds": list(range(SEEDS)), "prompts": prompts, "samples": SAMPLES, "checkpoint": "last"}
    declaration = analysis | design
    declaration |= {"hash": digest(declaration), "declared": "2026-01-01T00:00:00+00:00", "results": 0}
    matrix = {"budgets": [{"name": "large", "flops": 1e15}]}
    plan = {"name": "synthetic", "created": "", "command": "", "declarations": [declaration], "matrix": matrix}
    _json(folder / "plan.json", plan | {"cells": entries})
    _json(folder / "environment.json", {"python": sys.version.split()[0], "packages": {}})
    grid = pd.MultiIndex.from_product([_ids(prompts), range(SAMPLES)], names=["prompt_id", "sample"]).to_frame(
        index=False
    )
    gold = np.clip(np.repeat(ease, SAMPLES) + rng.normal(0, 0.3, len(grid)), -1, 1)
    (folder / "stages" / POOL).mkdir(parents=True)
    grid.assign(gold_reward=gold, train_reward=gold).to_parquet(folder / "stages" / POOL / "samples.parquet")
    return total


def _cell(folder: Path, entry: dict, rank: int, ease: np.ndarray, rng: np.random.Generator) -> int:
    trained = rank > 0
    spent = {"steps": 400, "prompts": 6400, "tokens_trained": 8e5, "tokens_generated": 4e5 * (rank > 3)}
    spent |= {"tokens_scored": 1e5, "flops": 1e15, "seconds": 3600.0 + 200 * rank}
    spent = {key: value * trained for key, value in spent.items()}
    fractions = [0.25, 0.5, 0.75, 1.0] if trained else [1.0]
    metrics = [
        {"name": name, "unit": "", "direction": direction, "description": name, "low": low, "high": high}
        for name, (direction, low, high) in METRICS.items()
    ]
    record = {
        "metrics": metrics,
        "settings": {},
        "parity": {"device": "cuda"},
        "references": {},
        "reference_pool": POOL,
    }
    _json(folder / "cell.json", entry | record | {"data": {"source": "synthetic", "test_rows": len(ease)}})
    _json(folder / "status.json", {"status": "ok", "reason": "", "wall_s": 4000.0})
    ledger = {"spent": spent, "shared": [], "trainable": {"policy": 1e7}, "overshoot": {}, "peak_bytes": 2e10}
    _json(
        folder / "ledger.json",
        ledger | {"probes": [{"fraction": f} | {k: v * f for k, v in spent.items()} for f in fractions]},
    )
    log = [json.dumps({"step": i, "fraction": i / 400, "seconds": 9.0 * i, "loss": 1.0}) for i in range(400 * trained)]
    (folder / "training.jsonl").write_text("\n".join(log))
    scores, texts = [], []
    offset = rng.normal(0, 0.02)
    for fraction in fractions:
        count = len(ease) if fraction == 1.0 else PROBE_PROMPTS
        index = pd.MultiIndex.from_product([_ids(count), range(SAMPLES)], names=["prompt_id", "sample"])
        keys = index.to_frame(index=False).assign(fraction=fraction)
        rows = len(keys)
        gain = 0.04 * rank * fraction + offset * trained
        gold = np.clip(np.repeat(ease[:count], SAMPLES) + gain + rng.normal(0, 0.3, rows), -1, 1)
        values = {"gold_reward": gold, "train_reward": np.clip(gold + 0.02 * rank * fraction, -1, 1)}
        values |= {
            "win_rate": (rng.random(rows) < 0.5 + gain).astype(float),
            "kl": rng.gamma(2, 1 + rank * fraction, rows),
        }
        values |= {"length_tokens": rng.integers(20, 80, rows) + rank, "ended_eos": rng.random(rows) < 0.9}
        values |= {"distinct_2": rng.uniform(0.7, 1, rows)}
        scores += [keys.assign(metric=name, value=np.asarray(value, dtype=float)) for name, value in values.items()]
        lines = [" ".join(row) for row in WORDS[rng.integers(len(WORDS), size=(rows, 30))]]
        tokens = list(rng.exponential(0.05, (rows, 40)).astype(np.float32)) if fraction == 1.0 else None
        texts.append(
            keys.assign(
                prompt="Review of film " + keys["prompt_id"], completion=lines, n_tokens=40, ended_eos=True
            ).assign(truncated=False, logp=-40.0, reference_logp=-42.0, kl=values["kl"], token_kl=tokens)
        )
    pd.concat(scores, ignore_index=True).to_parquet(folder / "scores.parquet", index=False)
    samples = pd.concat(texts, ignore_index=True)
    samples.to_parquet(folder / "samples.parquet", index=False)
    return len(samples)


def _ids(count: int) -> list[str]:
    return [f"p{number:06d}" for number in range(count)]


def _json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema_version": 1} | content))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="write the run and its report here, and leave them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch) / "synthetic"
        total = write(folder, options.samples)
        print(f"{total} samples in {folder}; writing all reports", flush=True)
        before = time.perf_counter()
        command = [sys.executable, "-m", "bakeoff", "report", str(folder), "--to", str(folder / "report")]
        done = subprocess.run(command, env=os.environ | {"PYTHONSAFEPATH": "1"}, stdout=subprocess.DEVNULL, check=False)
        seconds = time.perf_counter() - before
        if done.returncode:
            sys.exit(done.returncode)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"samples": total, "seconds": round(seconds, 1), "peak_bytes": peak}))


if __name__ == "__main__":
    main()
