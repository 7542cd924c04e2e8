"""The trainer under every algorithm that samples: roll out, score, compute advantages, update.

It stands on ``transformers.Trainer``'s public methods, one optimizer step a ``training_step``. The rollout happens
there and not in the data loader, which would fetch ahead and sample from a policy one update old.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
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
    at_completion,
    completion_hidden,
    end_ids,
    flat_ids,
    sample,
    scatter,
    score_roles,
    token_logps,
    uniforms,
)
from bakeoff.seeds import derive_seed, in_turn

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
        self.unit = self.settings.group if algorithm.loss_over_groups else 1
        self.pending: list[Rollout] = []
        self.rollouts = 0
        self._metrics: dict[str, float] = {}
        self.end_ids = end_ids(self.roles, context.tokenizer)
        if algorithm.has_value and not self.roles.has("value"):
            self._add_value()
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

    def _add_value(self) -> None:
        """It starts as the reward model, where there is one (Stiennon et al. 2020, arXiv:2009.01325, App. G.1)."""
        reward: Role | None = "reward" if self.roles.has("reward") else None
        if self.algorithm.value_on_policy:
            self.roles.add("value", on_policy=True, train=True)
        else:
            self.roles.add("value", copy_of=reward, train=True, seed=derive_seed(self.context.seed, "value"))

    # ------------------------------------------------------------------------------------------ rollout

    def next_prompts(self) -> list[dict[str, Any]]:
        """The prompts of rollout number ``self.rollouts``."""
        count, seed = self.settings.prompts_per_rollout, self.context.seed
        return [self.rows[index] for index in in_turn(seed, "prompts", self.rollouts, count, len(self.rows))]

    def roll_out(self) -> Rollout:
        """Sample, score, and compute what the update needs, all without gradients and in eval mode."""
        prompts = [row for row in self.next_prompts() for _ in range(self.settings.group)]
        prompt_ids = [row["prompt_ids"] for row in prompts]
        pad = self.context.tokenizer.pad_token_id
        draws = uniforms(
            derive_seed(self.context.seed, "rollout", self.rollouts), len(prompts), self.context.max_new_tokens
        )
        fraction = self.context.meter.fraction
        with self.roles.use("policy"):
            completions = sample(self.roles, prompt_ids, draws, eos=self.end_ids, pad=pad)
        rollout = Rollout(
            Sequences.pack(prompt_ids, completions.ids, pad=pad, device=self.roles.device),
            rewards=self.score(prompts, completions.ids),
            ended_eos=torch.tensor(completions.ended_eos, device=self.roles.device),
            max_tokens=self.context.max_new_tokens,
            number=self.rollouts,
            fraction=fraction,
        )
        wanted: list[Role] = ["reference"] if self.algorithm.needs_reference else []
        shares = self._shares_passes(rollout)
        if not shares and (self.algorithm.kl_in_reward or self.updates > 1):
            # By the training path, not from sampling, whose merged weights round otherwise.
            wanted.append("policy")
        if not shares and self.algorithm.has_value:
            wanted.append("value")
        said = score_roles(self.roles, rollout.sequences, wanted)
        rollout.reference_logps, rollout.old_logps = said.get("reference"), said.get("policy")
        rollout.values = said.get("value")
        companions = self.algorithm.companions(self.context, rollout)
        if companions is not None:
            said = score_roles(self.roles, companions.sequences, ("reference", "policy"))
            companions.reference_logps, companions.old_logps = said["reference"], said["policy"]
            rollout.companions = companions
        if not shares:
            self._conclude(rollout)
        self.rollouts += 1
        self.context.meter.count_prompts(self.settings.prompts_per_rollout)
        return rollout

    def _shares_passes(self, rollout: Rollout) -> bool:
        """Whether the update's own forward passes can give the log-probabilities and values that advantages need.

        So when it is the rollout's only update, in one micro-batch: that saves a pass of the policy and one of the
        value. Not under gradient checkpointing, where the policy must go backward before the value goes forward.
        """
        alone = self.updates == 1 and len(rollout) <= self.settings.micro_batch
        needed = self.algorithm.kl_in_reward or self.algorithm.has_value
        moves = self.algorithm.updates_policy(rollout.number)
        return needed and alone and moves and not self.roles.recomputes_activations

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
        for role in self._moving(batch):
            norm = torch.nn.utils.clip_grad_norm_(self.roles.parameters(role), self.settings.max_grad_norm)
            if not torch.isfinite(norm):
                raise FloatingPointError(f"the gradient of the {role} is {norm.item()}")
            self._metrics[f"grad_norm_{role}"] = norm.item()
        if self.settings.stop_kl is not None and self._metrics.get("approx_kl", 0.0) > self.settings.stop_kl:
            self._metrics["stopped_updates"] = float(len(self.pending))
            self.pending = []
        return loss

    def _moving(self, batch: Rollout) -> list[Role]:
        """The roles that an update on this batch trains."""
        policy: list[Role] = ["policy"] if self.algorithm.updates_policy(batch.number) else []
        return [*policy, "value"] if self.algorithm.has_value else policy

    def _minibatches(self, rollout: Rollout) -> Iterator[Rollout]:
        """``updates`` optimizer steps: in each epoch every sequence once, and every companion."""
        beside = rollout.companions
        for epoch in range(self.settings.epochs):
            if self.settings.minibatches == 1:
                yield rollout
                continue
            seed = derive_seed(self.context.seed, "split", rollout.number, epoch)
            others = iter(()) if beside is None else self._split(beside, 2, seed)
            for part in self._split(rollout, self.unit, seed):
                yield replace(part, companions=next(others, None))

    def _split(self, rollout: Rollout, unit: int, seed: int) -> Iterator[Rollout]:
        """Random parts of whole units; units of consecutive rows stay together."""
        order = torch.randperm(len(rollout) // unit, generator=torch.Generator().manual_seed(seed))
        rows = torch.arange(len(rollout)).view(-1, unit)
        return (rollout[rows[part].flatten()] for part in order.tensor_split(self.settings.minibatches) if len(part))

    def _backward(self, batch: Rollout) -> Tensor:
        """Backward by role and micro-batch, whose size changes nothing: each adds its share of the step's mean."""
        if batch.advantages is None:
            return self._backward_sharing_passes(batch)
        total = torch.zeros((), device=self.roles.device)
        moves = "policy" in self._moving(batch)
        for micro in batch.micro_batches(self.settings.micro_batch, unit=self.unit):
            hidden = None
            if moves:
                hidden, logps = self._forward_policy(micro.sequences)
                if micro.old_logps is None:
                    micro.old_logps = logps.detach()
                total += self._backward_policy(micro, logps)
            if self.algorithm.has_value:
                self._backward_value(micro, hidden)
        return total + self._backward_companions(batch) if moves else total

    def _backward_sharing_passes(self, rollout: Rollout) -> Tensor:
        """Policy and value forward in one pass, then advantages from what they say, then one backward pass.

        Each row has one role's adapter, so that neither loss gives the other role a gradient. See ``_shares_passes``.
        """
        sequences, roles = rollout.sequences, self._moving(rollout)
        with self.roles.use("policy"):
            hidden = {
                role: at_completion(states, sequences)
                for role, states in self.roles.hidden_by_role(roles, sequences.input_ids, sequences.attention_mask)
            }
            logps = self._logps(hidden["policy"], sequences)
        rollout.old_logps = logps.detach()
        values = None
        if self.algorithm.has_value:
            values = self._values(hidden["value"], sequences)
            rollout.values = values.detach()
        self._conclude(rollout)
        loss = self.algorithm.policy_loss(rollout, logps)
        self._measure(rollout, rollout.old_logps)
        if values is None:
            self.accelerator.backward(loss)
        else:
            self.accelerator.backward(loss + self._value_loss(rollout, values))
        return loss.detach() + self._backward_companions(rollout)

    def _backward_companions(self, batch: Rollout) -> Tensor:
        total = torch.zeros((), device=self.roles.device)
        if batch.companions is None:
            return total
        for micro in batch.companions.micro_batches(self.settings.micro_batch, unit=2):
            _, logps = self._forward_policy(micro.sequences)
            loss = self.algorithm.companion_loss(micro, logps)
            with self.roles.use("policy"):
                self.accelerator.backward(loss)
            self._add("loss_companions", loss.item())
            total += loss.detach()
        return total

    def _forward_policy(self, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """Hidden states (N, H) before each completion token, and the tokens' log-probabilities (B, C)."""
        with self.roles.use("policy"):
            hidden = completion_hidden(self.roles, sequences)
            return hidden, self._logps(hidden, sequences)

    def _logps(self, hidden: Tensor, sequences: Sequences) -> Tensor:
        return scatter(token_logps(self.roles, hidden, flat_ids(sequences)), sequences.completion_mask)

    def _values(self, hidden: Tensor, sequences: Sequences) -> Tensor:
        """Of hidden states (N, H), (B, C). On the policy's trunk, the value sends it no gradient."""
        if self.algorithm.value_on_policy:
            hidden = hidden.detach()
        return scatter(self.roles.head_output("value", hidden), sequences.completion_mask)

    def _backward_policy(self, batch: Rollout, logps: Tensor) -> Tensor:
        loss = self.algorithm.policy_loss(batch, logps)
        with self.roles.use("policy"):
            self.accelerator.backward(loss)
        self._measure(batch, logps.detach())
        return loss.detach()

    def _backward_value(self, batch: Rollout, policy_hidden: Tensor | None) -> None:
        """Forward and backward in one: under gradient checkpointing no other role may run between them.

        On the policy's trunk it begins at the policy's hidden states (N, H), unless the policy did not go forward.
        """
        on_policy = self.algorithm.value_on_policy
        with self.roles.use("policy" if on_policy else "value"):
            hidden = policy_hidden if on_policy else None
            if hidden is None:
                with torch.set_grad_enabled(not on_policy):
                    hidden = completion_hidden(self.roles, batch.sequences)
            self.accelerator.backward(self._value_loss(batch, self._values(hidden, batch.sequences)))

    def _value_loss(self, batch: Rollout, values: Tensor) -> Tensor:
        loss = self.algorithm.value_loss(batch, values)
        self._add("loss_value", loss.item())
        return loss

    def _measure(self, batch: Rollout, logps: Tensor) -> None:
        """Shares of the step's diagnostics: adding them over micro-batches gives token means."""
        assert batch.old_logps is not None and batch.advantages is not None
        ratio = self.algorithm.ratio(batch, logps)
        clipped = objectives.is_clipped(ratio, batch.advantages, **self.settings.clips)
        self._add("clip_fraction", batch.mean(clipped).item())
        self._add("approx_kl", batch.mean(objectives.kl_k3(batch.old_logps, logps)).item())

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
        """Policy and value in groups of their own, the value's head in a third; no group is empty.

        Adam moves each of the head's H weights by its rate, and so the value by the rate times the sum of H hidden
        activations: at the adapter's rate, a value of some tenths is off by several units after one update, and
        advantages are noise. The head's rate is therefore the value's over sqrt(H).
        """
        if self.optimizer is None:
            groups: list[dict[str, Any]] = [{"params": self.roles.parameters("policy")}]
            if self.algorithm.has_value:
                rate, head = self.algorithm.value_learning_rate(), list(self.roles.heads["value"].parameters())
                if not self.algorithm.value_on_policy:
                    groups.append({"params": self.roles.parameters("value")[: -len(head)], "lr": rate})
                groups.append({"params": head, "lr": rate / head[0].shape[1] ** 0.5})
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
        value = self.roles.parameters("value") if self.algorithm.has_value else []
        return {str(index): parameter.data for index, parameter in enumerate(value)}

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The adapters, and what else a checkpoint of this trainer needs."""
        from safetensors.torch import save_file

        super().save_model(output_dir, _internal_call)
        folder = Path(output_dir or str(self.args.output_dir))
        if self.algorithm.has_value:
            tensors = {key: value.contiguous() for key, value in self._auxiliary().items()}
            save_file(tensors, folder / "value.safetensors")
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
