"""A reward model as a role on the shared base: a LoRA adapter and a scalar head in fp32.

It learns from rankings, rows with ``prompt_ids``, ``completion_ids`` (K lists) and ``scores`` (K, larger is better), by
the losses in ``preference_losses``. The reward is read at the completion's last token, by an index from lengths.
Rewards are exported with mean 0 and standard deviation 1 over training completions, so that a KL weight means the
same for every reward model; the raw mean and deviation are kept beside them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bakeoff.contracts import Row
from bakeoff.errors import ModelError, RoleError, StoreError
from bakeoff.optim import MasterAdamW
from bakeoff.preference_losses import reward_model_loss
from bakeoff.rankings import Rankings, asked_for
from bakeoff.roles import ADAPTERS
from bakeoff.rollout import Sequences, eval_mode
from bakeoff.rows import tokenise_row
from bakeoff.seeds import derive_seed, in_turn

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from bakeoff.checkpoint import Stateful
    from bakeoff.roles import RoleModel
    from bakeoff.spec import RewardModelSettings

CHECKED = 64
"""Rankings that rewards are normalised on, and held-out ones that a stage's accuracy is measured on: seconds, on a
CPU, and enough to tell a reward model that learned from one that did not."""

PASS_TOKENS = 2048
"""Padded tokens of one pass, at most, but for a single ranking that is longer. Answers that people wrote differ in
length tenfold: those of like length go through the base together, since padding costs as much as text."""


def load_stage(folder: Path) -> RewardModel:
    """The reward model of a stage that a run left in ``stages/reward-model-...``, on a base of its own.

    Raises ``StoreError`` for a folder that is no such stage, ``ModelError`` when its base is not what it was.
    """
    from bakeoff import modelfiles, models
    from bakeoff.roles import RoleModel
    from bakeoff.spec import LoraSpec, ModelSpec
    from bakeoff.store import read_json

    record = read_json(folder / "stage.json")
    if record["kind"] != "reward-model" or "model" not in record:
        raise StoreError(
            f"{folder} is not the stage of a reward model, or an older bakeoff wrote it.",
            fix="Name a folder stages/reward-model-... of a run that trained a reward model.",
        )
    spec, lora = ModelSpec.model_validate(record["model"]), LoraSpec.model_validate(record["lora"])
    if modelfiles.fingerprint(spec) != record["inputs"]["model"]:
        raise ModelError(
            f"the base '{spec.label}' of {folder} is not the model that the reward model was trained on.",
            fix="Restore the model's files, or train the reward model again.",
        )
    roles = RoleModel(models.add_lora(models.load_base(spec), lora, seed=0, dtype=models.compute_dtype(spec)))
    length = int(record["inputs"]["task"][2]["max_new_tokens"])
    model = RewardModel(roles, models.load_tokenizer(spec), max_new_tokens=length)
    model.restore(folder)
    return model


class RewardModel:
    """Scores completions with the role "reward" of ``roles``, which it adds where it is missing."""

    def __init__(self, roles: RoleModel, tokenizer: PreTrainedTokenizerBase, *, max_new_tokens: int) -> None:
        self.roles = roles
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        self.facts: dict[str, Any] = {}
        """What a report tells of it; ``raw_mean`` and ``raw_std`` once it is normalised."""
        if not roles.has("reward"):
            roles.add("reward", seed=derive_seed("reward model"))

    # --------------------------------------------------------------------------------------- rewards

    def _raw(self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> Tensor:
        """Rewards (B,) under the active role "reward"."""
        pad = self.tokenizer.pad_token_id
        sequences = Sequences.pack(prompts, completions, pad=pad, device=self.roles.device)
        hidden = self.roles.hidden(sequences.input_ids, sequences.attention_mask)
        last = sequences.prompt_ids.shape[1] - 1 + sequences.completion_mask.sum(1)
        return self.roles.head_output("reward", hidden[torch.arange(len(sequences), device=hidden.device), last])

    @torch.no_grad()
    def rewards(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], *, at_a_time: int | None = None
    ) -> list[float]:
        """Rewards of token ids: in passes of like length, or ``at_a_time`` and in the order in which they come.

        Raises ``RoleError`` when the head is as it was initialised and nobody trains it.
        """
        head: Any = self.roles.heads["reward"]
        if "reward" not in self.roles.trained and not head.weight.any():
            raise RoleError(
                "the reward model's head is newly initialised, so its rewards mean nothing.",
                fix="Load a reward model that was saved, or train this one first.",
            )
        values = [0.0] * len(prompts)
        lengths = [len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True)]
        starts = range(0, len(prompts), at_a_time or 1)
        in_order = ([*range(start, min(start + starts.step, len(prompts)))] for start in starts)
        with eval_mode(self.roles.model), self.roles.use("reward"):
            for part in in_order if at_a_time else _passes([(1, length) for length in lengths], PASS_TOKENS):
                found = self._raw([prompts[i] for i in part], [completions[i] for i in part])
                for index, value in zip(part, found.tolist(), strict=True):
                    values[index] = value
        return values

    def score(self, rows: Sequence[Row], completions: Sequence[str]) -> list[float]:
        """Rewards of text; a completion that was cut off at the length limit stays without EOS."""
        prompts, ids = [], []
        for row, completion in zip(rows, completions, strict=True):
            tokenised = tokenise_row({**row, "completion": completion}, self.tokenizer)
            prompts.append(tokenised.prompt_ids)
            ids.append(list(tokenised.completions["completion"])[: self.max_new_tokens])
        return self.rewards(prompts, ids)

    def pairs(self, rankings: Rankings) -> pd.DataFrame:
        """Every pair of ``rankings`` whose scores differ, as ``EvalContext.pairs`` describes it."""
        import pandas as pd

        prompts, completions = _flat(rankings)
        rewards = self.rewards(prompts, completions)
        # Once more from the other end, a few at a time: with other neighbours and other padding.
        again = self.rewards(prompts[::-1], completions[::-1], at_a_time=3)[::-1]
        std = self.facts.get("raw_std", 1.0)
        records, start = [], 0
        for row in rankings:
            scores = row["scores"]
            found = [(i, j) for i in range(len(scores)) for j in range(len(scores)) if scores[i] > scores[j]]
            for number, (better, worse) in enumerate(found):
                a, b = start + better, start + worse
                records.append(
                    {
                        "prompt_id": row["id"],
                        "sample": number,
                        "chosen_reward": rewards[a],
                        "rejected_reward": rewards[b],
                        "chosen_tokens": len(completions[a]),
                        "rejected_tokens": len(completions[b]),
                        "logit": std * (rewards[a] - rewards[b]),
                        "logit_again": std * (again[a] - again[b]),
                    }
                )
            start += len(scores)
        return pd.DataFrame.from_records(records)

    # -------------------------------------------------------------------------------------- training

    def fit(
        self,
        rankings: Rankings,
        settings: RewardModelSettings,
        *,
        steps: Callable[[Stateful], Iterable[int]],
        decay: Callable[[int], float],
        seed: int,
        log: Callable[[Mapping[str, float]], None] = lambda metrics: None,
    ) -> None:
        """Train on what ``settings`` ask of ``rankings``; ``facts`` tell of it. ``normalise`` it then.

        One optimizer step each of ``steps(optimizer)``, at ``decay(step)`` times the learning rate.
        """
        rows = asked_for(rankings, settings)
        parameters = self.roles.parameters("reward")
        optimizer = MasterAdamW(parameters, lr=settings.learning_rate)
        total = 0.0
        self.roles.trained.add("reward")
        self.roles.refresh()
        for step in steps(optimizer):
            batch = [rows[index] for index in in_turn(seed, "rankings", step, settings.batch, len(rows))]
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * decay(step)
            optimizer.zero_grad()
            total = 0.0
            for part in _passes([_size(row) for row in batch], PASS_TOKENS):
                with self.roles.use("reward"):
                    loss = self.loss([batch[i] for i in part], settings) * (len(part) / len(batch))
                    if not torch.isfinite(loss):
                        raise FloatingPointError(f"the reward model's loss is {loss.item()} at step {step}")
                    loss.backward()
                total += loss.item()
            norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            log({"loss": total, "grad_norm": norm.item(), "learning_rate": optimizer.param_groups[0]["lr"]})
        self.roles.trained.discard("reward")
        self.roles.refresh()
        self.facts |= {"loss": settings.loss, "comparisons": len(rows), "final_loss": total}

    def loss(self, rankings: Rankings, settings: RewardModelSettings) -> Tensor:
        """Mean over prompts of ``reward_model_loss``; under the active role "reward", with gradients."""
        rewards = self._raw(*_flat(rankings)).split([len(row["scores"]) for row in rankings])
        scores = [torch.tensor(row["scores"], dtype=torch.float32, device=rewards[0].device) for row in rankings]
        return torch.stack([reward_model_loss(r, s, settings) for r, s in zip(rewards, scores, strict=True)]).mean()

    def normalise(self, rankings: Rankings) -> None:
        """Shift and scale the head: mean 0 and standard deviation 1 over the first completions of ``rankings``."""
        raw = torch.tensor(self.rewards(*_flat(list(rankings)[:CHECKED])))
        mean, std = raw.mean().item(), max(raw.std().item(), 1e-6)
        head: Any = self.roles.heads["reward"]
        with torch.no_grad():
            # In the head itself, so that a value role that starts as its copy predicts the same scale.
            head.weight /= std
            head.bias.sub_(mean).div_(std)
        self.facts |= {"raw_mean": mean, "raw_std": std, "normalised_on": len(raw)}

    # ------------------------------------------------------------------------------------------ disk

    def save(self, folder: Path) -> None:
        """``reward/``, a standard PEFT folder; ``head.safetensors``; ``reward_model.json`` with the facts."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        self.roles.model.save_pretrained(str(folder), selected_adapters=[ADAPTERS["reward"]])
        save_file(dict(self.roles.heads["reward"].state_dict()), folder / "head.safetensors")
        (folder / "reward_model.json").write_text(json.dumps(self.facts, indent=1))

    def restore(self, folder: Path) -> None:
        """What ``save`` wrote, into this base. Raises ``StoreError`` when a tensor is missing or of another shape."""
        from peft import get_peft_model_state_dict, set_peft_model_state_dict
        from safetensors.torch import load_file

        name, model, head = ADAPTERS["reward"], self.roles.model, self.roles.heads["reward"]
        adapter_file, head_file = folder / name / "adapter_model.safetensors", folder / "head.safetensors"
        if not (adapter_file.is_file() and head_file.is_file()):
            raise StoreError(f"{folder} holds no reward model: an adapter and a head.", fix="Train it again.")
        saved, saved_head = load_file(adapter_file), load_file(head_file)
        wanted = get_peft_model_state_dict(model, adapter_name=name)
        if _shapes(saved) != _shapes(wanted) or _shapes(saved_head) != _shapes(head.state_dict()):
            raise StoreError(
                f"the reward model in {folder} does not fit: it was trained on another base or with another LoRA.",
                fix="Load it on the base and with the lora section that it was trained with.",
            )
        set_peft_model_state_dict(model, saved, adapter_name=name)
        head.load_state_dict(saved_head)
        self.facts = json.loads((folder / "reward_model.json").read_text())
        self.roles.refresh()


def _flat(rankings: Rankings) -> tuple[list[list[int]], list[list[int]]]:
    """(prompts, completions), one a completion."""
    prompts = [row["prompt_ids"] for row in rankings for _ in row["scores"]]
    return prompts, [ids for row in rankings for ids in row["completion_ids"]]


def _size(row: Mapping[str, Any]) -> tuple[int, int]:
    """(sequences, tokens of the longest) of a ranking."""
    return len(row["scores"]), len(row["prompt_ids"]) + max(map(len, row["completion_ids"]))


def _passes(sizes: Sequence[tuple[int, int]], tokens: int) -> Iterator[list[int]]:
    """The indices of ``sizes``, (sequences, tokens of the longest), in parts of like length of at most ``tokens``."""
    part: list[int] = []
    count = longest = 0
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index][1]):
        sequences, length = sizes[index]
        if part and (count + sequences) * longest > tokens:
            yield part
            part, count = [], 0
        longest = max(longest, length) if part else length
        part.append(index)
        count += sequences
    if part:
        yield part


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
