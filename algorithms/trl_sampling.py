"""What TRL's trainers that sample for themselves share: the settings of ``trl-grpo`` and ``trl-rloo``, and their run.

Composed through public constructors. Full-vocabulary sampling at temperature 1, no dropout.
"""

from typing import Any

from pydantic import Field

from bakeoff.contracts import PluginSettings, TrainContext


class TRLSamplingSettings(PluginSettings):
    """Settings named as those of our own algorithms."""

    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak; follows the matrix's schedule. TRL's 1e-6 is for full fine-tuning; ten times that is this
    project's choice."""
    prompts_per_rollout: int = Field(default=8, ge=1)
    """Distinct prompts an optimizer step. This project's choice, as in ``grpo``: small for small machines."""
    group: int = Field(default=8, ge=2)
    """Completions a prompt (TRL: 8)."""
    beta: float = Field(default=0.04, ge=0)
    """Weight of the KL (GRPO's paper: 0.04; TRL: 0)."""
    clip_low: float = Field(default=0.2, gt=0)
    """Lower clip of the ratio (TRL: 0.2)."""
    clip_high: float = Field(default=0.2, gt=0)
    """Upper clip of the ratio (TRL: as the lower)."""


def train(trainer: Any, config: Any, context: TrainContext, settings: TRLSamplingSettings, **own: Any) -> None:
    """Train by one of TRL's trainers until the budget is spent; ``own`` are arguments of its config alone."""
    made = trainer(
        model=context.policy,
        reward_funcs=[context.reward],
        args=config(
            **context.trainer_arguments(
                learning_rate=settings.learning_rate,
                per_device_train_batch_size=settings.prompts_per_rollout * settings.group,
                num_generations=settings.group,
                max_completion_length=context.max_new_tokens,
                temperature=1.0,
                top_p=1.0,
                top_k=0,
                beta=settings.beta,
                epsilon=settings.clip_low,
                disable_dropout=True,
                **{"epsilon_high": settings.clip_high} | own,
            )
        ),
        train_dataset=context.prompts.remove_columns(["prompt_ids"]).map(
            without_bos, fn_kwargs={"bos": context.tokenizer.bos_token or ""}
        ),
        processing_class=context.tokenizer,
        callbacks=context.callbacks,
        optimizers=(context.optimizer(settings.learning_rate), None),
    )
    made.train(resume_from_checkpoint=context.checkpoint)


def without_bos(row: dict[str, Any], bos: str) -> dict[str, Any]:
    """TRL tokenises the text again and adds the BOS token that a chat template has written already."""
    return {"prompt": row["prompt"].removeprefix(bos)}
