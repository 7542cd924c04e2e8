"""Losses of preferences, worked by hand, checked against their gradients, and equal where theory says they are."""

import math
from itertools import permutations

import pytest
import torch
from torch.testing import assert_close

from bakeoff.preference_losses import (
    centring,
    hinge_loss,
    logistic_loss,
    noise_corrected_loss,
    plackett_luce,
    reward_model_loss,
    score_targets,
    squared_error,
)
from bakeoff.spec import RewardModelSettings

LOSSES = RewardModelSettings.model_fields["loss"].annotation.__args__


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------------------------------- pairwise


@pytest.mark.parametrize("target", [0.0, 0.3, 0.5, 1.0])
def test_an_indifferent_model_pays_log_two(target):
    """At margin 0 both sides have probability one half, whatever the target is."""
    assert_close(logistic_loss(tensor(0.0, 0.0), target), tensor(math.log(2), math.log(2)))


def test_logistic_loss_by_hand():
    """At margin log 3 the model says 3/4: -log 3/4 for a right label, -log 1/4 for a wrong one, their mix for 0.9."""
    margins = tensor(math.log(3))
    assert_close(logistic_loss(margins), tensor(math.log(4 / 3)))
    assert_close(logistic_loss(margins, 0.0), tensor(math.log(4)))
    assert_close(logistic_loss(margins, 0.9), tensor(0.9 * math.log(4 / 3) + 0.1 * math.log(4)))
    assert_close(logistic_loss(margins, tensor(0.9)), logistic_loss(margins, 0.9))


def test_logistic_loss_is_finite_far_out():
    """Margins of a thousand neither overflow nor lose their gradient: 1000 for the wrong side, 0 for the right one."""
    margins = torch.tensor([1000.0, -1000.0], requires_grad=True)
    losses = logistic_loss(margins)
    losses.sum().backward()
    assert losses.tolist() == [0.0, 1000.0]
    assert margins.grad.tolist() == [0.0, -1.0]


def test_the_minimum_is_where_the_model_agrees_with_the_target():
    """The derivative is sigma(u) - p, so that it vanishes at log-odds p and pushes an overshoot back."""
    margins = tensor(math.log(0.6 / 0.4), 1.0).requires_grad_()
    logistic_loss(margins, 0.6).sum().backward()
    assert_close(margins.grad, tensor(0.0, 1 / (1 + math.exp(-1)) - 0.6))


def test_hinge_by_hand():
    """Pairs that are apart by the margin pay nothing; the others what is missing."""
    assert hinge_loss(tensor(2.0, 1.0, 0.25, -1.0), 1.0).tolist() == [0.0, 0.0, 0.75, 2.0]


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.4])
def test_noise_correction_is_unbiased(noise):
    """Over labels flipped at the assumed rate, its mean is the loss of the true labels."""
    margins = draws(50)
    right, flipped = noise_corrected_loss(margins, noise), noise_corrected_loss(-margins, noise)
    assert_close((1 - noise) * right + noise * flipped, logistic_loss(margins))


def test_noise_correction_stops_at_its_limit():
    """It would fall for ever; beyond the limit there is no gradient, below there is."""
    margins = tensor(9.0, 11.0).requires_grad_()
    noise_corrected_loss(margins, 0.2, limit=10.0).sum().backward()
    assert margins.grad[0] < 0
    assert margins.grad[1] == 0


def test_targets_of_scores():
    """Equal scores are a coin; a gap of log 3 is three to one; the scale multiplies the gap."""
    assert_close(score_targets(tensor(0.0, math.log(3)), scale=1.0), tensor(0.5, 0.75))
    assert_close(score_targets(tensor(math.log(3) / 2), scale=2.0), tensor(0.75))


# ---------------------------------------------------------------------------------------- listwise


def test_plackett_luce_by_hand():
    """Scores log 3, log 2, log 1 in this order: 3/6, then 2/3, then the last alone."""
    scores = tensor(3.0, 2.0, 1.0).log()
    assert_close(plackett_luce(scores, tensor(30.0, 20.0, 10.0)), tensor(math.log(3 / 6 * 2 / 3))[0])
    assert_close(plackett_luce(scores, tensor(1.0, 2.0, 3.0)), tensor(math.log(1 / 6 * 2 / 5))[0])


@pytest.mark.parametrize("count", [2, 4, 6])
def test_equal_scores_know_no_order(count):
    """All K! orders are equally likely, with ties as without."""
    zeros = torch.zeros(count, dtype=torch.float64)
    expected = torch.tensor(-math.log(math.factorial(count)), dtype=torch.float64)
    assert_close(plackett_luce(zeros, torch.arange(count)), expected)
    assert_close(plackett_luce(zeros, zeros), expected)


def test_probabilities_of_all_orders_sum_to_one():
    """It is a distribution over rankings."""
    scores = draws(4)
    orders = [plackett_luce(scores, torch.tensor(order)) for order in permutations(range(4))]
    assert_close(torch.stack(orders).exp().sum(), torch.ones((), dtype=torch.float64))


def test_two_completions_are_a_pair():
    """K = 2 is Bradley-Terry; a tie of two is a pair with target one half."""
    scores = draws(2)
    margin = scores[:1] - scores[1:]
    assert_close(-plackett_luce(scores, tensor(1.0, 0.0)), logistic_loss(margin)[0])
    assert_close(-plackett_luce(scores, tensor(1.0, 1.0)), logistic_loss(margin, 0.5)[0])


def test_ties_are_averaged_over_their_orders():
    """Three tied between a best and a worst: the mean over the six orders that break the tie."""
    scores = draws(5)
    orders = [plackett_luce(scores, torch.tensor([9.0, a, b, c, 0.0])) for a, b, c in permutations((1.0, 2.0, 3.0))]
    assert_close(plackett_luce(scores, tensor(9.0, 5.0, 5.0, 5.0, 0.0)), torch.stack(orders).mean())


def test_too_many_ties_are_refused():
    """Eleven of one rank would need two thousand subsets."""
    with pytest.raises(ValueError, match="11 completions share a rank"):
        plackett_luce(torch.zeros(11), torch.zeros(11))


# ----------------------------------------------------------------------------------- a reward model's


def test_centring_balances_a_prompts_rewards():
    """(r_a + r_b)^2 for a pair; 0 where they balance; the constant that differences leave free pays."""
    assert centring(tensor(3.0, 1.0)) == 16.0
    assert centring(tensor(2.0, -2.0)) == 0.0
    assert centring(tensor(1.0, 1.0, 1.0)) == 4.0


def settings(loss, **more):
    return RewardModelSettings(loss=loss, **more)


def test_losses_of_a_pair_by_hand():
    """Rewards 2 and 1, scores 1 and 0: the margin is 1 and each loss what its formula says."""
    rewards, scores = tensor(2.0, 1.0), tensor(1.0, 0.0)
    one = math.log1p(math.exp(-1))
    expected = {
        "bradley-terry": one,
        "bradley-terry-margin": math.log(2),
        "hinge": 0.0,
        "label-smoothed": 0.9 * one + 0.1 * (one + 1),
        "noise-corrected": (0.9 * one - 0.1 * (one + 1)) / 0.8,
        "soft": one + (1 - 1 / (1 + math.exp(-1))),
        "plackett-luce": one,
        "pointwise": 1.0,
    }
    assert set(expected) == set(LOSSES)
    for loss, value in expected.items():
        assert reward_model_loss(rewards, scores, settings(loss)).item() == pytest.approx(value), loss
        centred = reward_model_loss(rewards, scores, settings(loss, centring=0.5))
        assert centred.item() == pytest.approx(value + 0.5 * 9), loss


def test_all_pairs_of_a_prompt_are_one_item():
    """Three completions make three pairs, whose mean it is; a pair that ties says nothing, or one half if soft."""
    rewards = tensor(2.0, 1.0, 4.0)
    mean = logistic_loss(tensor(1.0, -2.0, -3.0)).mean()
    assert_close(reward_model_loss(rewards, tensor(3.0, 2.0, 1.0), settings("bradley-terry")), mean)
    tied = logistic_loss(tensor(-2.0, -3.0)).mean()
    assert_close(reward_model_loss(rewards, tensor(2.0, 2.0, 1.0), settings("bradley-terry")), tied)
    soft = logistic_loss(tensor(1.0, -2.0, -3.0), tensor(0.5, *[1 / (1 + math.exp(-1))] * 2)).mean()
    assert_close(reward_model_loss(rewards, tensor(2.0, 2.0, 1.0), settings("soft")), soft)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_do_not_depend_on_the_order_of_completions(loss):
    """A prompt's completions have no order but that of their scores."""
    rewards, scores, order = draws(4), tensor(3.0, 1.0, 2.0, 1.0), [2, 0, 3, 1]
    chosen = settings(loss, centring=0.1)
    assert_close(reward_model_loss(rewards, scores, chosen), reward_model_loss(rewards[order], scores[order], chosen))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients(loss):
    """Each loss's gradient is the one that finite differences give, ties included."""
    rewards = draws(5, seed=3).requires_grad_()
    scores = tensor(2.0, 0.0, 1.0, 1.0, -1.0)
    chosen = settings(loss, centring=0.2)
    assert torch.autograd.gradcheck(lambda r: reward_model_loss(r, scores, chosen), (rewards,))


def test_squared_error():
    """(3 - 1)^2 and 0."""
    assert squared_error(tensor(3.0, 2.0), tensor(1.0, 2.0)).tolist() == [4.0, 0.0]
