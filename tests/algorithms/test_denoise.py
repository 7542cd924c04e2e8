"""Denoising on the toy."""

import pytest
import torch
from bakeoff.algorithms.corruption import corrupt, span_mask

from bakeoff import registry


def test_the_loss_is_on_the_gaps_alone(make_roles, make_context):
    """-log p of what follows the first EOS, given the text with blanks; the same for both rows' lengths."""
    context = make_context(make_roles(noise=0.05))
    denoise = registry.load("algorithm", "denoise")()
    ids = torch.tensor([[*range(3, 23)], [*range(23, 43)]])
    draws = torch.Generator().manual_seed(3)
    rows = [corrupt(row, span_mask(20, 0.15, 3.0, draws), 1, 0) for row in ids]
    logps = []
    with torch.no_grad():
        for inputs, labels in rows:
            found = context.policy(input_ids=inputs[None]).logits[0, :-1].log_softmax(-1)
            found = found.gather(1, inputs[1:, None])[:, 0]
            logps.append(found[labels[1:] != -100])
        loss = denoise.loss(context, ids, torch.ones_like(ids), torch.Generator().manual_seed(3))
    assert loss.item() == pytest.approx(-torch.cat(logps).mean().item(), abs=1e-5)
    assert len(logps[0]) == 3 + 1 + 1  # three tokens, their blank, EOS


def test_a_text_that_is_too_short_for_a_gap_is_refused(make_roles, make_context):
    """Blanks and both EOS need room."""
    context = make_context(make_roles())
    context.max_tokens = 5
    with pytest.raises(ValueError, match="too short"):
        registry.load("algorithm", "denoise")().train(context)
