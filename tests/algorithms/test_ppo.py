"""PPO on the toy."""

import pytest
import torch
from torch.testing import assert_close

from bakeoff import registry
from bakeoff.on_policy import Rollout
from bakeoff.rollout import Sequences

SETTINGS = {"learning_rate": 5e-3, "prompts_per_rollout": 64, "epochs": 2, "beta": 0.0}


@pytest.mark.parametrize("seed", [0, 1])
def test_it_raises_its_reward(seed, learn):
    """Twenty updates on ten rollouts: the share of "e" nearly doubles."""
    before, after = learn("ppo", SETTINGS, seed=seed, steps=20)
    assert before < 0.35
    assert after > 0.5


def make(**settings):
    ppo = registry.load("algorithm", "ppo")
    return ppo(ppo.Settings(**settings))


def rollout(rewards=(1.0, 2.0), *, kl=0.0):
    packed = Sequences.pack([[3], [3]], [[4, 5, 0], [6, 7]], pad=0, device="cpu")
    mask = packed.completion_mask.float()
    return Rollout(
        packed, torch.tensor(rewards), torch.tensor([True, False]),
        old_logps=mask * kl, reference_logps=mask * 0, values=mask * 0.5,
    )  # fmt: skip


def test_advantages_by_hand():
    """lambda 1, gamma 1: score less what KL is still to be paid, less the value."""
    advantages = make(gae_lambda=1.0, beta=0.1, whiten="none").advantages(rollout(kl=0.2))
    assert_close(advantages[0], 1.0 - 0.02 * torch.tensor([3.0, 2.0, 1.0]) - 0.5)
    assert_close(advantages[1], torch.tensor([2.0 - 0.04 - 0.5, 2.0 - 0.02 - 0.5, 0.0]))


def test_returns_are_what_the_value_is_fitted_to():
    """Advantage plus value, before whitening."""
    plain, whitened = rollout(), rollout()
    advantages = make(whiten="none").advantages(plain)
    scaled = make().advantages(whitened)
    assert_close(plain.returns, advantages + plain.values)
    assert_close(whitened.returns, plain.returns)
    assert_close(scaled.sum(), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_a_completion_without_an_end_pays():
    """The penalty is off by default, and taken from the score when set."""
    free, fined = rollout(), rollout()
    make(gae_lambda=1.0, whiten="none").advantages(free)
    make(gae_lambda=1.0, whiten="none", no_eos_penalty=1.5).advantages(fined)
    assert_close(free.returns - fined.returns, torch.tensor([[0.0, 0.0, 0.0], [1.5, 1.5, 0.0]]))


def test_an_adaptive_beta_follows_the_kl_of_a_sequence():
    """Sum over tokens, mean over sequences: 2.5 tokens of 0.4 nats are 1 nat, twice the target; a restart keeps it."""
    algorithm = make(beta=0.1, kl_target=0.5, kl_horizon=2)
    algorithm.advantages(rollout(kl=0.4))
    assert algorithm.controller.beta == pytest.approx(0.12)
    other = make(beta=0.1, kl_target=0.5, kl_horizon=2)
    other.restore(algorithm.state())
    assert other.controller.beta == algorithm.controller.beta
    fixed = make(beta=0.1)
    fixed.advantages(rollout(kl=0.4))
    assert fixed.controller.beta == 0.1


def test_the_value_learns_three_times_as_fast():
    """Unless told otherwise."""
    assert make(learning_rate=1e-4).value_learning_rate() == pytest.approx(3e-4)
    assert make(learning_rate=1e-4, value_learning_rate=1e-5).value_learning_rate() == 1e-5


def test_an_adaptive_beta_needs_a_start():
    """The controller multiplies: from 0 it would never move."""
    with pytest.raises(ValueError, match="give beta a value"):
        make(beta=0.0, kl_target=6.0)
