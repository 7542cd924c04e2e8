"""The trainer under every algorithm that samples: roll out, score, compute advantages, update.

It stands on ``transformers.Trainer``'s public methods, one optimizer step a ``training_step``. The rollout happens
there and not in the data loader, which would fetch ahead and sample from a policy one update old.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from bakeoff import objectives
from bakeoff.on_policy import OnPolicyAlgorithm, OnPolicySettings, Rollout
from bakeoff.optim import MasterAdamW
from bakeoff.rollout import (
    Sequences,
    completion_hidden,
    completion_logps,
    end_ids,
    eval_mode,
    logps_as,
    sample,
    scatter,
    uniforms,
)
from bakeoff.seeds import derive_seed

if TYPE_CHECKING:
    from bakeoff.contracts import TrainContext
    from bakeoff.roles import Role, RoleModel


class OnPolicyTrainer(Trainer):
    """Trains the policy of a ``TrainContext`` on its own samples until the budget is spent."""

    def __init__(self, algorithm: OnPolicyAlgorithm, context: TrainContext) -> None:
        self.algorithm = algorithm
        self.context = context
        self.settings: OnPolicySettings = algorithm.settings
        self.roles: RoleModel = context.roles
        self.rows = context.prompts
        self.updates = self.settings.epochs * self.settings.minibatches
        self.pending: list[Rollout] = []
        self.rollouts = 0
        self._metrics: dict[str, float] = {}
        self.end_ids = end_ids(self.roles, context.tokenizer)
        if self.algorithm.has_value and not self.roles.has("value"):
            reward: Role | None = "reward" if self.roles.has("reward") else None
            self.roles.add("value", copy_of=reward, train=True, seed=derive_seed(context.seed, "value"))
        super().__init__(
            model=context.policy,
            args=TrainingArguments(
                **context.trainer_arguments(
                    # Clipped here, by role, and before transformers would clip all roles together.
                    max_grad_norm=0.0,
                    learning_rate=self.settings.learning_rate,
                    # Rollouts continue from their own counter, which the checkpoint holds.
                    ignore_data_skip=True,
                )
            ),
            callbacks=[*context.callbacks, _Boundary(self)],
        )

    # ------------------------------------------------------------------------------------------ rollout

    def next_prompts(self) -> list[dict[str, Any]]:
        """The prompts of rollout number ``self.rollouts``: seeded permutations of all of them, one after another."""
        count, total = self.settings.prompts_per_rollout, len(self.rows)
        chosen = []
        for position in range(self.rollouts * count, (self.rollouts + 1) * count):
            generator = torch.Generator().manual_seed(derive_seed(self.context.seed, "prompts", position // total))
            chosen.append(int(torch.randperm(total, generator=generator)[position % total]))
        return [self.rows[index] for index in chosen]

    def roll_out(self) -> Rollout:
        """Sample, score, and compute what the update needs, all without gradients and in eval mode."""
        prompts = [row for row in self.next_prompts() for _ in range(self.settings.group)]
        prompt_ids = [row["prompt_ids"] for row in prompts]
        pad = self.context.tokenizer.pad_token_id
        draws = uniforms(
            derive_seed(self.context.seed, "rollout", self.rollouts), len(prompts), self.context.max_new_tokens
        )
        with self.roles.use("policy"):
            completions = sample(self.roles, prompt_ids, draws, eos=self.end_ids, pad=pad)
        sequences = Sequences.pack(prompt_ids, completions.ids, pad=pad, device=self.roles.device)
        rollout = Rollout(
            sequences,
            rewards=self.score(prompts, completions.ids),
            ended_eos=torch.tensor(completions.ended_eos, device=self.roles.device),
        )
        if self.settings.beta > 0:
            rollout.reference_logps = logps_as(self.roles, "reference", sequences)
        self.rollouts += 1
        self.context.meter.count_prompts(self.settings.prompts_per_rollout)
        if not self._shares_passes(rollout):
            if self.algorithm.kl_in_reward or self.updates > 1:
                # By the training path, not from sampling: the first ratio is then 1 and not 1 + rounding.
                rollout.old_logps = logps_as(self.roles, "policy", sequences)
            if self.algorithm.has_value:
                with torch.no_grad(), eval_mode(self.roles.model), self.roles.use("value"):
                    rollout.values = self.values(sequences)
            self._conclude(rollout)
        return rollout

    def _shares_passes(self, rollout: Rollout) -> bool:
        """Whether the update's own forward passes can give the log-probabilities and values that advantages need.

        So when it is the rollout's only update, in one micro-batch: that saves a pass of the policy and one of the
        value. Not under gradient checkpointing, where the policy must go backward before the value goes forward.
        """
        alone = self.updates == 1 and len(rollout) <= self.settings.micro_batch
        needed = self.algorithm.kl_in_reward or self.algorithm.has_value
        return needed and alone and not self.roles.causal_lm.is_gradient_checkpointing

    def _conclude(self, rollout: Rollout) -> None:
        rollout.advantages = self.algorithm.advantages(rollout)
        self._describe(rollout)

    def score(self, prompts: list[dict[str, Any]], ids: list[list[int]]) -> Tensor:
        """Rewards (B,) of completions, by the cell's reward function. Raises on a number that is not finite."""
        texts = self.context.tokenizer.batch_decode(ids, skip_special_tokens=True)
        columns = {key: [row[key] for row in prompts] for key in prompts[0] if key not in ("prompt", "prompt_ids")}
        scores = self.context.reward(
            prompts=[row["prompt"] for row in prompts], completions=texts, completion_ids=ids, **columns
        )
        rewards = torch.tensor(scores, dtype=torch.float32, device=self.roles.device)
        if not torch.isfinite(rewards).all():
            raise FloatingPointError("the reward function returned a number that is not finite")
        return rewards

    def values(self, sequences: Sequences) -> Tensor:
        """Value of the state before each completion token under the value role, (B, C)."""
        hidden = completion_hidden(self.roles, sequences)
        return scatter(self.roles.head_output("value", hidden), sequences.completion_mask)

    # ------------------------------------------------------------------------------------------- update

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """One optimizer step's gradients: a new rollout when the last is used up, then one minibatch of it."""
        model.train()
        assert self.optimizer is not None
        self.optimizer.zero_grad()  # the heads are not the model's, whose gradients transformers clears
        if not self.pending:
            self.pending = list(self._minibatches(self.roll_out()))
        batch = self.pending.pop(0)
        loss = self._backward(batch)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss of {type(self.algorithm).__name__} is {loss.item()}")
        moving: tuple[Role, ...] = ("policy", "value") if self.algorithm.has_value else ("policy",)
        for role in moving:
            norm = torch.nn.utils.clip_grad_norm_(self.roles.parameters(role), self.settings.max_grad_norm)
            if not torch.isfinite(norm):
                raise FloatingPointError(f"the gradient of the {role} is {norm.item()}")
            self._metrics[f"grad_norm_{role}"] = norm.item()
        return loss

    def _minibatches(self, rollout: Rollout) -> Iterator[Rollout]:
        for epoch in range(self.settings.epochs):
            if self.settings.minibatches == 1:
                yield rollout
                continue
            generator = torch.Generator().manual_seed(derive_seed(self.context.seed, "split", self.rollouts, epoch))
            order = torch.randperm(len(rollout), generator=generator)
            yield from (rollout[rows] for rows in order.tensor_split(self.settings.minibatches))

    def _backward(self, batch: Rollout) -> Tensor:
        """Backward by role and micro-batch. Divides by the tokens of the whole step, so that the size of a
        micro-batch changes nothing."""
        tokens = batch.mask.sum().clamp(min=1)
        if batch.advantages is None:
            return self._backward_sharing_passes(batch, tokens)
        total = torch.zeros((), device=self.roles.device)
        for rows in torch.arange(len(batch)).split(self.settings.micro_batch):
            micro = batch[rows]
            with self.roles.use("policy"):
                logps = completion_logps(self.roles, micro.sequences)
                if micro.old_logps is None:
                    micro.old_logps = logps.detach()
                loss = (self.algorithm.policy_loss(micro, logps) * micro.mask).sum() / tokens
                self.accelerator.backward(loss)
            total += loss.detach()
            self._measure(micro, logps.detach(), float(tokens))
            if self.algorithm.has_value:
                with self.roles.use("value"):
                    loss = (self.algorithm.value_loss(micro, self.values(micro.sequences)) * micro.mask).sum() / tokens
                    self.accelerator.backward(loss)
                self._add("loss_value", loss.item())
        return total

    def _backward_sharing_passes(self, rollout: Rollout, tokens: Tensor) -> Tensor:
        """Both forward passes, then advantages from their values, then both backward passes; see ``_shares_passes``."""
        with self.roles.use("policy"):
            logps = completion_logps(self.roles, rollout.sequences)
        rollout.old_logps = logps.detach()
        values = None
        if self.algorithm.has_value:
            with self.roles.use("value"):
                values = self.values(rollout.sequences)
            rollout.values = values.detach()
        self._conclude(rollout)
        loss = (self.algorithm.policy_loss(rollout, logps) * rollout.mask).sum() / tokens
        self.accelerator.backward(loss)
        self._measure(rollout, logps.detach(), float(tokens))
        if values is not None:
            value_loss = (self.algorithm.value_loss(rollout, values) * rollout.mask).sum() / tokens
            self.accelerator.backward(value_loss)
            self._add("loss_value", value_loss.item())
        return loss.detach()

    def _measure(self, micro: Rollout, logps: Tensor, tokens: float) -> None:
        """Shares of the step's diagnostics: adding them over micro-batches gives token means."""
        assert micro.old_logps is not None and micro.advantages is not None
        share = float(micro.mask.sum()) / tokens
        clips = {"clip_low": self.settings.clip_low, "clip_high": self.settings.clip_high}
        clipped = objectives.clip_fraction(logps, micro.old_logps, micro.advantages, micro.mask, **clips)
        moved = objectives.masked_mean(objectives.kl_k3(micro.old_logps, logps), micro.mask)
        self._add("clip_fraction", clipped.item() * share)
        self._add("approx_kl", moved.item() * share)

    def _add(self, name: str, value: float) -> None:
        self._metrics[name] = self._metrics.get(name, 0.0) + value

    def _describe(self, rollout: Rollout) -> None:
        lengths = rollout.mask.sum(1)
        self._metrics |= {
            "reward": rollout.rewards.mean().item(),
            "reward_std": rollout.rewards.std().item() if len(rollout) > 1 else 0.0,
            "length_tokens": lengths.mean().item(),
            "ended_eos": rollout.ended_eos.float().mean().item(),
        }
        if rollout.old_logps is not None and rollout.reference_logps is not None:
            k1 = objectives.kl_k1(rollout.old_logps, rollout.reference_logps) * rollout.mask
            self._metrics["kl_k1"] = k1.sum(1).mean().item()

    # --------------------------------------------------------------------- transformers.Trainer's public hooks

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """One line a step: transformers' loss with this trainer's metrics, those of a new rollout among them."""
        logs.pop("grad_norm", None)  # of all roles together, after the clip
        super().log({**logs, **self._metrics}, start_time)
        self._metrics = {}

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Policy and value in groups of their own; no group is empty."""
        if self.optimizer is None:
            groups: list[dict[str, Any]] = [{"params": self.roles.parameters("policy")}]
            if self.algorithm.has_value:
                groups.append({"params": self.roles.parameters("value"), "lr": self.algorithm.value_learning_rate()})
            self.optimizer = MasterAdamW(groups, lr=self.settings.learning_rate)
        return self.optimizer

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Empty batches without end: prompts are drawn by the rollout."""
        return DataLoader(_Ticks(), batch_size=1)

    # -------------------------------------------------------------------------------------- checkpoints

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers', from ``context.resume_from`` where there is a checkpoint."""
        checkpoint = self.context.resume_from
        if checkpoint is not None:
            self._restore(checkpoint)
            kwargs["resume_from_checkpoint"] = str(checkpoint)
        return super().train(*args, **kwargs)

    def _auxiliary(self) -> dict[str, Tensor]:
        return (
            {f"{i}": p.data for i, p in enumerate(self.roles.parameters("value"))} if self.algorithm.has_value else {}
        )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The adapters, and what else a checkpoint of this trainer needs."""
        from safetensors.torch import save_file

        super().save_model(output_dir, _internal_call)
        folder = Path(output_dir or str(self.args.output_dir))

        if self.algorithm.has_value:
            save_file(
                {key: value.contiguous() for key, value in self._auxiliary().items()}, folder / "value.safetensors"
            )
        state = {"rollouts": self.rollouts, "algorithm": self.algorithm.state()}
        (folder / "on_policy.json").write_text(json.dumps(state))

    def _restore(self, folder: Path) -> None:
        from safetensors.torch import load_file

        if self.algorithm.has_value:
            saved = load_file(folder / "value.safetensors")
            for key, value in self._auxiliary().items():
                value.copy_(saved[key])
        state = json.loads((folder / "on_policy.json").read_text())
        self.rollouts = state["rollouts"]
        self.algorithm.restore(state["algorithm"])


class _Boundary(TrainerCallback):
    """Allows a checkpoint only when the rollout is used up: a checkpoint holds no rollout."""

    def __init__(self, trainer: OnPolicyTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.pending:
            control.should_save = False


class _Ticks(IterableDataset[dict[str, int]]):
    def __iter__(self) -> Iterator[dict[str, int]]:
        while True:
            yield {"tick": 0}
