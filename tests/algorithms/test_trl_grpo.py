"""TRL's GRPO on the toy, and ours against it."""

import pytest
import torch

from bakeoff import registry
from bakeoff.on_policy_trainer import OnPolicyTrainer
from bakeoff.rollout import Completions

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


def test_our_grpo_makes_the_same_gradient(make_roles, make_context, monkeypatch):
    """One step of TRL's trainer and of ours on the same completions, rewards and weights: equal gradients."""
    settings = {"prompts_per_rollout": 4, "group": 4, "beta": 0.1, "learning_rate": 1e-4}
    seen = {}

    def reward(prompts, completions, completion_ids, **columns):
        scores = [len(ids) + 0.1 * ids[0] for ids in completion_ids]
        seen.update(prompts=list(prompts), ids=[list(ids) for ids in completion_ids], rewards=scores)
        return scores

    context = make_context(make_roles(noise=0.05), reward=reward)
    roles, theirs = context.roles, []

    def keep_gradients(args, state, control, **kwargs):
        theirs.extend(p.grad.clone() for p in roles.parameters("policy"))

    context.callbacks[0].on_pre_optimizer_step = keep_gradients
    plugin = registry.load("algorithm", "trl-grpo")
    plugin(plugin.Settings(**settings)).train(context)

    context = make_context(make_roles(noise=0.05), reward=reward)
    context.roles.add("reference", copy_of="policy")
    grpo = registry.load("algorithm", "grpo")
    trainer = OnPolicyTrainer(grpo(grpo.Settings(**settings)), context)
    encode = context.tokenizer
    trainer.next_prompts = lambda: [
        {"id": "0", "prompt": prompt, "prompt_ids": encode(prompt)["input_ids"]} for prompt in seen["prompts"][::4]
    ]
    sampled = Completions(seen["ids"], [ids[-1] == 0 for ids in seen["ids"]])
    monkeypatch.setattr("bakeoff.on_policy_trainer.sample", lambda *args, **kwargs: sampled)
    trainer.create_optimizer()
    trainer.training_step(context.policy, None)
    for a, b in zip(theirs, context.roles.parameters("policy"), strict=True):
        assert torch.allclose(a, b.grad, atol=1e-5, rtol=1e-3)
    assert any(gradient.abs().max() > 1e-3 for gradient in theirs)
