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


def assert_same(theirs, ours):
    assert any(gradient.abs().max() > 1e-3 for gradient in theirs)
    for a, b in zip(theirs, ours, strict=True):
        assert torch.allclose(a, b, atol=1e-5, rtol=1e-3)


SMALL = {"prompts_per_rollout": 4, "group": 4}


def test_our_grpo_makes_the_same_gradient(trl_and_ours):
    """One step of TRL's trainer and of ours on the same completions, rewards and weights: equal gradients."""
    assert_same(*trl_and_ours("trl-grpo", "grpo", SMALL | {"beta": 0.1}))


def test_the_kl_is_not_weighted_by_the_ratio(trl_and_ours):
    """TRL's default is the corrected KL, which has another gradient where policy and reference differ."""
    assert_same(*trl_and_ours("trl-grpo", "grpo", SMALL | {"beta": 2.0}, apart=0.1))


@pytest.mark.parametrize("preset", registry.load("algorithm", "trl-grpo").presets)
def test_a_preset_makes_the_gradient_of_ours(preset, trl_and_ours):
    """The presets that TRL computes are the same data for both."""
    settings = dict(registry.preset("algorithm", "trl-grpo", preset).settings)
    assert_same(*trl_and_ours("trl-grpo", "grpo", settings | SMALL))


@pytest.mark.parametrize(("preset", "bound"), [("cispo", 5.0), ("gspo", 4e-4), ("dr_grpo", 0.2)])
def test_the_upper_bound_is_named_as_trl_has_it(preset, bound, make_roles, make_context):
    """Of a ratio that is clipped TRL is told how far it may go beyond 1; of a weight, the largest there is."""
    context, seen = make_context(make_roles()), []
    begin = context.callbacks[0].on_train_begin

    def note(args, state, control, **kwargs):
        seen.append(args.epsilon_high)
        begin(args, state, control, **kwargs)

    context.callbacks[0].on_train_begin = note
    trl_grpo = registry.load("algorithm", "trl-grpo")
    settings = dict(registry.preset("algorithm", "trl-grpo", preset).settings)
    trl_grpo(trl_grpo.Settings(**settings | SMALL)).train(context)
    assert seen == [bound]


def test_what_trl_does_not_compute_is_refused():
    """A clipped weight has no lower bound in TRL, and no other mean than over tokens."""
    trl_grpo = registry.load("algorithm", "trl-grpo")
    assert trl_grpo.Settings(clip="weight", clip_low=1.0).loss_type == "cispo"
    with pytest.raises(ValueError, match="set clip_low: 1"):
        trl_grpo.Settings(clip="weight")
    with pytest.raises(ValueError, match="averages over tokens"):
        trl_grpo.Settings(clip="weight", clip_low=1.0, average="sequences")
