"""SFT on the toy."""

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset

from bakeoff import registry


def demonstrations(context, reply):
    """Each prompt with the same reply and EOS."""
    ids = [*context.tokenizer(reply)["input_ids"], 0]
    return Dataset.from_list(
        [
            {"id": row["id"], "input_ids": row["prompt_ids"] + ids, "labels": [-100] * len(row["prompt_ids"]) + ids}
            for row in context.prompts
        ]
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_the_demonstrations(seed, make_roles, make_context, learn):
    """Fifteen steps on "eeeee": from a fifth or less of "e" to most letters."""
    context = make_context(make_roles(r=8), budget={"steps": 15}, seed=seed)
    context.demonstrations = demonstrations(context, "eeeee")
    before, after = learn("sft", {"learning_rate": 1e-2, "batch": 8}, context=context)
    assert before < 0.35
    assert after > 0.7


def test_the_first_loss_is_the_mean_over_completion_tokens(make_roles, make_context):
    """Prompts and padding do not count, the EOS that pads does where it ends a completion."""
    roles = make_roles(noise=0.05)
    context = make_context(roles)
    losses = []
    for row in context.demonstrations:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
        with torch.no_grad():
            logits = roles.model(input_ids=ids).logits[0, :-1]
        losses.append(F.cross_entropy(logits, labels[1:], reduction="none")[labels[1:] != -100])
    expected = torch.cat(losses).mean().item()
    sft = registry.load("algorithm", "sft")
    sft(sft.Settings(batch=8)).train(context)
    assert context.lines[0]["loss"] == pytest.approx(expected, abs=1e-5)
