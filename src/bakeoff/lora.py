"""What LoRA layers compute for a while instead of peft's own pass: several adapters in one batch, or one folded in.

Adapters are plain: no dropout, no bias, no variant (``models.add_lora``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

BASE = "__base__"
"""peft's name for no adapter."""


@contextmanager
def _computing(layers: Sequence[LoraLayer], forward: Callable[[Any], Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Each layer computes what ``forward`` of it says."""
    try:
        for layer in layers:
            layer.forward = forward(layer)  # type: ignore[attr-defined]  # a mixin: the layer is a Module, too
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


# -------------------------------------------------------------------------- several adapters in one batch


def can_mix(model: nn.Module) -> bool:
    """Whether all adapters of ``model`` are of matrices; ``mixed`` knows none of embeddings."""
    return all(len(layer.lora_A) > 0 for layer in model.modules() if isinstance(layer, LoraLayer))


@contextmanager
def mixed(model: nn.Module, adapters: Sequence[str]) -> Iterator[None]:
    """A batch in equal shares, each through its adapter, forward and backward. The base's matrices see one batch.

    What peft gives each share alone, bit for bit; peft's own mixed batches have no gradients in training mode.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    with _computing(layers, lambda layer: partial(_mixed_forward, layer, adapters)):
        yield


def _mixed_forward(layer: Any, adapters: Sequence[str], inputs: Tensor) -> Tensor:
    output = layer.base_layer(inputs)
    if output._is_view():  # autograd would follow what is done in place to what it is a view of
        output = output.clone()
    weights = []
    for name in adapters:
        weights += [None, None] if name == BASE else [layer.lora_A[name].weight, layer.lora_B[name].weight]
    scaling = next(layer.scaling[name] for name in adapters if name != BASE)
    return _AddAdapters.apply(output, inputs, scaling, *weights)


class _AddAdapters(torch.autograd.Function):
    """``output + scaling * inputs A' B'``, in place, with an A and B for each equal share of the rows, or none.

    ``inputs`` (..., K), ``output`` (..., N), A (r, K), B (N, r). Autograd's own graph would copy outputs four times.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, inputs: Tensor, scaling: float, *weights: Tensor | None) -> Tensor:
        downs, ups = weights[::2], weights[1::2]
        inner: list[Tensor | None] = []
        for share, rows, down, up in zip(output.chunk(len(ups)), inputs.chunk(len(ups)), downs, ups, strict=True):
            low = None if down is None else F.linear(rows, down)
            inner.append(low)
            if low is not None and up is not None:
                share.add_(F.linear(low, up).mul_(scaling))
        ctx.mark_dirty(output)
        ctx.save_for_backward(inputs, *downs, *ups, *inner)
        ctx.scaling = scaling
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, *saved = ctx.saved_tensors
        count = len(saved) // 3
        to_inputs = inputs.new_zeros(inputs.shape) if ctx.needs_input_grad[1] else None
        to_weights: list[Tensor | None] = []
        for index, (gradient, rows) in enumerate(
            zip(gradients[0].flatten(0, -2).chunk(count), inputs.flatten(0, -2).chunk(count), strict=True)
        ):
            down, up, inner = saved[index::count]
            if down is None:
                to_weights += [None, None]
                continue
            to_inner = (gradient @ up).mul_(ctx.scaling)
            if to_inputs is not None:
                torch.mm(to_inner, down, out=to_inputs.flatten(0, -2).chunk(count)[index])
            to_weights += [to_inner.T @ rows, (gradient.T @ inner.flatten(0, -2)).mul_(ctx.scaling)]
        return gradients[0], to_inputs, None, *to_weights


# ------------------------------------------------------------------------------------ one adapter folded in


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """On a CPU, fold the active adapter into dequantised weights while sampling.

    A decoding step has few rows, so unpacking 4-bit weights and the two extra products a LoRA layer needs
    dominate it. Costs one copy of the adapted weights for as long; a GPU keeps its memory and its 4-bit kernels.
    """
    layers = [m for m in model.modules() if isinstance(m, LoraLayer) and isinstance(m.base_layer, nn.Linear)]
    if any(layer.base_layer.weight.device.type != "cpu" or layer.merged for layer in layers):
        yield
        return
    with _computing(layers, lambda layer: partial(F.linear, weight=_merged_weight(layer), bias=layer.base_layer.bias)):
        yield


def _merged_weight(layer: Any) -> Tensor:
    from peft.utils.integrations import dequantize_bnb_weight, get_bnb_param_type

    base = layer.base_layer
    weight = base.weight.detach()
    if get_bnb_param_type(base.weight):
        # Not peft's dequantize_module_weight: on a CPU it puts a copy in the layer that has lost its int8 scales.
        weight = dequantize_bnb_weight(base.weight, state=getattr(base, "state", None))
    dtype = next(iter(layer.lora_A.values())).weight.dtype
    if layer.disable_adapters:
        return weight.to(dtype)
    adapter = layer.active_adapters[0]
    up, down = layer.lora_B[adapter].weight, layer.lora_A[adapter].weight
    # One rounding: the product and the sum are fp32.
    return torch.addmm(weight.float(), up.float(), down.float(), alpha=layer.scaling[adapter]).to(dtype)
