"""The mathematics of on-policy algorithms: pure functions on tensors, no model.

B sequences of C completion tokens; ``mask`` (B, C) is 1 on the tokens that count. Everything is fp32 and 0
where the mask is 0. Log-probabilities and KL are in nats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # methods of tensors suffice, so that listing algorithms need not import torch
    from torch import Tensor

# -------------------------------------------------------------------------------------------- KL


def kl_k1(logps: Tensor, reference_logps: Tensor) -> Tensor:
    """log pi - log ref of sampled tokens: unbiased for KL(pi || ref), can be negative.

    Estimators k1, k2 and k3 are J. Schulman's ("Approximating KL Divergence", 2020).
    """
    return logps - reference_logps


def kl_k2(logps: Tensor, reference_logps: Tensor) -> Tensor:
    """(log pi - log ref)^2 / 2: never negative, biased; its gradient is that of k1 in the reward."""
    return 0.5 * (logps - reference_logps) ** 2


def kl_k3(logps: Tensor, reference_logps: Tensor) -> Tensor:
    """ref/pi - 1 - log(ref/pi): unbiased and never negative. The penalty of GRPO (arXiv:2402.03300, Eq. 4)."""
    log_ratio = reference_logps - logps
    return log_ratio.exp() - log_ratio - 1


# --------------------------------------------------------------------------------------- rewards


def shape_rewards(scores: Tensor, kl: Tensor, mask: Tensor, *, beta: float) -> Tensor:
    """Per-token rewards (B, C): -beta * kl everywhere, plus ``scores`` (B,) on the last token.

    The reward of RLHF with PPO (Ziegler et al. 2019, arXiv:1909.08593, Eq. 2). Sums over tokens to
    score - beta * sum(kl). A row without tokens gets nothing.
    """
    last = mask.sum(1).long() - 1
    rewards = -beta * kl * mask
    rows = (last >= 0).nonzero().squeeze(1)
    rewards[rows, last[rows]] += scores[rows]
    return rewards


# ------------------------------------------------------------------------------------ advantages


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float) -> Tensor:
    """Advantages by Generalized Advantage Estimation (arXiv:1506.02438, Eq. 16), (B, C).

    ``values`` are of the state before each token; after the last token the value is 0 (the episode ends, also
    where it was cut at the length limit). gae_lambda = 1 gives return - value, 0 the one-step TD error.
    """
    advantages = rewards.new_zeros(rewards.shape)
    following = rewards.new_zeros(len(rewards))
    next_value = rewards.new_zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        valid = mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = (delta + gamma * gae_lambda * following) * valid
        advantages[:, t] = following
        next_value = values[:, t] * valid
    return advantages


def group_advantages(
    rewards: Tensor, group: int, *, scale: Literal["group", "batch", "none"] = "group", eps: float = 1e-4
) -> Tensor:
    """Reward minus the mean of its group, over a standard deviation: of the group, of the batch, or none; (B,).

    "group" is GRPO's (arXiv:2402.03300, §4.1.2), "none" Dr. GRPO's (arXiv:2503.20783), "batch" Lite PPO's
    (arXiv:2508.08221). Rows of one prompt are consecutive. The standard deviation is the unbiased one; a group of equal
    rewards gets zeros.
    """
    grouped = rewards.view(-1, group)
    centred = grouped - grouped.mean(1, keepdim=True)
    if scale == "group" and group > 1:
        centred = centred / (grouped.std(1, keepdim=True) + eps)
    elif scale == "batch" and len(rewards) > 1:
        centred = centred / (rewards.std() + eps)
    return centred.reshape(-1)


def leave_one_out_advantages(rewards: Tensor, group: int) -> Tensor:
    """Reward minus the mean reward of the others of its group, (B,): RLOO (arXiv:2402.14740, §2.3)."""
    grouped = rewards.view(-1, group)
    return ((grouped - grouped.mean(1, keepdim=True)) * (group / (group - 1))).reshape(-1)


def rewards_to_go(rewards: Tensor, mask: Tensor) -> Tensor:
    """Sum of the rewards from each token to the end, undiscounted, (B, C)."""
    return (rewards * mask).flip(1).cumsum(1).flip(1) * mask


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that count; a scalar. 0 when none does."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def sequence_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens of each sequence, (B, C) to (B,); 0 for one without tokens."""
    return (values * mask).sum(1) / mask.sum(1).clamp(min=1)


def masked_whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """Scale to unit (unbiased) variance over the tokens that count; to zero mean unless ``shift_mean`` is False."""
    mean = masked_mean(values, mask)
    count = mask.sum()
    variance = masked_mean((values - mean) ** 2, mask) * count / (count - 1).clamp(min=1)
    whitened = (values - mean) * (variance + eps).rsqrt()
    return (whitened if shift_mean else whitened + mean) * mask


# ---------------------------------------------------------------------------------------- losses


def ratio(logps: Tensor, old_logps: Tensor) -> Tensor:
    """pi / pi_old per token; the log-ratio is clamped to +-20 so that one token cannot overflow."""
    return (logps - old_logps).clamp(-20.0, 20.0).exp()


def sequence_ratio(logps: Tensor, old_logps: Tensor, mask: Tensor, *, per_token: bool) -> Tensor:
    """pi / pi_old of whole completions, (B,): with ``per_token`` its |y|-th root.

    The root is GSPO's importance ratio (arXiv:2507.18071, Eq. 7), the product itself RLOO's.
    """
    log_ratio = ((logps - old_logps) * mask).sum(1)
    if per_token:
        log_ratio = log_ratio / mask.sum(1).clamp(min=1)
    return log_ratio.clamp(-20.0, 20.0).exp()


def clipped_policy_loss(ratio: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float) -> Tensor:
    """PPO's pessimistic clipped surrogate (arXiv:1707.06347, Eq. 7), negated, per token (B, C) or sequence (B,).

    The gradient is zero where A > 0 and the ratio passed 1 + clip_high, and where A < 0 and it fell below
    1 - clip_low.
    """
    return (-advantages * ratio).maximum(-advantages * ratio.clamp(1 - clip_low, 1 + clip_high))


def is_clipped(ratio: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float) -> Tensor:
    """1 where the clip removed the gradient, else 0; shape of ``ratio``."""
    return (((advantages > 0) & (ratio > 1 + clip_high)) | ((advantages < 0) & (ratio < 1 - clip_low))).float()


def weighted_likelihood_loss(
    logps: Tensor, ratio: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float
) -> Tensor:
    """CISPO (arXiv:2506.13585, Eq. 4 and 5), negated, per token (B, C): the clipped ratio weighs, without gradient.

    Unlike the surrogate, no token loses its gradient; the clip bounds how much a token counts.
    """
    return -ratio.clamp(1 - clip_low, 1 + clip_high).detach() * advantages * logps


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float) -> Tensor:
    """Half the squared error, the larger of clipped and unclipped, per token (B, C).

    As in OpenAI's PPO implementation; the value may move by ``clip`` from the rollout's. Never below the
    unclipped loss.
    """
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * ((values - returns) ** 2).maximum((clipped - returns) ** 2)


class AdaptiveKL:
    """Ziegler's controller (arXiv:1909.08593, §2.2): beta follows the KL of a sequence to ``target`` nats.

    ``beta *= 1 + clip(kl / target - 1, -0.2, 0.2) * n / horizon`` after n sequences; kl is the sum over a
    sequence, not a mean over tokens.
    """

    def __init__(self, beta: float, target: float, horizon: int) -> None:
        self.beta, self.target, self.horizon = beta, target, horizon

    def update(self, kl: float, sequences: int) -> None:
        """Move beta after ``sequences`` sequences of mean KL ``kl`` nats."""
        error = min(0.2, max(-0.2, kl / self.target - 1))
        self.beta *= 1 + error * sequences / self.horizon
