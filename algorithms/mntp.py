"""MNTP: masked next-token prediction, which makes a decoder read both ways (LLM2Vec, arXiv:2404.05961, §2.1).

Attention is to both sides; a hidden token is predicted from the position before it, as the model was pre-trained to.
Differs from LLM2Vec: every hidden token becomes the blank (its all-mask collator), none a random one; LoRA as every
other algorithm's. The policy is an encoder afterwards: it is not sampled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from bakeoff.contracts import TrainContext
from bakeoff.rows import blank_id

from .text import TextAlgorithm, TextSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class MNTPSettings(TextSettings):
    """Settings of ``mntp``."""

    mask_rate: float = Field(default=0.2, gt=0, lt=1)
    """Share of the tokens that are hidden. LLM2Vec (arXiv:2404.05961) has 0.2 for Llama 3, there with some random
    tokens and some left as they are, and 0.8 with blanks alone for Mistral."""


class MNTP(TextAlgorithm):
    """Masked next-token prediction."""

    title = "Masked Next-Token Prediction"
    paper = "BehnamGhader et al. 2024, arXiv:2404.05961, §2.1"
    Settings = MNTPSettings
    bidirectional = True

    def loss(self, context: TrainContext, ids: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """-log p of the hidden tokens, in nats, mean over all of the batch."""
        from .corruption import hide

        hidden = hide(mask.cpu(), self.settings.mask_rate, generator).to(ids.device)
        blanked = ids.masked_fill(hidden, blank_id(context.tokenizer))
        # The model's loss shifts labels by one: the position before a hidden token predicts it.
        labels = ids.masked_fill(~hidden, -100)
        loss: Any = context.policy(input_ids=blanked, attention_mask=mask, labels=labels).loss
        return loss
