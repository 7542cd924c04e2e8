"""Denoising: write what is missing in a text with gaps (T5's span corruption, arXiv:1910.10683, §3.3.4, for decoders).

    the film _ seen by _ . <eos> _ was never _ three people <eos>

The text with blanks, EOS, then each gap's tokens after a blank, in order, and EOS; only what follows the first EOS is
learned, with causal attention. Differs from T5: every gap has the same sentinel, since a decoder's vocabulary has no
row of spare tokens and LoRA trains no embeddings; the order says which gap is meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from bakeoff.contracts import TrainContext
from bakeoff.rows import blank_id, blocks

from .text import TextAlgorithm, TextSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class DenoiseSettings(TextSettings):
    """Settings of ``denoise``."""

    noise_rate: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens that are in gaps (T5: 0.15; UL2, arXiv:2205.05131, up to 0.5)."""
    mean_span: float = Field(default=3.0, ge=1)
    """Mean length of a gap in tokens (T5: 3)."""


class Denoise(TextAlgorithm):
    """Span corruption for decoders."""

    title = "Span-Corruption Denoising"
    paper = "Raffel et al. 2020, arXiv:1910.10683, §3.3.4"
    Settings = DenoiseSettings

    def sequences(self, context: TrainContext) -> Sequence[Sequence[int]]:
        """Blocks that are no longer than allowed when blanks, gaps and both EOS are added."""
        from .corruption import span_counts

        def corrupted(length: int) -> int:
            return length + 2 * span_counts(length, self.settings.noise_rate, self.settings.mean_span)[1] + 2

        fitting = (length for length in range(context.max_tokens, 1, -1) if corrupted(length) <= context.max_tokens)
        length = next(fitting, None)
        if length is None:
            raise ValueError(f"sequences of {context.max_tokens} tokens are too short to hold a text with a gap")
        return blocks(context.text["input_ids"], length)

    def loss(self, context: TrainContext, ids: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """-log p of the gaps, their blanks and the last EOS, in nats, mean over tokens."""
        import torch

        from .corruption import corrupt, span_mask

        eos: Any = context.tokenizer.eos_token_id
        gaps = [span_mask(ids.shape[1], self.settings.noise_rate, self.settings.mean_span, generator) for _ in ids]
        rows = [
            corrupt(row, gap.to(row.device), blank_id(context.tokenizer), eos)
            for row, gap in zip(ids, gaps, strict=True)
        ]
        inputs, labels = (torch.stack(column) for column in zip(*rows, strict=True))
        loss: Any = context.policy(input_ids=inputs, attention_mask=torch.ones_like(inputs), labels=labels).loss
        return loss
