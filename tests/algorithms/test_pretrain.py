"""Continued pre-training on the toy."""

import pytest
import torch
from datasets import Dataset

from bakeoff import registry


def make(**settings):
    pretrain = registry.load("algorithm", "pretrain")
    return pretrain(pretrain.Settings(**settings))


def test_the_first_loss_is_that_of_the_blocks(make_roles, make_context):
    """Mean over every token but a block's first; an EOS within a block counts, though it is the pad token too."""
    context = make_context(make_roles(noise=0.05))
    tokens = [token for row in context.text for token in row["input_ids"]]
    blocks = torch.tensor([tokens[start : start + 32] for start in range(0, len(tokens) - 31, 32)])
    assert (blocks == 0).any()
    with torch.no_grad():
        logps = context.policy(input_ids=blocks).logits[:, :-1].log_softmax(-1)
    expected = -logps.gather(2, blocks[:, 1:, None]).mean().item()
    make(batch=8).train(context)
    assert context.lines[0]["loss"] == pytest.approx(expected, abs=1e-5)


def test_it_learns_the_text(make_roles, make_context, learn):
    """Fifteen steps on nothing but "e": samples are mostly "e" afterwards."""
    context = make_context(make_roles(r=8), budget={"steps": 15})
    ids = [*context.tokenizer("e" * 31)["input_ids"], 0]
    context.text = Dataset.from_list([{"id": str(number), "input_ids": ids} for number in range(8)])
    before, after = learn("pretrain", {"learning_rate": 1e-2, "batch": 8}, context=context)
    assert before < 0.35
    assert after > 0.8
