"""A run of one algorithm on the toy, and what it learned."""

import pytest
import torch

from bakeoff import registry
from bakeoff.rollout import sample, uniforms


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
