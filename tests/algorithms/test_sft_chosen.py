"""SFT on the chosen side of pairs."""

from dataclasses import replace

import torch
from datasets import Dataset

from bakeoff import registry


def test_it_is_sft_on_prompts_and_chosen(make_roles, make_context):
    """Bit for bit the weights of ``sft`` whose demonstrations are the chosen completions; rejected ones change none."""
    weights = []
    for name in ("sft", "sft-chosen", "sft-chosen"):
        context = make_context(make_roles(), budget={"steps": 2})
        pairs = context.preferences
        if len(weights) == 2:
            pairs = pairs.map(lambda row: {"rejected_ids": [5, 5, 0]})
        rows = [
            {"id": p["id"], "input_ids": p["prompt_ids"] + p["chosen_ids"],
             "labels": [-100] * len(p["prompt_ids"]) + p["chosen_ids"]}
            for p in pairs
        ]  # fmt: skip
        given = {"demonstrations": Dataset.from_list(rows), "preferences": None}
        given = given if name == "sft" else {"demonstrations": None, "preferences": pairs}
        plugin = registry.load("algorithm", name)
        before = [weight.clone() for weight in context.roles.parameters("policy")]
        plugin(plugin.Settings(learning_rate=1e-2, batch=4)).train(replace(context, **given))
        weights.append([weight.detach().clone() for weight in context.roles.parameters("policy")])
        assert any(not torch.equal(a, b) for a, b in zip(before, weights[-1], strict=True))
    for a, b, c in zip(*weights, strict=True):
        assert torch.equal(a, b) and torch.equal(b, c)
