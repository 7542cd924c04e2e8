"""REINFORCE++ on the toy."""

import torch
from torch.testing import assert_close

from bakeoff import registry
from bakeoff.on_policy import Rollout
from bakeoff.rollout import Sequences


def test_it_raises_its_reward(learn):
    """Twenty steps: the share of "e" nearly doubles."""
    before, after = learn("reinforce++", {"learning_rate": 1e-2, "prompts_per_rollout": 64, "beta": 0.0}, steps=20)
    assert before < 0.35
    assert after > 0.5


def rollout(kl):
    packed = Sequences.pack([[3], [3]], [[4, 5, 0], [6, 7]], pad=0, device="cpu")
    mask = packed.completion_mask.float()
    return Rollout(
        packed, torch.tensor([1.0, 2.0]), torch.ones(2).bool(), old_logps=mask * kl, reference_logps=mask * 0.0
    )


def whitened(values, mask):
    kept = values[mask.bool()]
    return (values - kept.mean()) / kept.std() * mask


def test_a_token_is_worth_what_is_still_to_come():
    """Rewards 1 and 2, 0.1 nats a token at beta 0.5: of the first token 0.85 and 1.9, of the last 0.95 and 1.95."""
    made = rollout(kl=0.1)
    plugin = registry.load("algorithm", "reinforce++")
    advantages = plugin(plugin.Settings(beta=0.5)).advantages(made)
    expected = torch.tensor([[0.85, 0.9, 0.95], [1.9, 1.95, 0.0]])
    assert_close(advantages, whitened(expected, made.mask), atol=1e-5, rtol=1e-5)


def test_the_groups_mean_as_baseline():
    """Rewards 1 and 2 become -0.5 and 0.5 before they are whitened."""
    made = rollout(kl=0.0)
    plugin = registry.load("algorithm", "reinforce++")
    advantages = plugin(plugin.Settings(group=2, group_baseline=True)).advantages(made)
    expected = torch.tensor([[-0.5, -0.5, -0.5], [0.5, 0.5, 0.0]])
    assert_close(advantages, whitened(expected, made.mask), atol=1e-5, rtol=1e-5)
