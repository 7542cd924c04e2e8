"""TRL's GRPO on the toy, and ours against it."""

import pytest
import torch

from bakeoff import registry

SETTINGS = {"learning_rate": 1e-2, "prompts_per_rollout": 8, "group": 8, "beta": 0.0}


@pytest.mark.parametrize("seed", [0, 1])
def test_it_raises_its_reward(seed, learn):
    """Fifteen steps: the share of "e" more than doubles."""
    before, after = learn("trl-grpo", SETTINGS, seed=seed)
    assert before < 0.35
    assert after > 0.6


def test_the_reward_sees_the_rows_columns(make_roles, make_context):
    """A reward finds its row by ``id``, as under our trainer."""
    seen = []

    def reward(prompts, completions, id, **columns):
        seen.append((list(prompts), list(id)))
        return [0.0 for _ in completions]

    context = make_context(make_roles(), reward=reward)
    trl_grpo = registry.load("algorithm", "trl-grpo")
    trl_grpo(trl_grpo.Settings(prompts_per_rollout=2, group=4)).train(context)
    prompts, ids = seen[0]
    assert [context.prompts[int(name)]["prompt"] for name in ids] == prompts
    assert len(set(ids)) == 2


def test_our_grpo_makes_the_same_gradient(trl_and_ours):
    """One step of TRL's trainer and of ours on the same completions, rewards and weights: equal gradients."""
    theirs, ours = trl_and_ours("trl-grpo", "grpo", {"prompts_per_rollout": 4, "group": 4, "beta": 0.1})
    assert any(gradient.abs().max() > 1e-3 for gradient in theirs)
    for a, b in zip(theirs, ours, strict=True):
        assert torch.allclose(a, b, atol=1e-5, rtol=1e-3)
