"""Golden numbers of TRL 1.10's PPO: runs its ``PPOTrainer`` and writes down what it computed.

    $(python tests/golden/trl_1_10.py) tests/golden/make_trl_ppo.py > tests/golden/trl_ppo.json

A tiny seeded Llama as policy, value and reward model. Only the sampling is replaced: completions are given, of
unequal lengths, with EOS and without, and their log-probabilities come from TRL's own ``forward``. Every number is read
from the variables of ``PPOTrainer.train`` while it runs: before each backward pass, and when it logs.

There is no case whose pad token is EOS: TRL 1.10 finds lengths by looking for the pad token, and would not see the EOS
(the score would be paid, and the last value read, one token early).
"""

from __future__ import annotations

import inspect
import json
import sys
import tempfile
from types import FrameType
from typing import Any
from unittest import mock

import torch
import transformers
import trl
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

from bakeoff.testing import toy_tokenizer

WIDTH = 6
PROMPTS = ("the film ", "we ", "a bad", "never", "three s", "sweet ", "there ", "good w")
LENGTHS = (6, 3, 1, 5, 6, 2, 4, 6)
"""Tokens of each completion, EOS included."""
ENDED = (False, True, True, True, True, True, True, False)
"""Whether the last of them is EOS. A completion ends shorter than ``WIDTH`` only by EOS; the fifth just made it."""

CASES: dict[str, dict[str, Any]] = {
    "defaults": {"kl_coef": 0.05, "kl_estimator": "k1", "gamma": 1.0, "lam": 0.95, "num_mini_batches": 2},
    "all_options": {
        "kl_coef": 0.3,
        "kl_estimator": "k3",
        "gamma": 0.9,
        "lam": 0.7,
        "missing_eos_penalty": 1.0,
        "whiten_rewards": True,
    },
}
AT_ROLLOUT = ("scores", "logprobs", "ref_logprobs", "values", "kl", "rewards", "advantages", "returns")
AT_UPDATE = ("new_logprobs", "vpred", "pg_loss", "vf_loss", "loss")
IN_LOG = ("approxkl", "pg_clipfrac", "vf_clipfrac")


def tokenizer() -> Any:
    """The toy's, with a pad token of its own."""
    tokens = toy_tokenizer()
    tokens.add_special_tokens({"pad_token": "<pad>"})
    return tokens


def model(kind: Any, seed: int, spread: float, tokens: Any) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_labels=1,
        bos_token_id=None,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    made = kind(config)
    with torch.no_grad():  # initial weights of 0.02 give near-uniform policies and values near 0
        for parameter in made.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return made


def completions(tokens: Any) -> torch.Tensor:
    """(B, WIDTH): letters, then EOS where the completion ended, then padding."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, len(tokens) - 1, (len(LENGTHS), WIDTH), generator=generator)
    for row, (length, ended) in enumerate(zip(LENGTHS, ENDED, strict=True)):
        if ended:
            ids[row, length - 1] = tokens.eos_token_id
        ids[row, length:] = tokens.pad_token_id
    return ids


def numbers(value: Any) -> Any:
    return value.detach().tolist() if isinstance(value, torch.Tensor) else value


def caller() -> FrameType:
    """The frame of ``PPOTrainer.train``, seen from a function that it calls."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not PPOTrainer.train.__code__:
        frame = frame.f_back
    assert frame is not None
    return frame


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """One rollout of TRL's trainer, and three epochs over it."""
    tokens = tokenizer()
    given = completions(tokens)
    prompts = tokens(list(PROMPTS), padding=True)["input_ids"]
    order = {tuple(ids): row for row, ids in enumerate(prompts)}
    policy = model(LlamaForCausalLM, 1, 0.2, tokens)

    def given_completions(
        policy: Any, queries: torch.Tensor, batch: int, pad: int, config: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [order[tuple(ids)] for ids in queries.tolist()]
        query_responses = torch.cat([queries, given[rows]], 1)
        logits = ppo_trainer.forward(policy, query_responses, pad).logits[:, queries.shape[1] - 1 : -1]
        return query_responses, logits / config.temperature

    trainer = PPOTrainer(
        args=PPOConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=len(PROMPTS),
            gradient_accumulation_steps=1,
            total_episodes=len(PROMPTS),
            num_ppo_epochs=3,
            response_length=WIDTH,
            stop_token="eos",
            temperature=1.0,
            # So large that some ratios and values leave their clips within three epochs.
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            num_sample_generations=0,
            seed=0,
            **settings,
        ),
        processing_class=tokens,
        model=policy,
        ref_model=model(LlamaForCausalLM, 2, 0.2, tokens),
        reward_model=model(LlamaForSequenceClassification, 3, 0.2, tokens),
        value_model=model(LlamaForSequenceClassification, 4, 0.1, tokens),
        train_dataset=Dataset.from_dict({"input_ids": prompts}),
        data_collator=lambda rows: {"input_ids": torch.tensor([row["input_ids"] for row in rows])},
    )
    transformers.set_seed(0)  # TRL shuffles the minibatches with numpy's global generator
    seen: dict[str, Any] = {"updates": []}
    backward, whiten, log = trainer.accelerator.backward, ppo_trainer.masked_whiten, trainer.log

    def seen_whiten(values: torch.Tensor, mask: torch.Tensor, shift_mean: bool = True) -> torch.Tensor:
        # Called on the rewards, where asked for, and then on the advantages.
        seen["unwhitened_rewards" if not shift_mean else "unwhitened_advantages"] = numbers(values)
        return whiten(values, mask, shift_mean)

    def seen_backward(loss: torch.Tensor, **kwargs: Any) -> None:
        values = caller().f_locals
        if "lengths" not in seen:
            rows = [order[tuple(ids)] for ids in values["queries"].tolist()]
            seen["ended_eos"] = [ENDED[row] for row in rows]
            seen["lengths"] = (~values["padding_mask"]).sum(1).tolist()
            assert seen["lengths"] == [LENGTHS[row] for row in rows]
            seen.update({name: numbers(values[name]) for name in AT_ROLLOUT})
        for name in ("new_logprobs", "vpred"):
            values[name].retain_grad()
        update = {"rows": values["micro_batch_inds"].tolist(), **{name: numbers(values[name]) for name in AT_UPDATE}}
        backward(loss, **kwargs)
        update |= {f"{name}_gradient": numbers(values[name].grad) for name in ("new_logprobs", "vpred")}
        seen["updates"].append(update)

    def seen_log(logs: dict[str, float], *args: Any) -> None:
        values = caller().f_locals
        for name in IN_LOG:
            for update, value in zip(seen["updates"], values[f"{name}_stats"].flatten().tolist(), strict=True):
                update[name] = value
        log(logs, *args)

    trainer.accelerator.backward = seen_backward
    trainer.log = seen_log
    with mock.patch.multiple(ppo_trainer, batch_generation=given_completions, masked_whiten=seen_whiten):
        trainer.train()
    seen["settings"] = {
        name: getattr(trainer.args, name)
        for name in (*CASES["all_options"], "cliprange", "cliprange_value", "vf_coef", "num_mini_batches")
    }
    return seen


def main() -> None:
    real, sys.stdout = sys.stdout, sys.stderr  # TRL prints
    torch.set_num_threads(1)
    versions = {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    cases = {name: run(settings) for name, settings in CASES.items()}
    print(json.dumps({"versions": versions, "cases": cases}), file=real)


if __name__ == "__main__":
    main()
