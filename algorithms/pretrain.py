"""Continued pre-training: next-token prediction on the task's texts (Gururangan et al. 2020, arXiv:2004.10964).

Texts are joined, each ended by EOS, and cut into full blocks; a block may hold parts of several texts, which see
each other, as in most pre-training. Every token is learned, EOS too, also where EOS is the pad token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bakeoff.contracts import TrainContext

from .text import TextAlgorithm

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Pretrain(TextAlgorithm):
    """The causal language-model loss, mean over tokens."""

    title = "Continued Pre-Training"
    paper = "Gururangan et al. 2020, arXiv:2004.10964"

    def loss(self, context: TrainContext, ids: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """-log p of every token but a block's first, in nats."""
        loss: Any = context.policy(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
        return loss
