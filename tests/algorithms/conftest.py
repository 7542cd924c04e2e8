"""A run of one algorithm on the toy, and what it learned."""

import pytest
import torch

from bakeoff import registry
from bakeoff.on_policy_trainer import OnPolicyTrainer
from bakeoff.rollout import Completions, sample, uniforms


@pytest.fixture
def learn(make_roles, make_context):
    """``learn("grpo", {settings}, steps=15, seed=0)``: mean share of "e" of 64 samples, before and after training."""

    def run(name, settings, *, steps=15, seed=0, context=None):
        context = context or make_context(make_roles(r=8), budget={"steps": steps}, seed=seed)
        plugin = registry.load("algorithm", name)
        before = measure(context)
        plugin(plugin.Settings(**settings)).train(context)
        return before, measure(context)

    def measure(context):
        prompts = list(context.prompts["prompt_ids"]) * 8
        draws = uniforms(123, len(prompts), context.max_new_tokens)
        with torch.no_grad(), context.meter.off():
            ids = sample(context.roles, prompts, draws, eos=[0], pad=0).ids
        texts = context.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return sum(context.reward(prompts, texts)) / len(texts)

    return run


@pytest.fixture
def trl_and_ours(make_roles, make_context, monkeypatch):
    """``trl_and_ours("trl-grpo", "grpo", {settings})``: the policy's gradients of one step of TRL's trainer, and of
    ours on the completions that TRL's sampled, with the same weights and rewards. ``apart`` moves the reference away
    from the policy, so that there is a KL."""

    def move(roles, adapter, apart):
        generator = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for name, weight in roles.model.named_parameters():
                if f".{adapter}." in name:
                    weight.add_(apart * torch.randn(weight.shape, generator=generator))

    def run(theirs_name, ours_name, settings, *, apart=0.0):
        settings = {"learning_rate": 1e-4, **settings}
        seen, theirs = {}, []

        def reward(prompts, completions, completion_ids, **columns):
            scores = [len(ids) + 0.1 * ids[0] for ids in completion_ids]
            seen.update(prompts=list(prompts), ids=[list(ids) for ids in completion_ids])
            return scores

        def keep_gradients(args, state, control, **kwargs):
            theirs.extend(p.grad.clone() for p in context.roles.parameters("policy"))

        context = make_context(make_roles(noise=0.05), reward=reward)

        def begin(args, state, control, **kwargs):
            prepare(args, state, control, **kwargs)
            if apart:
                move(context.roles, "ref", apart)

        prepare, context.callbacks[0].on_train_begin = context.callbacks[0].on_train_begin, begin
        context.callbacks[0].on_pre_optimizer_step = keep_gradients
        plugin = registry.load("algorithm", theirs_name)
        plugin(plugin.Settings(**settings)).train(context)

        context = make_context(make_roles(noise=0.05), reward=reward)
        context.roles.add("reference", copy_of="policy")
        move(context.roles, "reference", apart)
        plugin = registry.load("algorithm", ours_name)
        trainer = OnPolicyTrainer(plugin(plugin.Settings(**settings)), context)
        encode, group = context.tokenizer, settings["group"]
        trainer.next_prompts = lambda: [
            {"id": "0", "prompt": prompt, "prompt_ids": encode(prompt)["input_ids"]}
            for prompt in seen["prompts"][::group]
        ]
        sampled = Completions(seen["ids"], [ids[-1] == 0 for ids in seen["ids"]])
        monkeypatch.setattr("bakeoff.on_policy_trainer.sample", lambda *args, **kwargs: sampled)
        trainer.create_optimizer()
        trainer.training_step(context.policy, None)
        return theirs, [p.grad for p in context.roles.parameters("policy")]

    return run
