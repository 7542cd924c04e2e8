"""What the algorithms that learn from plain text share: blocks of it, and a trainer; each defines its loss."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from bakeoff.contracts import Algorithm, PluginSettings, TrainContext
from bakeoff.rows import blocks

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class TextSettings(PluginSettings):
    """What every algorithm on text can set."""

    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak; follows the matrix's schedule. LoRA: 5e-5 to 5e-4. This project's choice, ``sft``'s rate."""
    batch: int = Field(default=16, ge=1)
    """Sequences an optimizer step. This project's choice, as in ``sft``."""


class TextAlgorithm(Algorithm):
    """Override ``loss``. The policy attends to both sides while it trains if the class says ``bidirectional``."""

    Settings = TextSettings
    consumes = frozenset({"text"})
    trained_by = "transformers' Trainer"

    def sequences(self, context: TrainContext) -> Sequence[Sequence[int]]:
        """Token ids to train on: all texts, one after another, in blocks of the longest length."""
        return blocks(context.text["input_ids"], context.max_tokens)

    @abstractmethod
    def loss(self, context: TrainContext, ids: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of a batch, a scalar. ``ids`` and ``mask`` (1 on tokens) are (B, T), padded on the right.

        What is random is drawn from ``generator``: it depends on seed and step alone, so a resumed run draws the same.
        """

    def train(self, context: TrainContext) -> None:
        """Train until the budget is spent."""
        from .text_trainer import TextTrainer

        with context.roles.attending(both_sides=self.bidirectional):
            TextTrainer(self, context).train(resume_from_checkpoint=context.checkpoint)
