"""Masked next-token prediction on the toy."""

import torch
from datasets import Dataset

from bakeoff import registry


def make(**settings):
    mntp = registry.load("algorithm", "mntp")
    return mntp(mntp.Settings(**settings))


def test_a_hidden_token_is_predicted_from_the_position_before(make_roles, make_context, monkeypatch):
    """Token 2 of four is hidden: the loss is -log p of it at position 1, whatever comes after seen too."""
    context = make_context(make_roles(noise=0.05))
    monkeypatch.setattr(
        "bakeoff.algorithms.corruption.hide", lambda mask, rate, generator: torch.tensor([[False, False, True, False]])
    )
    ids, mask = torch.tensor([[3, 4, 5, 6]]), torch.ones(1, 4, dtype=torch.long)
    blanked = torch.tensor([[3, 4, 1, 6]])  # the toy has no mask token and no "_": unknown is 1
    with torch.no_grad(), context.roles.attending(both_sides=True):
        expected = -context.policy(input_ids=blanked).logits[0, 1].log_softmax(-1)[5]
        loss = make().loss(context, ids, mask, torch.Generator())
        other = make().loss(context, torch.tensor([[3, 4, 5, 7]]), mask, torch.Generator())
    assert torch.allclose(loss, expected, atol=1e-5)
    assert (loss - other).abs() > 1e-4


def test_it_learns_to_fill_in(make_roles, make_context):
    """Forty steps on two repeated words: the loss falls by two fifths."""
    context = make_context(make_roles(r=8), budget={"steps": 40})
    encode = context.tokenizer
    context.text = Dataset.from_list(
        [{"id": str(n), "input_ids": encode(word * 8)["input_ids"]} for n, word in enumerate(["xaab", "xbba"] * 4)]
    )
    make(learning_rate=1e-2, batch=8, mask_rate=0.3).train(context)
    losses = [line["loss"] for line in context.lines]
    assert sum(losses[-5:]) / 5 < 0.6 * losses[0]
