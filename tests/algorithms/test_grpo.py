"""GRPO on the toy."""

import math

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
    plain = grpo(grpo.Settings(group=2, scale_rewards="none")).advantages(rollout)
    assert plain.tolist() == [[-1, -1, -1], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
    scaled = grpo(grpo.Settings(group=2)).advantages(rollout)
    assert scaled[0].tolist() == pytest.approx([-(0.5**0.5)] * 3, abs=1e-3)


def make(preset=None, **settings):
    grpo = registry.load("algorithm", "grpo")
    chosen = dict(grpo.presets[preset].settings) if preset else {}
    return grpo(grpo.Settings(**{**chosen, "group": 2, **settings}))


def loss_of(algorithm, *, logps=0.0, advantage=2.0, reference=0.1, **fields):
    """The loss of two completions, of three tokens and of one; log-probabilities are 0 when the rollout is made."""
    batch = rollout_of([1.0, 3.0])
    batch.advantages = advantage * batch.mask
    batch.reference_logps = torch.full(batch.mask.shape, reference) if algorithm.settings.beta else None
    batch.max_tokens = 5
    for name, value in fields.items():
        setattr(batch, name, value)
    return algorithm.policy_loss(batch, logps * torch.ones(batch.mask.shape)).item()


def test_the_loss_by_hand():
    """At ratio 1: -A, plus beta times k3 of the reference's log-probabilities."""
    k3 = math.exp(0.1) - 0.1 - 1
    assert loss_of(make(beta=0.5)) == pytest.approx(-2.0 + 0.5 * k3)


def test_averages_by_hand():
    """Four tokens in completions of 3 and 1, of loss 1 and 5: over tokens 2, over completions 3, over 2 x 5 0.8."""
    batch = rollout_of([1.0, 3.0])
    batch.advantages = -torch.tensor([[1.0], [5.0]]) * batch.mask
    batch.max_tokens = 5
    zeros = torch.zeros(batch.mask.shape)
    losses = {
        average: make(average=average, beta=0.0).policy_loss(batch, zeros).item()
        for average in ("tokens", "sequences", "length_limit")
    }
    assert losses == pytest.approx({"tokens": 2.0, "sequences": 3.0, "length_limit": 0.8})


def test_dapo_clips_higher_and_leaves_out_what_was_cut_off():
    """A ratio of 1.25 is within 1.28; the completion without an end has no loss, its tokens stay in the mean."""
    assert loss_of(make("dapo"), logps=math.log(1.25)) == pytest.approx(-2.5)
    assert loss_of(make("dapo"), ended_eos=torch.tensor([False, True])) == pytest.approx(-2.0 / 4)


def test_dapo_fines_length_softly():
    """Over the last half of 4 tokens the fine rises to 1: a half for three tokens, none for one."""
    rollout = rollout_of([1.0, 1.0])
    rollout.max_tokens = 4
    advantages = make("dapo", overlong=0.5, scale_rewards="none").advantages(rollout)
    assert advantages[:, 0].tolist() == [-0.25, 0.25]


def test_gspo_clips_whole_completions():
    """A mean log-ratio within 4e-4 is not clipped, one beyond it is; the loss is the mean over completions."""
    assert loss_of(make("gspo"), logps=3e-4) == pytest.approx(-2.0 * math.exp(3e-4))
    assert loss_of(make("gspo"), logps=0.1) == pytest.approx(-2.0 * (1 + 4e-4))


def test_cispo_weighs_and_never_drops():
    """The loss is the weight times the likelihood: ratio 2 at A = 2 and log-probability log 2."""
    assert loss_of(make("cispo"), logps=math.log(2)) == pytest.approx(-2 * 2 * math.log(2))


def test_a_group_of_one_is_refused():
    """It has no one to be relative to."""
    with pytest.raises(ValueError, match="group"):
        registry.load("algorithm", "grpo").Settings(group=1)
