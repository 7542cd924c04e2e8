"""SimCSE on the toy."""

import math

import pytest
import torch
from bakeoff.algorithms.simcse import attention_dropout, info_nce, mean_pool

from bakeoff import registry
from bakeoff.errors import ModelError


def test_the_loss_by_hand():
    """Orthogonal texts at temperature 0.5: similarity 2 with oneself, 0 with the other. Length is free."""
    rows = torch.tensor([[3.0, 0.0], [0.0, 0.1]])
    assert info_nce(rows, 5 * rows, 0.5).item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert info_nce(rows, rows.flip(0), 0.5).item() == pytest.approx(math.log(1 + math.exp(2)))


def test_padding_is_not_in_the_mean():
    """Two tokens of three."""
    hidden = torch.tensor([[[1.0], [3.0], [100.0]]])
    assert mean_pool(hidden, torch.tensor([[1, 1, 0]])).item() == 2.0


@pytest.mark.parametrize("architecture", ["toy", "toy_gpt2"])
def test_dropout_makes_two_views_and_goes_again(architecture, make_roles, request):
    """Only in training mode and inside the block do two passes differ."""
    roles = make_roles(folder=request.getfixturevalue(architecture))
    ids = torch.tensor([[3, 4, 5, 6, 7]])

    @torch.no_grad()
    def differs():
        first, second = (roles.hidden(ids, torch.ones_like(ids)) for _ in range(2))
        return not torch.equal(first, second)

    roles.model.train()
    assert not differs()
    with attention_dropout(roles.causal_lm, 0.3):
        assert differs()
        roles.model.eval()
        assert not differs()
        roles.model.train()
    assert not differs()


def test_a_model_without_attention_dropout_is_refused():
    """There would be one view only, and the loss would learn nothing."""
    with pytest.raises(ModelError, match="no attention dropout"), attention_dropout(torch.nn.Linear(2, 2), 0.1):
        pass


def test_it_pulls_a_text_to_itself(make_roles, make_context):
    """Thirty steps: the loss falls, where dropout is 0.3 all along."""
    context = make_context(make_roles(r=8), budget={"steps": 30})
    simcse = registry.load("algorithm", "simcse")
    simcse(simcse.Settings(batch=8, learning_rate=3e-3)).train(context)
    losses = [line["loss"] for line in context.lines]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_one_text_is_refused(make_roles, make_context):
    """It has no other to be held against."""
    context = make_context(make_roles())
    context.text = context.text.select([0])
    with pytest.raises(ValueError, match="no other"):
        registry.load("algorithm", "simcse")().train(context)
