"""Unsupervised SimCSE: a text's two passes under dropout are alike, other texts are not (arXiv:2104.08821, §3).

As LLM2Vec's second step (arXiv:2404.05961, §2.1): attention to both sides, mean pooling, dropout on the attention
weights alone and in these passes alone. The policy is an encoder afterwards: it is not sampled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from bakeoff.contracts import TrainContext
from bakeoff.errors import ModelError

from .text import TextAlgorithm, TextSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class SimCSESettings(TextSettings):
    """Settings of ``simcse``."""

    learning_rate: float = Field(default=3e-5, gt=0)
    """Peak; follows the matrix's schedule (LLM2Vec: 3e-5)."""
    batch: int = Field(default=32, ge=2)
    """Texts an optimizer step; each is held against all others of its batch (LLM2Vec: 128). 32 is this project's
    choice, for memory."""
    dropout: float = Field(default=0.3, gt=0, lt=1)
    """On attention weights; what makes two passes differ (LLM2Vec: 0.3)."""
    temperature: float = Field(default=0.05, gt=0)
    """Of the cosine similarities (both papers: 0.05)."""


class SimCSE(TextAlgorithm):
    """Contrastive learning with dropout as the only noise."""

    title = "Unsupervised SimCSE"
    paper = "Gao et al. 2021, arXiv:2104.08821, §3"
    Settings = SimCSESettings
    bidirectional = True

    def sequences(self, context: TrainContext) -> Sequence[Sequence[int]]:
        """The pieces of text themselves: a block of several would have several meanings."""
        rows: Sequence[Sequence[int]] = context.text["input_ids"][:]
        if len(rows) < 2:
            raise ValueError("one text has no other to be held against")
        return rows

    def loss(self, context: TrainContext, ids: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Cross-entropy of finding each text's other pass among the batch's (Eq. 4 of SimCSE)."""
        with attention_dropout(context.roles.causal_lm, self.settings.dropout):
            first, second = (mean_pool(context.roles.hidden(ids, mask), mask) for _ in range(2))
        return info_nce(first, second, self.settings.temperature)


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over tokens of hidden states (B, T, H), in fp32; (B, H)."""
    weights = mask[..., None].float()
    return (hidden.float() * weights).sum(1) / weights.sum(1)


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Mean -log softmax of row i's similarity to row i of ``second``, among all rows; both (B, H)."""
    import torch
    import torch.nn.functional as F

    similarities = F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).T / temperature
    return F.cross_entropy(similarities, torch.arange(len(first), device=first.device))


@contextlib.contextmanager
def attention_dropout(model: nn.Module, rate: float) -> Iterator[None]:
    """Dropout on the model's attention weights while it trains; none before or after.

    Raises ``ModelError`` where no attention layer has a rate to set.
    """
    import torch

    holders: list[tuple[Any, str]] = []
    for module in model.modules():
        for name in ("attention_dropout", "attn_dropout"):
            found = getattr(module, name, None)
            if isinstance(found, torch.nn.Dropout):
                holders.append((found, "p"))
            elif isinstance(found, float | int):
                holders.append((module, name))
    if not holders:
        raise ModelError(
            f"{type(model).__name__} has no attention dropout that could be switched on.",
            fix="simcse needs it for its two views of a text: choose another model.",
        )
    former = [getattr(holder, name) for holder, name in holders]
    for holder, name in holders:
        setattr(holder, name, rate)
    try:
        yield
    finally:
        for (holder, name), value in zip(holders, former, strict=True):
            setattr(holder, name, value)
