"""Online DPO on the toy."""

import math

import pytest
import torch
from torch.testing import assert_close

from bakeoff import registry
from bakeoff.on_policy import Rollout
from bakeoff.preference_losses import logistic_loss
from bakeoff.rollout import Sequences


def test_it_raises_its_reward(learn):
    """Twenty steps: the share of "e" nearly doubles."""
    settings = {"learning_rate": 1e-2, "prompts_per_rollout": 16, "group": 4, "beta": 0.05}
    before, after = learn("online-dpo", settings, steps=20)
    assert before < 0.35
    assert after > 0.5


def make(rewards, log_ratios, group):
    packed = Sequences.pack([[3]] * len(rewards), [[4, 5]] * len(rewards), pad=0, device="cpu")
    zeros = torch.zeros(len(rewards), 2)
    rollout = Rollout(packed, torch.tensor(rewards), torch.ones(len(rewards)).bool(), zeros, zeros)
    plugin = registry.load("algorithm", "online-dpo")
    algorithm = plugin(plugin.Settings(group=group, beta=0.5))
    rollout.advantages = algorithm.advantages(rollout)
    logps = (torch.tensor(log_ratios)[:, None] / 2).expand(-1, 2)
    return algorithm.policy_loss(rollout, logps)


def test_the_loss_is_dpos_on_best_and_worst():
    """Of rewards 1, 5, 3 the second is chosen and the first rejected; log-ratios 0.2 and 0.8 are a margin of 0.3."""
    assert_close(make([1.0, 5.0, 3.0], [0.2, 0.8, 7.0], 3), logistic_loss(torch.tensor(0.3)))


def test_equal_rewards_make_no_pair():
    """The other prompt's pair pays log 2, and the mean is over both prompts."""
    assert make([2.0, 2.0, 1.0, 0.0], [0.0] * 4, 2).item() == pytest.approx(math.log(2) / 2)


def test_a_group_is_not_divided():
    """Eight minibatches of four groups would be four."""
    settings = registry.load("algorithm", "online-dpo").Settings
    with pytest.raises(ValueError, match="whole group"):
        settings(prompts_per_rollout=4, group=2, minibatches=8)


@pytest.mark.parametrize("name", ["clip_low", "clip_high"])
def test_a_clip_that_would_do_nothing_is_refused(name):
    """The message says why; the defaults, which come back from a cell's record, are taken."""
    settings = registry.load("algorithm", "online-dpo").Settings
    assert settings(**settings().model_dump())
    with pytest.raises(ValueError, match=f"{name} has no effect"):
        settings(**{name: 0.1})
