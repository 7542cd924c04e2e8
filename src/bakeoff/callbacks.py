"""What makes any ``transformers.Trainer`` keep a cell's promises: its arguments, and one callback.

The callback counts steps and prompts, schedules the learning rate by the share of the budget spent, stops when the
budget is spent, probes and checkpoints on the way, and writes the trainer's metrics to the training log.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from bakeoff.checkpoint import complete
from bakeoff.models import cast_adapters

if TYPE_CHECKING:
    import torch

    from bakeoff.contracts import TrainContext

MISLEADING = frozenset({"epoch", "learning_rate", "num_tokens", "step_time"})
"""Metrics of trainers that are not logged: the meter has better, or (learning rate) they do not know its decay."""


class CellCallback(TrainerCallback):
    """Bound to one cell. ``after_step`` is called off the clock after each optimizer step."""

    def __init__(
        self,
        context: TrainContext,
        *,
        after_step: Callable[[], None],
        dtype: torch.dtype,
        checkpoint_s: float,
        state: Callable[[], dict[str, Any]],
    ) -> None:
        self.context = context
        self.after_step = after_step
        self.dtype = dtype
        self.checkpoint_s = checkpoint_s
        self.state = state
        self._saved = time.monotonic()
        self._learning_rate = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # A trainer may have added an adapter, in fp32; loading one back (a resumed run) moves requires_grad.
        cast_adapters(self.context.policy, self.dtype)
        self.context.roles.refresh()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.context.meter.is_spent:
            control.should_training_stop = True
        for group in kwargs["optimizer"].param_groups:
            # "initial_lr" is the peak, kept by the (constant) scheduler that transformers makes.
            group["lr"] = group["initial_lr"] * self.context.learning_rate_scale()
        self._learning_rate = kwargs["optimizer"].param_groups[0]["lr"]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        meter = self.context.meter
        meter.count_step()
        meter.count_prompts(_rows_a_step(args))
        with meter.off():
            self.after_step()
        if meter.is_spent:
            control.should_training_stop = True
        elif time.monotonic() - self._saved >= self.checkpoint_s:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._saved = time.monotonic()
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if folder.is_dir():  # beside checkpoints of later steps, the trainer's limit takes it at once
            complete(folder, self.state())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        numbers = {key: value for key, value in (logs or {}).items() if isinstance(value, int | float)}
        if "train_runtime" in numbers:
            return  # transformers' summary: its FLOPs and speeds are not ours
        for name in ("loss", "grad_norm"):
            if not math.isfinite(numbers.get(name, 0.0)):
                raise FloatingPointError(f"{name} is {numbers[name]} at step {state.global_step}")
        kept = {key: float(value) for key, value in numbers.items() if key not in MISLEADING}
        self.context.log(kept | {"learning_rate": self._learning_rate})


def _rows_a_step(args: Any) -> int:
    """Distinct prompts an optimizer step of a dataset-driven trainer; 0 where the algorithm counts them itself."""
    if args.ignore_data_skip or getattr(args, "packing", False):
        return 0
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return rows // (getattr(args, "num_generations", None) or 1)


def trainer_arguments(context: TrainContext) -> dict[str, Any]:
    """What ``TrainContext.trainer_arguments`` returns; see there.

    ``max_steps`` is the budget's when it limits steps, else out of reach: the callback stops at the budget.
    No autocast: the base and the adapters are in the cell's precision already.
    """
    import torch

    return {
        "output_dir": str(context.folder),
        "max_steps": int(context.meter.limits.get("steps", 1_000_000)),
        "seed": context.seed,
        "data_seed": context.seed,
        "bf16": False,
        "fp16": False,
        "use_cpu": not torch.cuda.is_available(),
        # Recomputing activations trades time for memory; at LoRA's batch sizes the memory is there.
        "gradient_checkpointing": False,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "logging_first_step": True,
        "save_strategy": "no",
        "save_total_limit": 2,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "remove_unused_columns": False,
    }
