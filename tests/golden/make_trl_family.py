"""Golden numbers of TRL 1.16's GRPO family, RLOO and DPO losses: runs its trainers on frozen log-probabilities.

    python tests/golden/make_trl_family.py > tests/golden/trl_family.json

Each trainer is built on the toy model, and then its sampling and its forward pass are replaced by given completions and
log-probabilities. Rewards to advantages, the losses, and how they are divided among micro-batches, are TRL's own
code; so are the gradients, which are taken with respect to the log-probabilities.

One batch of two prompts with four completions each serves GRPO and RLOO; one of six pairs serves DPO.
``micro_batches`` is how many equal ones the batch is cut into: the loss and the gradient are those of the whole
optimizer step.
"""

from __future__ import annotations

import json
import sys
import tempfile
from types import SimpleNamespace
from typing import Any

import torch
import transformers
import trl
from datasets import Dataset
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.trainer.utils import split_tensor_dict

from bakeoff.testing import toy_model, toy_tokenizer

GROUP = 4
LENGTHS = (6, 3, 1, 5, 2, 6, 4, 4)
WIDTH = 6
REWARDS = (1.0, -0.5, 0.25, 2.0, 0.0, 3.0, -1.0, 0.5)
MAX_LENGTH = 8
"""The length limit, by which Dr. GRPO divides; longer than any completion here."""

CLIP = {"epsilon": 0.2, "epsilon_high": 0.28}
GRPO: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo", **CLIP},
    "dr_grpo": {"loss_type": "dr_grpo", "scale_rewards": "none", **CLIP},
    "dapo": {"loss_type": "dapo", **CLIP},
    "batch_scaled": {"loss_type": "dapo", "scale_rewards": "batch", **CLIP},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.03, "epsilon_high": 0.04},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.2},
}
RLOO: dict[str, dict[str, Any]] = {
    "rloo": {"epsilon": 0.2},
    "rloo_normalised": {"normalize_advantages": True, "epsilon": 0.2},
}
BETAS = (0.0, 0.1)
MICRO_BATCHES = (1, 2)

SMOOTHED = {"label_smoothing": 0.1}
DPO: dict[str, dict[str, Any]] = {
    "sigmoid": {},
    "ipo": {},
    "hinge": {},
    "robust": SMOOTHED,
    "exo_pair": SMOOTHED,
    "nca_pair": {},
    "bco_pair": {},
    "sppo_hard": {},
    "apo_zero": {},
    "apo_down": {},
    "discopop": {"discopop_tau": 0.05},
    "aot": SMOOTHED,
    "aot_unpaired": SMOOTHED,
    "sigmoid_norm": {},
}
DPO_BETA = 0.1
CHOSEN_LENGTHS, REJECTED_LENGTHS = (5, 2, 6, 1, 4, 3), (4, 6, 2, 3, 4, 5)


def arguments(**settings: Any) -> dict[str, Any]:
    return {
        "output_dir": tempfile.mkdtemp(),
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        **settings,
    }


def mask_of(lengths: tuple[int, ...]) -> torch.Tensor:
    return (torch.arange(WIDTH) < torch.tensor(lengths)[:, None]).long()


def frozen_logps() -> dict[str, torch.Tensor]:
    """Per-token log-probabilities (B, WIDTH) now, at sampling and of the reference."""
    # A seed by which every branch of every loss is taken.
    generator = torch.Generator().manual_seed(2)

    def noise(scale: float) -> torch.Tensor:
        return scale * torch.randn(len(LENGTHS), WIDTH, generator=generator)

    old = -0.2 - noise(1.0).abs()
    return {"logps": old + noise(0.35), "old_logps": old, "reference_logps": old + noise(0.4)}


def run_group(kind: Any, settings: dict[str, Any], beta: float, micro_batches: int) -> dict[str, Any]:
    """One optimizer step of GRPOTrainer or RLOOTrainer; advantages, loss and gradient."""
    tokenizer, config = toy_tokenizer(), {GRPOTrainer: GRPOConfig, RLOOTrainer: RLOOConfig}[kind]
    rows = [{"prompt": prompt} for prompt in ("the film", "we were") for _ in range(GROUP)]
    own = {"use_bias_correction_kl": False} if kind is GRPOTrainer else {}
    trainer = kind(
        model=toy_model(),
        reward_funcs=lambda completions, **columns: list(REWARDS),
        args=config(
            **arguments(
                per_device_train_batch_size=len(LENGTHS) // micro_batches,
                gradient_accumulation_steps=micro_batches,
                num_generations=GROUP,
                max_completion_length=MAX_LENGTH,
                # With one iteration TRL takes the log-probabilities of the update for the old ones.
                num_iterations=2,
                beta=beta,
                **own,
                **settings,
            )
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"),  # spares a reference model
    )
    frozen = frozen_logps()
    current = frozen["logps"].clone().requires_grad_()
    given = [[2 + token for token in range(length)] for length in LENGTHS]
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = micro_batches

    def sampled(*inputs: Any) -> Any:
        return (given, None) if kind is GRPOTrainer else given

    in_order = iter([frozen["old_logps"], frozen["reference_logps"]])

    def rollout_logps(*inputs: Any, **options: Any) -> Any:
        return next(in_order), None, None

    trainer._generate_single_turn = sampled
    trainer._get_per_token_logps_and_entropies = rollout_logps
    batch = trainer._generate_and_score_completions(rows)
    assert torch.equal(batch["completion_mask"], mask_of(LENGTHS))
    # Not a row of the batch: the tokens of all of it.
    total = batch.pop("num_items_in_batch", None)
    losses = []
    for number, micro in enumerate(split_tensor_dict(batch, micro_batches)):
        part = current.chunk(micro_batches)[number]
        trainer._get_per_token_logps_and_entropies = lambda *inputs, part=part, **options: (
            part,
            torch.zeros_like(part),
            None,
        )
        loss = trainer._compute_loss(trainer.model, micro | ({} if total is None else {"num_items_in_batch": total}))
        # RLOO leaves this division to transformers, GRPO has done it.
        losses.append(loss / micro_batches if kind is RLOOTrainer else loss)
    loss = torch.stack(losses).sum()
    loss.backward()
    return {
        "beta": beta,
        "micro_batches": micro_batches,
        "advantages": batch["advantages"].tolist(),
        "loss": loss.item(),
        "gradient": current.grad.tolist(),
    }


def frozen_pairs() -> dict[str, list[float]]:
    """Summed log-probabilities of six pairs: margins to both sides, some past a hinge's."""
    generator = torch.Generator().manual_seed(1)

    def noise(scale: float) -> torch.Tensor:
        return scale * torch.randn(len(CHOSEN_LENGTHS), generator=generator)

    chosen, rejected = -20 + noise(5), -20 + noise(5)
    values = {
        "chosen_logps": chosen,
        "rejected_logps": rejected,
        "reference_chosen_logps": chosen + noise(8),
        "reference_rejected_logps": rejected + noise(8),
    }
    return {name: value.tolist() for name, value in values.items()}


def run_dpo(loss_type: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One loss of DPOTrainer and its gradients to the pairs' summed log-probabilities."""
    pairs = {name: torch.tensor(values) for name, values in frozen_pairs().items()}
    trainer = DPOTrainer(
        model=toy_model(),
        args=DPOConfig(**arguments(loss_type=loss_type, beta=DPO_BETA, **settings)),
        train_dataset=Dataset.from_list([{"prompt": "the film", "chosen": " was good", "rejected": " was bad"}]),
        processing_class=toy_tokenizer(),
        peft_config=LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.precompute_ref_logps = True
    lengths = (*CHOSEN_LENGTHS, *REJECTED_LENGTHS)
    mask = mask_of(lengths)
    chosen = pairs["chosen_logps"].clone().requires_grad_()
    rejected = pairs["rejected_logps"].clone().requires_grad_()

    def model(**inputs: Any) -> Any:
        sums = torch.cat([chosen, rejected])
        shape = torch.zeros(mask.shape)
        return SimpleNamespace(
            log_probs=mask * (sums / torch.tensor(lengths))[:, None],
            entropy=shape,
            mean_logits=shape,
            is_top1=shape.bool(),
        )

    # One prompt token, which TRL's shift by one takes off.
    whole = torch.cat([torch.zeros(len(lengths), 1, dtype=torch.long), mask], 1)
    batch = {
        "input_ids": torch.full(whole.shape, 2),
        "attention_mask": torch.ones_like(whole),
        "completion_mask": whole,
        "ref_chosen_logps": pairs["reference_chosen_logps"],
        "ref_rejected_logps": pairs["reference_rejected_logps"],
    }
    loss = trainer._compute_loss(model, batch, return_outputs=False)
    loss.backward()
    return {
        **settings,
        "loss": loss.item(),
        "chosen_gradient": chosen.grad.tolist(),
        "rejected_gradient": rejected.grad.tolist(),
    }


def main() -> None:
    real, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(1)
    versions = {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    group = {
        name: {
            "settings": settings,
            "runs": [run_group(kind, settings, beta, count) for beta in BETAS for count in MICRO_BATCHES],
        }
        for kind, cases in ((GRPOTrainer, GRPO), (RLOOTrainer, RLOO))
        for name, settings in cases.items()
    }
    golden = {
        "versions": versions,
        "group": {
            "group": GROUP,
            "max_length": MAX_LENGTH,
            "lengths": LENGTHS,
            "rewards": REWARDS,
            **{name: values.tolist() for name, values in frozen_logps().items()},
            "cases": group,
        },
        "pairs": {
            "beta": DPO_BETA,
            "chosen_lengths": CHOSEN_LENGTHS,
            "rejected_lengths": REJECTED_LENGTHS,
            **frozen_pairs(),
            "cases": {name: run_dpo(name, settings) for name, settings in DPO.items()},
        },
    }
    print(json.dumps(golden), file=real)


if __name__ == "__main__":
    main()
