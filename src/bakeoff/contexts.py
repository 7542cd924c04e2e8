"""What a plugin is handed: to train, to complete held-out prompts, to score. The contracts themselves are beside this.

Imports no torch. Shapes and units are those of ``bakeoff.contracts``, from where plugins import these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bakeoff.spec import ScheduleSpec

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    import torch
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from bakeoff.budget import Meter
    from bakeoff.checkpoint import LoopCheckpoints, Stateful
    from bakeoff.contracts import Judge, RewardFunction, Row, Score, Task
    from bakeoff.modelview import ModelView
    from bakeoff.reward_model import RewardModel
    from bakeoff.roles import RoleModel


@dataclass
class TrainContext:
    """What an algorithm is handed. All of it is prepared, seeded and metered already.

    Of ``text``, ``prompts``, ``demonstrations``, ``preferences``, ``rankings`` and ``reward``, those are set that the
    algorithm consumes; any other raises ``PluginError`` when it is used.
    """

    policy: PeftModel
    """The model to train: LoRA adapter "default" (fresh, or the warm start's) on the shared base."""
    roles: RoleModel
    """The same model by role: policy, reference, value, reward. See ``bakeoff.roles``."""
    tokenizer: PreTrainedTokenizerBase
    prompts: datasets.Dataset
    """Columns ``id, prompt`` (text), ``prompt_ids`` and the task's own: for rollouts."""
    demonstrations: datasets.Dataset
    """Columns ``id, input_ids, labels`` (-100 on the prompt): TRL's tokenised SFT format."""
    preferences: datasets.Dataset
    """Columns ``id, prompt_ids, chosen_ids, rejected_ids``: TRL's tokenised DPO format."""
    reward: RewardFunction
    """The reward to optimise on training rows: the task's own, or a reward model's.

    ``reward(prompts=..., completions=..., id=...)``: ``id`` has the ``id`` of each completion's row, by which it is
    found. With ``completion_ids``, the sampled tokens, a reward model scores these very tokens instead of the text
    tokenised again; a task's own reward reads the text.
    """
    meter: Meter
    """Counts what the model computes; ``meter.fraction`` is the share of the budget spent."""
    seed: int
    folder: Path
    """For checkpoints. Outlives a crash of the cell; deleted when the cell ends well."""
    max_new_tokens: int
    """Completion length in tokens, for rollouts in training as in evaluation."""
    rankings: datasets.Dataset = None  # type: ignore[assignment]
    """Columns ``id, prompt_ids, completion_ids, scores``: the completions of a prompt, and a number for each that is
    larger for the better. A pair has the scores 1 and 0."""
    reward_model: RewardModel = None  # type: ignore[assignment]
    """The untrained reward model of an algorithm with ``role = "reward"``; its rewards are normalised as it is saved,
    which is no algorithm's doing."""
    max_tokens: int = 0
    """The longest sequence in training: ``max_prompt_tokens`` and ``max_new_tokens`` of the task together."""
    text: datasets.Dataset = None  # type: ignore[assignment]
    """Columns ``id, input_ids``: pieces of at most ``max_tokens`` tokens, none of more than one text; each text's
    last piece ends with EOS."""
    schedule: ScheduleSpec = field(default_factory=ScheduleSpec)
    callbacks: list[TrainerCallback] = field(default_factory=list)
    """Hand them to any ``transformers.Trainer``: they stop at the budget, schedule the
    learning rate by the fraction spent, log, probe and report progress."""
    resume_from: Path | None = None
    """A checkpoint that an interrupted attempt at this cell left in ``folder``, if any."""
    record: Callable[[Mapping[str, float]], None] = lambda metrics: None
    on_step: Callable[[], None] = lambda: None
    loop_checkpoints: LoopCheckpoints | None = None
    """Where ``steps`` keeps its checkpoints, if anywhere."""
    _turn: list[Mapping[str, float]] | None = None

    def log(self, metrics: Mapping[str, float]) -> None:
        """Write a line of training metrics, stamped with the step and the budget spent; a turn's, at its end."""
        if self._turn is None:
            self.record(metrics)
        else:
            self._turn.append(metrics)

    def steps(self, *kept: Stateful) -> Iterator[int]:
        """Optimizer steps for a hand-written loop: yields 0, 1, ... until the budget is spent.

        ``kept`` is what changes from step to step beside the trained weights and torch's global generator, which are
        always kept: the optimizer, and whatever else has ``state_dict()`` and ``load_state_dict()``. A checkpoint holds
        it, and a killed cell goes on there; without any, no checkpoint is written and the cell starts again. Call it
        once: a checkpoint does not know which of two loops it is of.
        """
        checkpoints = self.loop_checkpoints if kept else None
        if checkpoints and self.resume_from:
            checkpoints.restore(self.resume_from, kept)
        while not self.meter.is_spent:
            lines: list[Mapping[str, float]] = []
            self._turn = lines
            yield self.meter.steps
            self._turn = None
            self.meter.count_step()
            for metrics in lines:
                self.record(metrics)
            self.on_step()
            if checkpoints and not self.meter.is_spent:
                checkpoints.save_when_due(self.meter.steps, kept)

    @property
    def checkpoint(self) -> str | None:
        """``resume_from`` as ``transformers.Trainer.train(resume_from_checkpoint=...)`` takes it."""
        return str(self.resume_from) if self.resume_from is not None else None

    def learning_rate_scale(self) -> float:
        """Factor in [0, 1] on the learning rate now: the schedule that every algorithm follows."""
        from bakeoff.budget import learning_rate_scale

        return learning_rate_scale(self.meter.fraction, self.schedule)

    def optimizer(self, learning_rate: float, *, layer_decay: float = 1.0) -> torch.optim.Optimizer:
        """The optimizer that every algorithm uses, over the policy's parameters: AdamW with fp32 masters.

        With ``layer_decay`` below 1 each layer of the transformer learns at that share of the rate of the one
        above it (discriminative fine-tuning: Howard and Ruder 2018, arXiv:1801.06146, §3.2).
        """
        from bakeoff.optim import MasterAdamW, layer_groups

        return MasterAdamW(layer_groups(self.roles, learning_rate, layer_decay), lr=learning_rate)

    def trainer_arguments(self, **overrides: Any) -> dict[str, Any]:
        """Arguments for any ``TrainingArguments`` that make it obey this cell.

        Seeded, silent, checkpointed in ``folder``, on the right device and precision, without
        gradient checkpointing or an own learning-rate schedule; ``overrides`` win.
        """
        from bakeoff.callbacks import trainer_arguments

        return trainer_arguments(self) | overrides


@dataclass(frozen=True)
class CompletionContext:
    """What ``Algorithm.complete`` is handed. Frames have the columns of ``EvalContext.samples``, and
    ``prompt_ids, completion_ids``."""

    rows: Sequence[Row]
    """The held-out rows to complete."""
    samples: int
    """Completions a row."""
    sample: Callable[[int], pd.DataFrame]
    """``sample(n)``: n samples a row of the policy, numbered from 0; the first of 8 are those of 4."""
    write: Callable[[Sequence[str]], pd.DataFrame]
    """One given text a row as each of its completions, ended with EOS unless the length limit cuts it."""
    reward: Score
    """The training reward, for algorithms that consume it."""


@dataclass(frozen=True)
class EvalContext:
    """What an evaluator is handed: the samples of one sampling pass and what they can be scored by.

    ``samples`` and ``reference_samples`` have one row a (prompt, sample), with columns ``prompt_id,
    sample, prompt, completion, n_tokens, ended_eos, truncated`` (the last two bool). When an evaluator
    needs "logprobs", ``samples`` also has the lists ``token_logps``, ``token_reference_logps`` and
    ``token_kl``, one number a completion token, EOS included; ``token_kl`` is the exact KL divergence
    of the next-token distributions, policy from reference, over the whole vocabulary.
    """

    rows: Sequence[Row]
    """The held-out rows that were sampled; their ``id`` is ``prompt_id``."""
    samples: pd.DataFrame
    reference_samples: pd.DataFrame
    """Drawn the same way, for the same prompts, from where the policy started (warm start or base)."""
    task: Task
    train_reward: Score | None
    """The reward that training optimised: the task's own or a reward model's."""
    gold: Score | None
    """The gold reward, where the task has one."""
    judge: Judge | None = None
    """The matrix's judge, for evaluators that compare completions."""
    model: ModelView | None = None
    """The trained policy, to be asked and not changed; only for evaluators that need "model"."""
    pairs: pd.DataFrame | None = None
    """With the need "pairs", and where the cell has a reward model: its rewards on held-out pairs, one row a pair, with
    columns ``prompt_id, sample`` (the number of the pair within its prompt)``, chosen_reward, rejected_reward,
    chosen_tokens, rejected_tokens, logit, logit_again``. ``logit`` is the difference of the rewards before they were
    normalised, the log-odds that a Bradley-Terry model gives the label; ``logit_again`` should be the same: it is from
    a second scoring, with other neighbours and other padding."""
