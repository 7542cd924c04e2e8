"""SFT: fit the policy to demonstrations by maximum likelihood.

TRL's ``SFTTrainer`` on the cell's tokenised rows, so that it trains on the tokens that every other algorithm
sees. Differs from TRL's defaults: learning rate for LoRA, no gradient checkpointing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bakeoff.contracts import Algorithm, PluginSettings, Preset, TrainContext
from bakeoff.errors import Incompatible

if TYPE_CHECKING:
    from datasets import Dataset


class SFTSettings(PluginSettings):
    """Settings of ``sft``."""

    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak; follows the matrix's schedule. TRL's 2e-5 is for full fine-tuning, LoRA wants about ten times that
    (Schulman et al., "LoRA Without Regret", 2025)."""
    batch: int = Field(default=16, ge=1)
    """Demonstrations an optimizer step; with packing, packed sequences. This project's choice; HF's Trainer has 8."""
    loss: Literal["nll", "dft"] = "nll"
    """A token's loss: -log p, or DFT's -p log p with no gradient through the factor p (arXiv:2508.05629). TRL: nll."""
    loss_on: Literal["completion", "sequence"] = "completion"
    """The tokens that are learned: the completion's, or the prompt's too. TRL, too, learns completions where rows
    have them."""
    train_layers: int | tuple[int, ...] | None = None
    """The layers whose adapters learn: how many from the top, or which, counted from 0, -1 the top one. All unless
    given, as in TRL. The rest stay as they are, bit by bit."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Each layer learns at this share of the rate of the one above it; 1 / 2.6 in arXiv:1801.06146, §3.2.
    1, the same rate for all, is TRL's."""
    packing: bool = False
    """Put several demonstrations into one sequence of the longest length, each attending to itself only (TRL's "bfd"):
    the same gradient with less padding, but where attention is not fused its cost grows with the square of the
    pack. Off, as in TRL."""
    neftune_alpha: float = Field(default=0.0, ge=0)
    """Uniform noise on the embeddings, of size alpha / sqrt(tokens x width); 5 to 15 (arXiv:2310.05914, Alg. 1).
    0 is off."""


class SFT(Algorithm):
    """Supervised fine-tuning on demonstrations."""

    title = "Supervised Fine-Tuning"
    paper = "Ouyang et al. 2022, arXiv:2203.02155, §3.5"
    Settings = SFTSettings
    presets = MappingProxyType(
        {
            "dft": Preset("Dynamic Fine-Tuning", "Wu et al. 2025, arXiv:2508.05629", {"loss": "dft"}),
            "neftune": Preset(
                "Noisy Embedding Fine-Tuning", "Jain et al. 2023, arXiv:2310.05914", {"neftune_alpha": 5.0}
            ),
        }
    )
    consumes = frozenset({"demonstrations"})
    trained_by = "TRL's SFTTrainer"

    def train(self, context: TrainContext) -> None:
        """Train until the budget is spent."""
        from trl import SFTConfig, SFTTrainer

        settings = self.settings
        with context.roles.training_only(self.trained_layers(context.roles.layers)), self._counting_packed(context):
            trainer = SFTTrainer(
                model=context.policy,
                args=SFTConfig(
                    **context.trainer_arguments(
                        learning_rate=settings.learning_rate,
                        per_device_train_batch_size=settings.batch,
                        # Rows that are too long were left out for all algorithms alike: none is cut here.
                        max_length=context.max_tokens if settings.packing else None,
                        packing=settings.packing,
                        loss_type=settings.loss,
                        neftune_noise_alpha=settings.neftune_alpha or None,
                    )
                ),
                train_dataset=self._rows(context),
                processing_class=context.tokenizer,
                callbacks=context.callbacks,
                optimizers=(context.optimizer(settings.learning_rate, layer_decay=settings.layer_decay), None),
            )
            trainer.train(resume_from_checkpoint=context.checkpoint)

    def trained_layers(self, layers: int) -> set[int]:
        """The numbers of the layers that learn, of ``layers``. Raises ``Incompatible`` for one that there is not."""
        wanted = self.settings.train_layers
        if wanted is None:
            return set(range(layers))
        numbers = range(-wanted, 0) if isinstance(wanted, int) else wanted
        if not numbers or not all(-layers <= number < layers for number in numbers):
            raise Incompatible(
                f"train_layers is {wanted}, but the model has {layers} layers.",
                fix=f"Give how many train, 1 to {layers}, or a list of numbers from 0 to {layers - 1}.",
            )
        return {number % layers for number in numbers}

    def _rows(self, context: TrainContext) -> Dataset:
        rows = context.demonstrations.select_columns(["input_ids", "labels"])
        if self.settings.loss_on == "sequence":
            rows = rows.remove_columns("labels").add_column("labels", rows["input_ids"])
        return rows

    @contextlib.contextmanager
    def _counting_packed(self, context: TrainContext) -> Iterator[None]:
        """Count the demonstrations in each pack: a batch has as many rows of data as positions that are 0."""
        if not self.settings.packing:
            yield
            return

        def count(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            if module.training:
                context.meter.count_prompts(int((kwargs["position_ids"] == 0).sum()))

        handle = context.policy.register_forward_pre_hook(count, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
