"""The mathematics of on-policy algorithms, against sums done by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from bakeoff.objectives import (
    AdaptiveKL,
    clipped_policy_loss,
    clipped_value_loss,
    gae,
    group_advantages,
    is_clipped,
    kl_k1,
    kl_k2,
    kl_k3,
    leave_one_out_advantages,
    masked_mean,
    masked_whiten,
    ratio,
    rewards_to_go,
    sequence_mean,
    sequence_ratio,
    shape_rewards,
    weighted_likelihood_loss,
)

CLIP = {"clip_low": 0.2, "clip_high": 0.2}


def rows(*values):
    return torch.tensor(values)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LENGTHS = rows([1.0, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0])


def test_gae_by_hand():
    """Length 3, gamma 1, lambda 0.95: A3 = 1 - 0.5, A2 = (0.5 - 0.4) + 0.95 A3, A1 = (0.4 - 0.2) + 0.95 A2."""
    advantages = gae(rows([0.0, 0, 1]), rows([0.2, 0.4, 0.5]), rows([1.0, 1, 1]), gamma=1.0, gae_lambda=0.95)
    assert_close(advantages, rows([0.2 + 0.95 * (0.1 + 0.95 * 0.5), 0.1 + 0.95 * 0.5, 0.5]), atol=1e-6, rtol=0)


def test_gae_lambda_one_is_return_minus_value():
    """The discounted sum of all later rewards, less the value."""
    rewards, values = random(3, 5) * LENGTHS, random(3, 5, seed=1) * LENGTHS
    expected = torch.zeros(3, 5)
    for t in range(5):
        expected[:, t] = sum(0.9 ** (u - t) * rewards[:, u] for u in range(t, 5)) - values[:, t]
    assert_close(gae(rewards, values, LENGTHS, gamma=0.9, gae_lambda=1.0), expected * LENGTHS)


def test_gae_lambda_zero_is_the_td_error():
    """r + gamma V(next) - V, where the value after the last token is 0."""
    rewards, values = random(3, 5) * LENGTHS, random(3, 5, seed=1) * LENGTHS
    following = torch.cat([values[:, 1:], torch.zeros(3, 1)], 1)
    expected = (rewards + 0.9 * following - values) * LENGTHS
    assert_close(gae(rewards, values, LENGTHS, gamma=0.9, gae_lambda=0.0), expected)


def test_nothing_after_the_last_token_counts():
    """Garbage behind the mask changes no advantage, exactly."""
    rewards, values = random(3, 5), random(3, 5, seed=1)
    garbage = random(3, 5, seed=2) * 1e6 * (1 - LENGTHS)
    clean = gae(rewards * LENGTHS, values * LENGTHS, LENGTHS, gamma=1.0, gae_lambda=0.95)
    dirty = gae(rewards * LENGTHS + garbage, values * LENGTHS + garbage, LENGTHS, gamma=1.0, gae_lambda=0.95)
    assert torch.equal(clean, dirty)


def test_shaped_rewards_sum_to_the_score_less_the_kl():
    """The score stands on the last token of each row; the penalty on every token."""
    scores, kl = rows(1.0, -2.0, 3.0), random(3, 5)
    shaped = shape_rewards(scores, kl, LENGTHS, beta=0.1)
    assert_close(shaped.sum(1), scores - 0.1 * (kl * LENGTHS).sum(1), atol=1e-6, rtol=0)
    assert_close(shape_rewards(scores, kl * 0, LENGTHS, beta=0.1)[1], rows(0.0, 0.0, -2.0, 0.0, 0.0))


def test_a_row_without_tokens_gets_no_reward():
    """Its score has no token to stand on."""
    assert torch.equal(shape_rewards(rows(5.0), torch.zeros(1, 3), torch.zeros(1, 3), beta=0.1), torch.zeros(1, 3))


def test_kl_estimators_on_an_enumerated_vocabulary():
    """Over all tokens, weighted by the policy: E[k1] = E[k3] = KL; k2 and k3 are never negative, k1 can be."""
    p, q = torch.softmax(random(7, seed=3).double(), 0), torch.softmax(random(7, seed=4).double(), 0)
    exact = (p * (p / q).log()).sum()
    logps, reference = p.log(), q.log()
    assert_close((p * kl_k1(logps, reference)).sum(), exact, atol=1e-12, rtol=0)
    assert_close((p * kl_k3(logps, reference)).sum(), exact, atol=1e-12, rtol=0)
    assert (kl_k1(logps, reference) < 0).any()
    assert (kl_k2(logps, reference) >= 0).all()
    assert (kl_k3(logps, reference) >= 0).all()


def test_k2_in_the_loss_has_the_gradient_of_k1_in_the_reward():
    """grad E[k1] = E[k1 grad log p] = E[grad k2]; k3's differs: it is the reversed KL's."""
    logits = random(7, seed=3).double().requires_grad_()
    reference = torch.log_softmax(random(7, seed=4).double(), 0)
    logps = torch.log_softmax(logits, 0)
    weights = logps.detach().exp()
    (exact,) = torch.autograd.grad((logps.exp() * kl_k1(logps, reference)).sum(), logits, retain_graph=True)
    (of_k2,) = torch.autograd.grad((weights * kl_k2(logps, reference)).sum(), logits, retain_graph=True)
    (of_k3,) = torch.autograd.grad((weights * kl_k3(logps, reference)).sum(), logits)
    assert_close(of_k2, exact)
    assert not torch.allclose(of_k3, exact, atol=1e-3)


def test_group_advantages_by_hand():
    """Mean 2 and unbiased standard deviation 1 in the first group; a group of equal rewards gets zeros."""
    rewards = rows(1.0, 2.0, 3.0, 5.0, 5.0, 5.0)
    assert_close(group_advantages(rewards, 3, eps=0.0)[:3], rows(-1.0, 0.0, 1.0))
    assert_close(group_advantages(rewards, 3), rows(-1.0, 0.0, 1.0, 0.0, 0.0, 0.0), atol=2e-4, rtol=0)
    assert torch.equal(group_advantages(rewards * 10, 3, scale="none"), rows(-10.0, 0, 10, 0, 0, 0))


def test_group_advantages_over_the_batch_deviation():
    """Centred by group, scaled by one number for all: a group with little spread stays small."""
    rewards = rows(1.0, 3.0, 2.0, 2.0)
    scaled = group_advantages(rewards, 2, scale="batch", eps=0.0)
    assert_close(scaled, rows(-1.0, 1.0, 0.0, 0.0) / rewards.std())


def test_leave_one_out_by_hand():
    """1 less the mean of 2 and 6 is -3."""
    assert_close(leave_one_out_advantages(rows(1.0, 2.0, 6.0), 3), rows(-3.0, -1.5, 4.5))


def test_rewards_to_go_by_hand():
    """What is still to come, this token's included; nothing after the end."""
    assert_close(rewards_to_go(rows([1.0, 2.0, 4.0]), rows([1.0, 1.0, 0.0])), rows([3.0, 2.0, 0.0]))


def test_ratios_of_whole_completions():
    """The product of the tokens' ratios, and its geometric mean; padding does not count."""
    logps, old, mask = rows([0.2, 0.4, 9.0]), torch.zeros(1, 3), rows([1.0, 1.0, 0.0])
    assert_close(sequence_ratio(logps, old, mask, per_token=False), rows(math.exp(0.6)))
    assert_close(sequence_ratio(logps, old, mask, per_token=True), rows(math.exp(0.3)))
    assert_close(sequence_mean(logps, mask), rows(0.3))


def test_a_clipped_weight_keeps_the_gradient():
    """CISPO: the ratio of e is held at 2, and the token's gradient is -2 A and not zero."""
    logps = rows([1.0]).requires_grad_()
    weight = ratio(logps, torch.zeros(1, 1))
    weighted_likelihood_loss(logps, weight, rows([3.0]), clip_low=1.0, clip_high=1.0).sum().backward()
    assert_close(logps.grad, rows([-6.0]))


def test_masked_mean_of_nothing_is_zero():
    """A step without a token has a loss of 0 and not NaN."""
    assert masked_mean(rows(1.0, 2.0), rows(0.0, 0.0)) == 0
    assert masked_mean(rows(1.0, 3.0, 9.0), rows(1.0, 1.0, 0.0)) == 2


def test_whitening():
    """Over what counts: mean 0 and unbiased variance 1; without the shift the mean stays."""
    values = random(3, 5) * 3 + 2
    for shift_mean in (True, False):
        whitened = masked_whiten(values, LENGTHS, shift_mean=shift_mean)
        counted = whitened[LENGTHS.bool()]
        mean = torch.tensor(0.0) if shift_mean else values[LENGTHS.bool()].mean()
        assert_close(counted.mean(), mean, atol=1e-6, rtol=1e-5)
        assert_close(counted.var(), torch.tensor(1.0), atol=1e-5, rtol=0)
        assert (whitened[~LENGTHS.bool()] == 0).all()
    garbage = values + 1e6 * (1 - LENGTHS)
    assert torch.equal(masked_whiten(values * LENGTHS, LENGTHS), masked_whiten(garbage * LENGTHS, LENGTHS))


@pytest.mark.parametrize(
    ("advantage", "probability_ratio", "flows"),
    [(1, 1.3, False), (1, 0.7, True), (1, 1.1, True), (-1, 0.7, False), (-1, 1.3, True), (-1, 0.9, True)],
)
def test_the_clip_removes_the_gradient_where_it_would_move_further(advantage, probability_ratio, flows):
    """Zero gradient where A > 0 and r > 1.2, and where A < 0 and r < 0.8; not zero elsewhere."""
    logps = rows([math.log(probability_ratio)]).requires_grad_()
    loss = clipped_policy_loss(ratio(logps, torch.zeros(1, 1)), rows([float(advantage)]), **CLIP)
    loss.sum().backward()
    assert (logps.grad != 0).item() is flows
    assert is_clipped(ratio(logps.detach(), torch.zeros(1, 1)), rows([float(advantage)]), **CLIP) == (not flows)


def test_clips_apart():
    """clip_high alone moves the upper border (DAPO's clip-higher)."""
    logps = rows([math.log(1.25)]).requires_grad_()
    clipped_policy_loss(ratio(logps, torch.zeros(1, 1)), rows([1.0]), clip_low=0.2, clip_high=0.3).sum().backward()
    assert_close(logps.grad, rows([-1.25]))


def test_the_ratio_cannot_overflow():
    """exp(100) would be infinite in fp32; the log-ratio stops at 20."""
    assert_close(ratio(rows([100.0, -100.0]), torch.zeros(1, 2)), rows([math.exp(20), math.exp(-20)]))


def test_the_value_loss_is_never_below_the_unclipped_one():
    """The larger of both; equal to it where the value moved less than the clip."""
    values, old, returns = random(50), random(50, seed=1), random(50, seed=2)
    loss, plain = clipped_value_loss(values, old, returns, clip=0.2), 0.5 * (values - returns) ** 2
    assert (loss >= plain).all()
    assert (loss > plain).any()
    near = (values - old).abs() <= 0.2
    assert torch.equal(loss[near], plain[near])


def test_the_adaptive_controller():
    """Far above or below the target it moves by a fifth over a horizon, on the target not at all."""
    for kl, factor in ((100.0, 1.2), (0.0, 0.8), (6.0, 1.0), (6.6, 1.1)):
        controller = AdaptiveKL(0.1, target=6.0, horizon=64)
        controller.update(kl, sequences=64)
        assert controller.beta == pytest.approx(0.1 * factor)
    controller.update(1e9, sequences=32)
    assert controller.beta == pytest.approx(0.1 * 1.1 * 1.1)
