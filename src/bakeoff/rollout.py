"""Sampling and log-probabilities in batches: the hot path that every algorithm and evaluation shares.

Sequences are a left-padded prompt (B, P) and a right-padded completion (B, C). Masks come from lengths, never
from token ids: many tokenizers pad with EOS, and the EOS that ends a completion counts. All
log-probabilities are fp32, in nats, at temperature 1 over the whole vocabulary; logits of more than a chunk of
positions never exist at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bakeoff.lora import merged
from bakeoff.roles import Role, RoleModel

CHUNK_BYTES = 24 << 20
"""Memory for the fp32 logits of one chunk of positions: what a CPU's cache holds."""


@dataclass(frozen=True)
class Sequences:
    """Prompts and completions as tensors. ``completion_mask`` is 1 on the completion's tokens, EOS included."""

    prompt_ids: Tensor  # (B, P), left-padded
    prompt_mask: Tensor  # (B, P)
    completion_ids: Tensor  # (B, C), right-padded
    completion_mask: Tensor  # (B, C)

    @classmethod
    def pack(
        cls, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], *, pad: int, device: Any
    ) -> Sequences:
        """Pad lists of token ids. An empty prompt is an error: it has no position to predict from."""
        if any(len(prompt) == 0 for prompt in prompts):
            raise ValueError("a prompt has no tokens; nothing could be sampled after it")
        width = max(len(ids) for ids in prompts)
        length = max(1, *(len(ids) for ids in completions)) if completions else 1
        rows = len(prompts)
        prompt_ids = torch.full((rows, width), pad)
        completion_ids = torch.full((rows, length), pad)
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            prompt_ids[row, width - len(prompt) :] = torch.tensor(prompt)
            completion_ids[row, : len(completion)] = torch.tensor(completion, dtype=torch.long)
        prompt_lengths = torch.tensor([len(ids) for ids in prompts])
        completion_lengths = torch.tensor([len(ids) for ids in completions])
        prompt_mask = torch.arange(width) >= width - prompt_lengths[:, None]
        completion_mask = torch.arange(length) < completion_lengths[:, None]
        return cls(
            prompt_ids.to(device),
            prompt_mask.long().to(device),
            completion_ids.to(device),
            completion_mask.long().to(device),
        )

    @property
    def input_ids(self) -> Tensor:
        """(B, P + C)."""
        return torch.cat([self.prompt_ids, self.completion_ids], 1)

    @property
    def attention_mask(self) -> Tensor:
        """(B, P + C)."""
        return torch.cat([self.prompt_mask, self.completion_mask], 1)

    def __len__(self) -> int:
        return self.prompt_ids.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Sequences:
        """The given rows, with padding that none of them needs cut off."""
        prompt_mask, completion_mask = self.prompt_mask[rows], self.completion_mask[rows]
        first = int(prompt_mask.any(0).int().argmax())
        last = max(1, int(completion_mask.sum(1).max()))
        return Sequences(
            self.prompt_ids[rows][:, first:],
            prompt_mask[:, first:],
            self.completion_ids[rows][:, :last],
            completion_mask[:, :last],
        )


# ------------------------------------------------------------------------------------------ sampling


@dataclass(frozen=True)
class Completions:
    """What was sampled: token ids, EOS included where it came, and whether it came."""

    ids: list[list[int]]
    ended_eos: list[bool]


def uniforms(seed: int, rows: int, length: int) -> Tensor:
    """Uniform draws (rows, length) in [0, 1): one for each token that may be sampled.

    Drawn up front, so that a row's completion depends on its own draws alone, not on its neighbours or on the
    batch size; with one seed, two policies are sampled with common random numbers.
    """
    return torch.rand(rows, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def sample(
    roles: RoleModel,
    prompts: Sequence[Sequence[int]],
    draws: Tensor,
    *,
    eos: Sequence[int],
    pad: int,
    batch: int = 64,
) -> Completions:
    """Sample one completion a prompt under the active role, in eval mode, at temperature 1 without truncation.

    ``draws`` (B, C) are ``uniforms``; C is the most new tokens. Rows of similar prompt length share a batch.
    """
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    ids: list[list[int]] = [[] for _ in prompts]
    with eval_mode(roles.model), merged(roles.backbone):
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            sampled = _decode(roles, [prompts[row] for row in rows], draws[rows].to(roles.device), eos, pad)
            for row, tokens in zip(rows, sampled, strict=True):
                ids[row] = tokens
    return Completions(ids, [bool(tokens) and tokens[-1] in eos for tokens in ids])


def _decode(
    roles: RoleModel, prompts: Sequence[Sequence[int]], draws: Tensor, eos: Sequence[int], pad: int
) -> list[list[int]]:
    from transformers import DynamicCache

    packed = Sequences.pack(prompts, [[] for _ in prompts], pad=pad, device=roles.device)
    mask, step_ids = packed.prompt_mask, packed.prompt_ids
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=roles.causal_lm.config)
    ends = torch.tensor(list(eos), device=roles.device)
    alive = torch.arange(len(prompts), device=roles.device)
    tokens = torch.full(draws.shape, pad, device=roles.device)
    lengths = torch.full((len(prompts),), draws.shape[1], device=roles.device)
    for step in range(draws.shape[1]):
        hidden = roles.backbone(
            input_ids=step_ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )[0][:, -1]
        # A frozen head on a strided 3-D slice copies its weight once a row on CPUs; 2-D and contiguous does not.
        chosen = inverse_cdf(logits_of(roles, hidden.contiguous()), draws[alive, step])
        tokens[alive, step] = chosen
        ended = torch.isin(chosen, ends)
        lengths[alive[ended]] = step + 1
        if ended.any():
            going = (~ended).nonzero().squeeze(1)
            if len(going) == 0:
                break
            alive, chosen, mask = alive[going], chosen[going], mask[going]
            cache.batch_select_indices(going)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        step_ids, positions = chosen[:, None], mask.sum(1, keepdim=True) - 1
    return [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]


def inverse_cdf(logits: Tensor, draws: Tensor) -> Tensor:
    """One token a row of ``logits`` (B, V) by inverting the distribution at ``draws`` (B,) in [0, 1).

    ``torch.multinomial`` gives the same distribution but runs on one thread of a CPU.
    """
    cdf = torch.softmax(logits, -1).cumsum(-1)
    if not torch.isfinite(cdf[:, -1]).all():
        raise FloatingPointError("the policy's logits are not finite")
    total = cdf[:, -1]
    # A draw can round to 1; below the total, the first larger entry is always a token of positive probability.
    targets = torch.minimum(draws.to(cdf.dtype) * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf, targets[:, None], right=True).squeeze(1).clamp(max=logits.shape[-1] - 1)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Rollouts and scores never see dropout."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


# ------------------------------------------------------------------------------- log-probabilities


def logits_of(roles: RoleModel, hidden: Tensor) -> Tensor:
    """fp32 logits (N, V) of hidden states (N, H), with what some architectures do after the head."""
    logits = roles.lm_head(hidden).float()
    config = roles.causal_lm.config.get_text_config()
    if getattr(config, "logits_scaling", None):
        logits = logits / config.logits_scaling
    if getattr(config, "logit_scale", None):
        logits = logits * config.logit_scale
    if getattr(config, "final_logit_softcapping", None):
        logits = torch.tanh(logits / config.final_logit_softcapping) * config.final_logit_softcapping
    return logits


def completion_hidden(roles: RoleModel, sequences: Sequences) -> Tensor:
    """Hidden states (N, H) that predict the N completion tokens of all rows, in row order."""
    return at_completion(roles.hidden(sequences.input_ids, sequences.attention_mask), sequences)


def at_completion(hidden: Tensor, sequences: Sequences) -> Tensor:
    """Of hidden states (B, T, H), those (N, H) that predict a completion token."""
    prompt = sequences.prompt_ids.shape[1]
    return hidden[:, prompt - 1 : -1][sequences.completion_mask.bool()]


def completion_logps(roles: RoleModel, sequences: Sequences) -> Tensor:
    """Log-probability of each completion token under the active role, (B, C), 0 where masked."""
    hidden = completion_hidden(roles, sequences)
    return scatter(token_logps(roles, hidden, flat_ids(sequences)), sequences.completion_mask)


def flat_ids(sequences: Sequences) -> Tensor:
    """The completion tokens of all rows, (N,)."""
    return sequences.completion_ids[sequences.completion_mask.bool()]


def scatter(values: Tensor, mask: Tensor) -> Tensor:
    """(N,) values back to their places in (B, C), 0 elsewhere."""
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask.bool(), values)


def chunks(rows: int, vocabulary: int) -> Iterator[slice]:
    """Slices of rows whose fp32 logits fit ``CHUNK_BYTES``."""
    step = max(1, CHUNK_BYTES // (4 * vocabulary))
    return (slice(start, min(rows, start + step)) for start in range(0, rows, step))


def token_logps(roles: RoleModel, hidden: Tensor, ids: Tensor) -> Tensor:
    """Log-probability (N,) of tokens ``ids`` (N,) from hidden states (N, H)."""
    if torch.is_grad_enabled() and hidden.requires_grad:
        if _is_plain(roles):
            return _HeadLogps.apply(hidden, ids, roles)
        from torch.utils.checkpoint import checkpoint

        pieces = [
            checkpoint(_gather, roles, hidden[rows], ids[rows], use_reentrant=False)
            for rows in chunks(len(ids), roles.lm_head.weight.shape[0])
        ]
    else:
        pieces = [_gather(roles, hidden[rows], ids[rows]) for rows in chunks(len(ids), roles.lm_head.weight.shape[0])]
    return torch.cat(pieces) if pieces else hidden.new_zeros(0, dtype=torch.float32)


def _gather(roles: RoleModel, hidden: Tensor, ids: Tensor) -> Tensor:
    logits = logits_of(roles, hidden)
    return logits.gather(1, ids[:, None]).squeeze(1) - logits.logsumexp(1)


def _is_plain(roles: RoleModel) -> bool:
    """Whether logits are a frozen linear map of the hidden states, nothing after it."""
    config = roles.causal_lm.config.get_text_config()
    scaled = any(getattr(config, k, None) for k in ("logits_scaling", "logit_scale", "final_logit_softcapping"))
    head = roles.lm_head
    return not scaled and type(head) is nn.Linear and not head.weight.requires_grad


class _HeadLogps(torch.autograd.Function):
    """Log-probabilities of a frozen head with the gradient made in the forward pass.

    d log p(y) / d h = sum_v (1[v = y] - p(v)) W[v]: (N, H) is kept for the backward pass instead of (N, V) logits,
    which are needed once only.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, ids: Tensor, roles: RoleModel) -> Tensor:
        weight, hidden = roles.lm_head.weight, hidden.detach()
        logps = torch.empty(len(ids), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        for rows in chunks(len(ids), weight.shape[0]):
            logits = roles.lm_head(hidden[rows]).float()
            normaliser = logits.logsumexp(1, keepdim=True)
            logps[rows] = (logits.gather(1, ids[rows, None]) - normaliser).squeeze(1)
            # What is left of the chosen token, 1 - p, is taken in fp32: in bf16 it is 0 of every p above 0.998.
            left = logits.sub_(normaliser).exp_().neg_().scatter_add_(1, ids[rows, None], torch.ones_like(normaliser))
            gradient[rows] = left.to(weight.dtype) @ weight
        if roles.meter is not None:
            roles.meter.count_head(roles.active, len(ids))
        ctx.save_for_backward(gradient)
        return logps

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (outputs[0][:, None] * gradient).to(gradient.dtype), None, None


@dataclass(frozen=True)
class Scores:
    """Per completion token, (B, C), 0 where masked, in nats."""

    logps: Tensor
    reference_logps: Tensor
    kl: Tensor
    """KL(policy || reference) of the next-token distributions, over the whole vocabulary: exact given the
    prefix. Its sum over a sampled completion estimates the sequence KL without bias and with less variance
    than log-ratios (Amini et al. 2025, arXiv:2504.10637, "Rao-Blackwellised")."""
    entropy: Tensor


@torch.no_grad()
def score(roles: RoleModel, sequences: Sequences, *, batch: int = 64) -> Scores:
    """Policy and reference on the same tokens, in eval mode."""
    parts: list[tuple[Tensor, ...]] = []
    masks = sequences.completion_mask
    with eval_mode(roles.model):
        for start in range(0, len(sequences), batch):
            rows = sequences[slice(start, start + batch)]
            with roles.use("policy"):
                policy = completion_hidden(roles, rows)
            with roles.use("reference"):
                reference = completion_hidden(roles, rows)
            parts.append(_compare(roles, policy, reference, flat_ids(rows)))
    columns = (torch.cat(column) for column in zip(*parts, strict=True))
    return Scores(*(scatter(column, masks) for column in columns))


def _compare(roles: RoleModel, policy: Tensor, reference: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
    results: list[tuple[Tensor, ...]] = []
    for rows in chunks(len(ids), 2 * roles.lm_head.weight.shape[0]):
        log_p = torch.log_softmax(logits_of(roles, policy[rows]), 1)
        log_q = torch.log_softmax(logits_of(roles, reference[rows]), 1)
        p = log_p.exp()
        chosen = ids[rows, None]
        results.append(
            (
                log_p.gather(1, chosen).squeeze(1),
                log_q.gather(1, chosen).squeeze(1),
                (p * (log_p - log_q)).sum(1),
                -(p * log_p).sum(1),
            )
        )
    empty = torch.zeros(0, device=policy.device)
    return tuple(torch.cat(column) for column in zip(*results, strict=True)) if results else (empty,) * 4


@torch.no_grad()
def score_roles(
    roles: RoleModel, sequences: Sequences, wanted: Sequence[Role], *, batch: int = 64
) -> dict[Role, Tensor]:
    """What each role says of each completion token, (B, C), 0 where masked: without gradients, in eval mode.

    Policy and reference give log-probabilities; value and reward their head's output for the state before the token.
    """
    pieces: dict[Role, list[Tensor]] = {role: [] for role in wanted}
    size = max(1, batch // max(1, len(wanted)))
    with eval_mode(roles.model):
        for start in range(0, len(sequences) if wanted else 0, size):
            rows = sequences[slice(start, start + size)]
            for role, hidden in roles.hidden_by_role(wanted, rows.input_ids, rows.attention_mask):
                before = at_completion(hidden, rows)
                has_head = role in roles.heads
                pieces[role].append(
                    roles.head_output(role, before) if has_head else token_logps(roles, before, flat_ids(rows))
                )
    return {role: scatter(torch.cat(said), sequences.completion_mask) for role, said in pieces.items()}


def logps_as(roles: RoleModel, role: Role, sequences: Sequences, *, batch: int = 64) -> Tensor:
    """``score_roles`` of one role."""
    return score_roles(roles, sequences, (role,), batch=batch)[role]


def end_ids(roles: RoleModel, tokenizer: Any) -> list[int]:
    """Token ids that end a completion: the tokenizer's EOS and the model's generation config's."""
    configured = roles.causal_lm.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({tokenizer.eos_token_id, *(i for i in ids if i is not None)})
