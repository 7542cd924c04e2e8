"""RLOO on the toy, and against TRL's trainer."""

import pytest
import torch

from bakeoff import registry
from bakeoff.on_policy import Rollout
from bakeoff.rollout import Sequences

SETTINGS = {"learning_rate": 1e-2, "prompts_per_rollout": 8, "group": 8, "beta": 0.0}


@pytest.mark.parametrize("name", ["rloo", "trl-rloo"])
def test_it_raises_its_reward(name, learn):
    """Fifteen steps: the share of "e" nearly doubles."""
    before, after = learn(name, SETTINGS)
    assert before < 0.35
    assert after > 0.55


def test_the_kl_is_paid_in_the_reward():
    """Rewards 1 and 3 less 0.1 of 2 and 1 nats: 0.8 and 2.9, each less the other."""
    rloo = registry.load("algorithm", "rloo")
    packed = Sequences.pack([[3], [3]], [[4, 5], [6]], pad=0, device="cpu")
    mask = packed.completion_mask.float()
    rollout = Rollout(
        packed, torch.tensor([1.0, 3.0]), torch.ones(2).bool(), old_logps=mask * 1.0, reference_logps=mask * 0.0
    )
    advantages = rloo(rloo.Settings(group=2, beta=0.1)).advantages(rollout)
    assert advantages.tolist() == [pytest.approx([-2.1, -2.1]), pytest.approx([2.1, 0.0])]


def test_it_makes_trls_gradient(trl_and_ours):
    """One step of TRL's trainer and of ours on the same completions, rewards and weights: equal gradients."""
    theirs, ours = trl_and_ours("trl-rloo", "rloo", {"prompts_per_rollout": 4, "group": 4, "beta": 0.1})
    assert any(gradient.abs().max() > 1e-3 for gradient in theirs)
    for a, b in zip(theirs, ours, strict=True):
        assert torch.allclose(a, b, atol=1e-5, rtol=1e-3)
