"""What an evaluator may ask of the policy: numbers that do not depend on padding or batches, and nothing moves."""

import numpy as np
import pytest
import torch

from bakeoff.modelview import ModelView

IDS = [[3, 4, 5, 6, 7], [8, 9], [10, 11, 12, 13, 14, 15, 16, 0]]


@pytest.fixture
def roles(make_roles):
    return make_roles(noise=0.05)


@pytest.fixture
def view(roles, tokenizer):
    """``view(bidirectional=False, batch=2)`` of a policy that differs from its base."""

    def make(*, bidirectional=False, batch=2):
        return ModelView(roles, tokenizer, bidirectional=bidirectional, max_tokens=8, batch=batch)

    return make


def test_a_text_ends_with_eos_and_is_cut(view):
    """Eight tokens at most: a longer text loses its end, EOS with it."""
    short, long = view().encode(["we", "we were there"])
    assert short[-1] == 0
    assert (len(short), len(long)) == (3, 8)
    assert 0 not in long


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 2, 32])
def test_logps(batch, view, roles):
    """Of each token but the first, EOS too, by the policy and not its base, from the left whatever the training."""
    for row, found in zip(IDS, view(bidirectional=True, batch=batch).logps(IDS), strict=True):
        expected = roles.model(input_ids=torch.tensor([row])).logits[0, :-1].log_softmax(-1)
        expected = expected.gather(1, torch.tensor(row[1:])[:, None])[:, 0]
        assert found == pytest.approx(expected.tolist(), abs=1e-5)
    with roles.use("reference"):
        base = roles.model(input_ids=torch.tensor([row])).logits[0, :-1].log_softmax(-1)
    assert abs(base.gather(1, torch.tensor(row[1:])[:, None])[:, 0].sum().item() - sum(found)) > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("bidirectional", [False, True])
def test_hidden_tokens_are_filled_in_from_the_position_before(bidirectional, view, roles):
    """All of them blanked at once (unknown, 1, on the toy), each alone in its batch and beside longer texts."""
    positions = [[1, 3], [1], [4, 5, 6]]
    blanked = [[3, 1, 5, 1, 7], [8, 1], [10, 11, 12, 13, 1, 1, 1, 0]]
    with roles.attending(both_sides=bidirectional):
        logits = [roles.model(input_ids=torch.tensor([row])).logits[0] for row in blanked]
    expected = [
        [int(row[place - 1].argmax()) for place in places] for row, places in zip(logits, positions, strict=True)
    ]
    for batch in (1, 3):
        assert view(bidirectional=bidirectional, batch=batch).fill(IDS, positions) == expected


@torch.no_grad()
@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_embedding_is_the_mean_over_tokens(bidirectional, view, roles):
    """Padding is not in it, and it sees what the policy was trained to see."""
    found = view(bidirectional=bidirectional).embed(IDS)
    for row, embedding in zip(IDS, found, strict=True):
        ids = torch.tensor([row])
        with roles.attending(both_sides=bidirectional):
            expected = roles.hidden(ids, torch.ones_like(ids))[0].mean(0)
        np.testing.assert_allclose(embedding, expected.numpy(), atol=1e-5)


def test_asking_changes_nothing(view, roles):
    """Training mode, attention, active role and gradients are as before."""
    roles.model.train()
    asked = view(bidirectional=True)
    asked.logps(IDS)
    asked.fill(IDS, [[1], [1], [1]])
    asked.embed(IDS)
    assert roles.model.training
    assert roles.causal_lm.config.is_causal
    assert roles.active == "policy"
    assert all(parameter.grad is None for parameter in roles.model.parameters())
