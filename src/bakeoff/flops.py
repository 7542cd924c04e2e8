"""What a pass through the base costs in floating-point operations, read off its layers. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bakeoff.roles import RoleModel


@dataclass(frozen=True)
class PassCost:
    """FLOPs of the base, from its layers: 2 a weight and token, 4 a query-key pair and head channel.

    A frozen weight needs no weight gradient, so a backward pass costs as much as its forward; an adapter's
    weights do, so theirs costs twice; attention's backward costs twice its forward.
    """

    body: int
    """Per token: all linear layers of the transformer, LoRA apart."""
    lora: int
    """Per token: one adapter."""
    attention: int
    """Per query-key pair: scores and weighted sum, all layers."""
    head: int
    """Per scored row: the language-model head."""

    @classmethod
    def of(cls, roles: RoleModel) -> PassCost:
        """Read the layers of the model. Mixture-of-experts layers without ``nn.Linear`` are not seen."""
        from peft.tuners.lora import LoraLayer
        from torch import nn
        from transformers.pytorch_utils import Conv1D

        body = lora = 0
        for name, module in roles.backbone.named_modules():
            if ".lora_" in name:
                continue
            if isinstance(module, LoraLayer) and "default" in module.lora_A:
                for matrix in (module.lora_A["default"], module.lora_B["default"]):
                    lora += 2 * sum(p.numel() for p in matrix.parameters())
            elif isinstance(module, nn.Linear):
                body += 2 * module.in_features * module.out_features
            elif isinstance(module, Conv1D):
                body += 2 * module.nx * module.nf
        config = roles.causal_lm.config.get_text_config()
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            body=body,
            lora=lora,
            attention=4 * config.num_hidden_layers * config.num_attention_heads * width,
            head=2 * config.hidden_size * roles.lm_head.weight.shape[0],
        )

    def forward(self, tokens: int, pairs: int, *, adapter: bool) -> float:
        return tokens * (self.body + self.lora * adapter) + pairs * self.attention

    def backward(
        self, tokens: int, pairs: int, *, adapter: bool, recomputed: bool, reached: float = 1.0, trained: float = 1.0
    ) -> float:
        """``reached`` is the share of the layers that gradients pass, ``trained`` that of the layers that learn."""
        once_more = self.forward(tokens, pairs, adapter=adapter) if recomputed else 0.0
        lora = self.lora * adapter * (reached + trained)
        return tokens * (self.body * reached + lora) + 2 * pairs * self.attention * reached + once_more
