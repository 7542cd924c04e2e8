"""A reward model from preference pairs, as a role on the shared base: LoRA adapter and fp32 scalar head.

Bradley-Terry (Ouyang et al. 2022, arXiv:2203.02155, Eq. 1): -log sigmoid(r_chosen - r_rejected). The reward is read
at the completion's last token, by an index from lengths. Rewards are exported with mean 0 and standard deviation 1
over the training completions, so that a KL weight means the same for every reward model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bakeoff.contracts import Row
from bakeoff.errors import ModelError, StoreError
from bakeoff.optim import MasterAdamW
from bakeoff.rollout import Sequences, eval_mode
from bakeoff.rows import Tokenised, tokenise_row
from bakeoff.seeds import derive_seed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bakeoff.roles import RoleModel
    from bakeoff.spec import PreparationSpec

CHECKED = 64
"""Pairs that rewards are normalised on, and held-out pairs that accuracy is measured on: seconds, on a CPU, and enough
to tell a reward model that learned from one that did not."""


def load_stage(folder: Path) -> RewardModel:
    """The reward model of a stage that a run left in ``stages/reward-model-...``, on a base of its own.

    Raises ``StoreError`` for a folder that is no such stage, ``ModelError`` when its base is not what it was.
    """
    from bakeoff import models
    from bakeoff.roles import RoleModel
    from bakeoff.spec import LoraSpec, ModelSpec
    from bakeoff.store import read_json

    record = read_json(folder / "stage.json")
    if record["kind"] != "reward-model" or "model" not in record:
        raise StoreError(
            f"{folder} is not the stage of a reward model, or an older bakeoff wrote it.",
            fix="Name a folder stages/reward-model-... of a run whose task has preferences and no reward.",
        )
    spec, lora = ModelSpec.model_validate(record["model"]), LoraSpec.model_validate(record["lora"])
    if models.fingerprint(spec) != record["inputs"]["model"]:
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
    """Scores completions with the role "reward" of ``roles``."""

    def __init__(self, roles: RoleModel, tokenizer: PreTrainedTokenizerBase, *, max_new_tokens: int) -> None:
        self.roles = roles
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        self.facts: dict[str, Any] = {}
        if not roles.has("reward"):
            roles.add("reward", seed=derive_seed("reward model"))

    def _raw(self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> Tensor:
        """Rewards (B,) under the active role "reward"."""
        pad = self.tokenizer.pad_token_id
        sequences = Sequences.pack(prompts, completions, pad=pad, device=self.roles.device)
        hidden = self.roles.hidden(sequences.input_ids, sequences.attention_mask)
        last = sequences.prompt_ids.shape[1] - 1 + sequences.completion_mask.sum(1)
        return self.roles.head_output("reward", hidden[torch.arange(len(sequences), device=hidden.device), last])

    @torch.no_grad()
    def rewards(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], *, batch: int = 64
    ) -> list[float]:
        """Rewards of token ids."""
        values: list[float] = []
        with eval_mode(self.roles.model), self.roles.use("reward"):
            for start in range(0, len(prompts), batch):
                part = slice(start, start + batch)
                values += self._raw(prompts[part], completions[part]).tolist()
        return values

    def score(self, rows: Sequence[Row], completions: Sequence[str]) -> list[float]:
        """Rewards of text; a completion that was cut off at the length limit stays without EOS."""
        prompts, ids = [], []
        for row, completion in zip(rows, completions, strict=True):
            tokenised = tokenise_row({**row, "completion": completion}, self.tokenizer)
            prompts.append(tokenised.prompt_ids)
            ids.append(list(tokenised.completions["completion"])[: self.max_new_tokens])
        return self.rewards(prompts, ids)

    def fit(self, train: Sequence[Tokenised], test: Sequence[Tokenised], spec: PreparationSpec, *, seed: int) -> None:
        """Train on the pairs of ``train``; ``facts`` then has the pair accuracy on ``test``."""
        pairs = [row for row in train if "chosen" in row.completions]
        self.roles.trained.add("reward")
        self.roles.refresh()
        optimizer = MasterAdamW(self.roles.parameters("reward"), lr=spec.reward_model_learning_rate)
        generator = torch.Generator().manual_seed(seed)
        order: list[int] = []
        with self.roles.use("reward"):
            for step in range(spec.reward_model_steps):
                for group in optimizer.param_groups:
                    group["lr"] = spec.reward_model_learning_rate * (1 - step / spec.reward_model_steps)
                while len(order) < spec.reward_model_batch:
                    order += torch.randperm(len(pairs), generator=generator).tolist()
                chosen_rows = [pairs[index] for index in order[: spec.reward_model_batch]]
                order = order[spec.reward_model_batch :]
                loss = -F.logsigmoid(self._margins(chosen_rows)).mean()
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"the reward model's loss is {loss.item()} at step {step}")
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.roles.parameters("reward"), 1.0)
                optimizer.step()
        self.roles.trained.discard("reward")
        self.roles.refresh()
        self._normalise(pairs[:CHECKED])
        held_out = [row for row in test if "chosen" in row.completions][:CHECKED]
        self.facts |= {"train_pairs": len(pairs), "test_pairs": len(held_out), "loss": loss.item()}
        if held_out:
            self.facts["pair_accuracy"] = sum(gap > 0 for gap in self._gaps(held_out)) / len(held_out)

    def _margins(self, rows: Sequence[Tokenised]) -> Tensor:
        prompts = [row.prompt_ids for row in rows]
        both = [row.completions["chosen"] for row in rows] + [row.completions["rejected"] for row in rows]
        chosen, rejected = self._raw(prompts + prompts, both).chunk(2)
        return chosen - rejected

    def _gaps(self, rows: Sequence[Tokenised]) -> list[float]:
        prompts = [row.prompt_ids for row in rows]
        chosen = self.rewards(prompts, [row.completions["chosen"] for row in rows])
        rejected = self.rewards(prompts, [row.completions["rejected"] for row in rows])
        return [a - b for a, b in zip(chosen, rejected, strict=True)]

    def _normalise(self, rows: Sequence[Tokenised]) -> None:
        prompts = [row.prompt_ids for row in rows]
        both = [row.completions["chosen"] for row in rows] + [row.completions["rejected"] for row in rows]
        raw = torch.tensor(self.rewards(prompts + prompts, both))
        mean, std = raw.mean().item(), max(raw.std().item(), 1e-6)
        head: Any = self.roles.heads["reward"]
        with torch.no_grad():
            # In the head itself, so that a value role that starts as its copy predicts the same scale.
            head.weight /= std
            head.bias.sub_(mean).div_(std)

    def save(self, folder: Path) -> None:
        """Adapter and head as safetensors, facts as JSON."""
        from safetensors.torch import save_file

        tensors = {str(i): p.data.contiguous() for i, p in enumerate(self.roles.parameters("reward"))}
        save_file(tensors, folder / "reward.safetensors")
        (folder / "reward.json").write_text(json.dumps(self.facts))

    def restore(self, folder: Path) -> None:
        """What ``save`` wrote."""
        from safetensors.torch import load_file

        tensors = load_file(folder / "reward.safetensors")
        with torch.no_grad():
            for index, parameter in enumerate(self.roles.parameters("reward")):
                parameter.copy_(tensors[str(index)])
        self.facts = json.loads((folder / "reward.json").read_text())
