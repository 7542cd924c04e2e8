"""GRPO on the toy."""

import pytest
import torch

from bakeoff import registry
from bakeoff.on_policy import Rollout
from bakeoff.rollout import Sequences

SETTINGS = {"learning_rate": 1e-2, "prompts_per_rollout": 8, "group": 8, "beta": 0.0}


@pytest.mark.parametrize("seed", [0, 1])
def test_it_raises_its_reward(seed, learn):
    """Fifteen steps: the share of "e" more than doubles."""
    before, after = learn("grpo", SETTINGS, seed=seed)
    assert before < 0.35
    assert after > 0.6


def rollout_of(rewards):
    packed = Sequences.pack([[3]] * len(rewards), [[4, 5, 6], [4]] * (len(rewards) // 2), pad=0, device="cpu")
    zeros = torch.zeros(packed.completion_mask.shape)
    return Rollout(packed, torch.tensor(rewards), torch.ones(len(rewards)).bool(), zeros, zeros)


def test_the_advantage_of_a_completion_is_on_each_of_its_tokens():
    """Relative to its group's mean, over the standard deviation unless that is switched off."""
    grpo = registry.load("algorithm", "grpo")
    rollout = rollout_of([1.0, 3.0, 5.0, 5.0])
    plain = grpo(grpo.Settings(group=2, scale_rewards=False)).advantages(rollout)
    assert plain.tolist() == [[-1, -1, -1], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
    scaled = grpo(grpo.Settings(group=2)).advantages(rollout)
    assert scaled[0].tolist() == pytest.approx([-(0.5**0.5)] * 3, abs=1e-3)


def test_the_loss_by_hand():
    """At ratio 1: -A, plus beta times k3 of the reference's log-probabilities."""
    grpo = registry.load("algorithm", "grpo")
    algorithm = grpo(grpo.Settings(group=2, beta=0.5))
    batch = rollout_of([1.0, 3.0])
    batch.advantages = torch.full(batch.mask.shape, 2.0)
    batch.reference_logps = torch.full(batch.mask.shape, 0.1)
    loss = algorithm.policy_loss(batch, torch.zeros(batch.mask.shape))
    k3 = torch.tensor(0.1).exp() - 0.1 - 1
    assert torch.allclose(loss, torch.full(batch.mask.shape, -2.0) + 0.5 * k3)


def test_a_group_of_one_is_refused():
    """It has no one to be relative to."""
    with pytest.raises(ValueError, match="group"):
        registry.load("algorithm", "grpo").Settings(group=1)
