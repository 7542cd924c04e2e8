"""What preferences say, as losses: pure functions of margins, targets and rankings, no model.

A margin is the score of one completion less that of another: of a reward model, r(x, a) - r(x, b), or of a policy,
beta * (log pi/ref (a) - log pi/ref (b)). N pairs, K completions of one prompt. Every pairwise loss is a function of
the margin alone, and most are one function with another target p, the probability that a is better than b:

    Bradley-Terry      ``logistic_loss(u)``                 p = 1
    with a margin      ``logistic_loss(u - m)``             Touvron et al. 2023, arXiv:2307.09288, Eq. 2
    label-smoothed     ``logistic_loss(u, 1 - e)``          labels that are wrong at rate e
    soft labels        ``logistic_loss(u, score_targets(gaps, scale=...))``
    a tie              ``logistic_loss(u, 0.5)``

Listwise: ``plackett_luce``, which for K = 2 is Bradley-Terry, ties included. Losses are unreduced, in nats.
"""

from __future__ import annotations

from itertools import chain, combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # methods of tensors suffice, so that listing algorithms need not import torch
    from torch import Tensor

    from bakeoff.spec import RewardModelSettings

MAX_TIED = 10
"""Completions that may share a rank: their orders are averaged over 2^10 subsets."""


# ---------------------------------------------------------------------------------------- pairwise


def logistic_loss(margins: Tensor, target: Tensor | float = 1.0) -> Tensor:
    """-[p log sigma(u) + (1 - p) log sigma(-u)], (N,): cross-entropy of the Bradley-Terry model with ``target`` p.

    ``margins`` (N,); ``target`` in [0, 1], (N,) or one number. p = 1 is the reward-model loss of Ouyang et al. 2022
    (arXiv:2203.02155, Eq. 1). Its minimum over u is where sigma(u) = p; at u = 0 it is log 2 whatever p is.
    """
    # log sigma(-u) = log sigma(u) - u, so that one logarithm serves both; logaddexp(0, -u) is -log sigma(u), stably.
    return (-margins).logaddexp(margins.new_zeros(())) + (1 - target) * margins


def hinge_loss(margins: Tensor, margin: float) -> Tensor:
    """max(0, margin - u), (N,): pairs that are apart by ``margin`` are left alone (Joachims 2002, ranking SVM)."""
    return (margin - margins).clamp(min=0)


def noise_corrected_loss(margins: Tensor, noise: float, *, limit: float = 10.0) -> Tensor:
    """[(1 - e) l(u) - e l(-u)] / (1 - 2e), (N,), with l = ``logistic_loss`` and e = ``noise`` in [0, 0.5).

    Under labels that are flipped at rate e its expectation is l of the true labels (Natarajan et al. 2013, Lemma 1;
    for DPO: Chowdhury et al. 2024, arXiv:2403.00409). It falls without bound as u grows, so that a few flipped
    labels can run away with a flexible model: margins are held at ``limit``, beyond which there is no gradient.
    """
    held = margins.clamp(max=limit)
    return ((1 - noise) * logistic_loss(held) - noise * logistic_loss(-held)) / (1 - 2 * noise)


def score_targets(gaps: Tensor, *, scale: float) -> Tensor:
    """Target probabilities sigma(scale * gap), (N,), from gaps between two scores: ratings, votes, rewards."""
    return (scale * gaps).sigmoid()


# ---------------------------------------------------------------------------------------- listwise


def plackett_luce(scores: Tensor, ranking: Tensor) -> Tensor:
    """Log-likelihood of a ranking of K completions under Plackett-Luce (Plackett 1975), a scalar.

    ``scores`` (K,) are the model's; ``ranking`` (K,) is larger for the better. The best is drawn first, with
    probability exp(s) / sum exp(s), then the next best of the rest. Where completions tie, the log-likelihood is
    averaged over all orders of them, so that a tie of two is ``-logistic_loss(u, 0.5)``. Equal scores give -log K!.
    Raises ``ValueError`` when more than ``MAX_TIED`` share a rank.
    """
    total, rest = scores.new_zeros(()), None
    for rank in sorted(set(ranking.tolist())):
        tied = scores[ranking == rank]
        if len(tied) > MAX_TIED:
            raise ValueError(f"{len(tied)} completions share a rank; at most {MAX_TIED} may")
        total = total + tied.sum()
        for left in range(1, len(tied) + 1):
            # When `left` of the tied ones are still to be drawn, they are any subset of that size, equally likely.
            subsets = chain.from_iterable(combinations(range(len(tied)), left))
            sums = tied[list(subsets)].view(-1, left).logsumexp(1)
            total = total - (sums if rest is None else sums.logaddexp(rest)).mean()
        among = tied.logsumexp(0)
        rest = among if rest is None else among.logaddexp(rest)
    return total


# ----------------------------------------------------------------------------------- a reward model's


def squared_error(rewards: Tensor, scores: Tensor) -> Tensor:
    """(r - score)^2, (K,): pointwise regression on ratings."""
    return (rewards - scores) ** 2


def centring(rewards: Tensor) -> Tensor:
    """(2 * mean r)^2 of one prompt's rewards (K,), a scalar: 0 where they balance.

    For a pair it is (r_a + r_b)^2, which fixes the constant that differences leave free (Eisenstein et al. 2023,
    arXiv:2312.09244); the mean carries it over to K completions.
    """
    return (2 * rewards.mean()) ** 2


def reward_model_loss(rewards: Tensor, scores: Tensor, settings: RewardModelSettings) -> Tensor:
    """The loss of one prompt's completions, a scalar: the mean over its pairs, or the list's.

    ``rewards`` (K,) are the model's, ``scores`` (K,) the annotator's. Taking all pairs of a prompt as one item
    keeps a prompt with many from being learned by heart (arXiv:2203.02155, §3.5). Pairs that tie count for soft
    labels, with target 0.5; the other pairwise losses say nothing about them.
    """
    extra = settings.centring * centring(rewards) if settings.centring else 0.0
    if settings.loss == "pointwise":
        return squared_error(rewards, scores).mean() + extra
    if settings.loss == "plackett-luce":
        return -plackett_luce(rewards, scores) + extra
    first, second = rewards.new_ones(len(rewards), len(rewards)).triu(1).nonzero(as_tuple=True)
    margins, gaps = rewards[first] - rewards[second], scores[first] - scores[second]
    if settings.loss == "soft":
        return logistic_loss(margins, score_targets(gaps, scale=settings.score_scale)).mean() + extra
    differ = gaps != 0
    margins, gaps = (margins * gaps.sign())[differ], gaps[differ].abs()
    if settings.loss == "hinge":
        losses = hinge_loss(margins, settings.margin)
    elif settings.loss == "noise-corrected":
        losses = noise_corrected_loss(margins, settings.noise)
    elif settings.loss == "label-smoothed":
        losses = logistic_loss(margins, 1 - settings.noise)
    elif settings.loss == "bradley-terry-margin":
        losses = logistic_loss(margins - settings.margin * gaps)
    else:
        losses = logistic_loss(margins)
    return losses.mean() + extra
