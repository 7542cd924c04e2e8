"""KTO: fit the policy to completions that are good or bad, each by itself (arXiv:2402.01306).

TRL's ``KTOTrainer`` on the cell's pairs, taken apart: a chosen completion is desirable, a rejected one is not. The zero
that both are measured from is the policy's KL to the reference, estimated on mismatched rows: each completion under the
prompt of the next row of its step. Those passes, of policy and reference, are on the budget.

Differs from TRL: rows come in a new seeded order each time around, where TRL's are in file order every time, since its
mismatches are made once. Learning rate for LoRA, no gradient checkpointing.
"""

from __future__ import annotations

import functools
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bakeoff.contracts import Algorithm, PluginSettings, Preset, TrainContext
from bakeoff.seeds import in_turn

if TYPE_CHECKING:
    from datasets import Dataset

KINDS = {"chosen": True, "rejected": False}
ENDLESS = 10**9


class KTOSettings(PluginSettings):
    """Settings of ``kto``."""

    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak; follows the matrix's schedule. The paper's default at 8B is 5e-6, with LoRA too (§4.2); here it is
    ``dpo``'s rate."""
    batch: int = Field(default=16, ge=2)
    """Completions an optimizer step, of both kinds. The KL is estimated on as many. 8 to 128 (paper, §4.2).
    16 is this project's choice: as many completions as 8 pairs have."""
    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull to the reference; smaller moves further. 0.01 to 0.5 (paper, §4.2: 0.1)."""
    loss: Literal["kto", "apo_zero_unpaired"] = "kto"
    """The paper's, or one without the KL (arXiv:2408.06266)."""
    desirable_weight: float = Field(default=1.0, ge=0)
    """Weight of chosen completions (TRL: 1)."""
    undesirable_weight: float = Field(default=1.0, ge=0)
    """Weight of rejected ones. Pairs have as many of each, so that both stay at 1 (paper, §4.2)."""


class KTO(Algorithm):
    """Kahneman-Tversky Optimization, the loss of §4.1, on pairs taken apart."""

    title = "Kahneman-Tversky Optimization"
    paper = "Ethayarajh et al. 2024, arXiv:2402.01306"
    Settings = KTOSettings
    settings: KTOSettings
    consumes = frozenset({"preferences"})
    trained_by = "TRL's KTOTrainer"

    presets = MappingProxyType(
        {
            "apo_zero_unpaired": Preset(
                "Anchored Preference Optimization, zero, unpaired",
                "D'Oosterlinck et al. 2024, arXiv:2408.06266",
                {"loss": "apo_zero_unpaired"},
                "The paper has pairs only; TRL's unpaired form of its Eq. 7.",
            ),
        }
    )

    def train(self, context: TrainContext) -> None:
        """Train until the budget is spent."""
        import datasets
        from trl import KTOConfig, KTOTrainer

        settings = self.settings
        first = context.preferences[0]
        trainer = KTOTrainer(
            model=context.policy,
            args=KTOConfig(
                **context.trainer_arguments(
                    learning_rate=settings.learning_rate,
                    per_device_train_batch_size=settings.batch,
                    beta=settings.beta,
                    loss_type=settings.loss,
                    desirable_weight=settings.desirable_weight,
                    undesirable_weight=settings.undesirable_weight,
                    max_length=None,  # rows that are too long were left out for all algorithms alike
                )
            ),
            # TRL tokenises text itself; it trains on the cell's own tokens, below.
            train_dataset=datasets.Dataset.from_list(
                [{"prompt": first["prompt"], "completion": first[kind], "label": KINDS[kind]} for kind in KINDS]
            ),
            processing_class=context.tokenizer,
            callbacks=context.callbacks,
            optimizers=(context.optimizer(settings.learning_rate), None),
        )
        trainer.train_dataset = UnpairedRows(context.preferences, batch=settings.batch, seed=context.seed)
        trainer.train(resume_from_checkpoint=context.checkpoint)


class UnpairedRows:
    """Both completions of every pair as rows, without end: seeded permutations, one after another.

    A row has the completion of the row before it in its batch as ``KL_completion_ids``, the first that of the last.
    """

    def __init__(self, pairs: Dataset, *, batch: int, seed: int) -> None:
        self.rows = [
            {"prompt_ids": pair["prompt_ids"], "completion_ids": pair[f"{kind}_ids"], "label": label}
            for pair in pairs
            for kind, label in KINDS.items()
        ]
        self.batch, self.seed = batch, seed
        self.drawn = functools.lru_cache(maxsize=1)(self._drawn)

    def __len__(self) -> int:
        return ENDLESS  # the budget ends training

    def __getitem__(self, index: int) -> dict[str, Any]:
        number, place = divmod(index, self.batch)
        drawn = self.drawn(number)
        mismatched = self.rows[drawn[place - 1]]["completion_ids"]
        return self.rows[drawn[place]] | {"KL_completion_ids": mismatched}

    def _drawn(self, number: int) -> list[int]:
        return in_turn(self.seed, "rows", number, self.batch, len(self.rows))
