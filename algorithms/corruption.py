"""Which tokens of a text are hidden, and what a model is given instead: pure functions on token ids."""

from __future__ import annotations

import torch
from torch import Tensor


def hide(mask: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Which tokens are hidden, (B, T) bool: each with probability ``rate``, at least one of the batch.

    Never a row's first token: no position comes before it.
    """
    candidates = mask.bool()
    candidates[:, 0] = False
    draws = torch.rand(mask.shape, generator=generator).masked_fill(~candidates, 2.0)
    return (draws < rate) | (draws == draws.min()) & candidates


def span_counts(length: int, rate: float, mean_span: float) -> tuple[int, int]:
    """(tokens in gaps, gaps) of a text of ``length`` tokens: the same for every draw, so that rows need no padding."""
    noise = min(max(1, round(length * rate)), max(1, length - 1))
    return noise, min(max(1, round(noise / mean_span)), noise, max(1, length - noise))


def span_mask(length: int, rate: float, mean_span: float, generator: torch.Generator) -> Tensor:
    """Which tokens are in a gap, (T,) bool: random spans, each after a random stretch that is kept."""
    noise, spans = span_counts(length, rate, mean_span)
    kept, gaps = _parts(length - noise, spans, generator), _parts(noise, spans, generator)
    lengths = torch.stack([kept, gaps], 1).flatten()
    return torch.arange(2 * spans).remainder(2).bool().repeat_interleave(lengths)


def _parts(total: int, parts: int, generator: torch.Generator) -> Tensor:
    """``total`` as an ordered sum of ``parts`` positive numbers, each such sum equally likely."""
    cuts = torch.randperm(total - 1, generator=generator)[: parts - 1].sort().values + 1
    return torch.diff(torch.cat([torch.tensor([0]), cuts, torch.tensor([total])]))


def corrupt(ids: Tensor, gaps: Tensor, blank: int, eos: int) -> tuple[Tensor, Tensor]:
    """(inputs, labels) of one text, both of T + 2 spans + 2 tokens; labels are -100 up to the first EOS."""
    opens = gaps & ~gaps.roll(1).index_fill(0, torch.tensor([0], device=gaps.device), False)
    blanks, end = ids.new_full(ids.shape, blank), ids.new_tensor([eos])
    source = torch.where(opens, blanks, ids)[~gaps | opens]
    # A blank before each gap's first token: interleave, then keep what is wanted of both.
    target = torch.stack([blanks, ids], 1)[torch.stack([opens, gaps], 1)]
    inputs = torch.cat([source, end, target, end])
    labels = inputs.clone()
    labels[: len(source) + 1] = -100
    return inputs, labels
