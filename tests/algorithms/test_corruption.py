"""Hiding tokens: how many, where, and what the model is given instead."""

import pytest
import torch
from bakeoff.algorithms.corruption import corrupt, hide, span_counts, span_mask


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_share_of_the_tokens_is_hidden_and_never_a_first_one_or_padding():
    """Of 64 rows of 99 candidates a fifth, within three standard deviations."""
    mask = torch.ones(64, 120)
    mask[:, 100:] = 0
    hidden = hide(mask, 0.2, generator())
    assert not hidden[:, 0].any()
    assert not hidden[:, 100:].any()
    assert hidden.sum() / (64 * 99) == pytest.approx(0.2, abs=3 * (0.16 / 6336) ** 0.5)


def test_something_is_always_hidden():
    """However small the rate, a batch has one token to learn from."""
    assert hide(torch.ones(2, 8), 1e-9, generator()).sum() == 1


@pytest.mark.parametrize(
    ("length", "expected"), [(100, (15, 5)), (512, (77, 26)), (8, (1, 1)), (2, (1, 1)), (1, (1, 1))]
)
def test_the_number_of_gaps_depends_on_the_length_alone(length, expected):
    """15 % of the tokens in gaps of three."""
    assert span_counts(length, 0.15, 3.0) == expected


def test_the_numbers_of_t5_hold_in_every_draw():
    """77 of 512 tokens in 26 gaps that do not touch, none at the beginning; another draw is another mask."""
    masks = [span_mask(512, 0.15, 3.0, generator(seed)) for seed in range(20)]
    for mask in masks:
        assert (len(mask), mask.sum()) == (512, 77)
        assert not mask[0]
        assert (mask[1:] & ~mask[:-1]).sum() == 26
    assert len({tuple(mask.tolist()) for mask in masks}) == 20


def test_every_place_can_be_in_a_gap():
    """All masks of one gap of two among six tokens come up: five places but the first."""
    starts = {int(span_mask(6, 1 / 3, 2.0, generator(seed)).int().argmax()) for seed in range(200)}
    assert starts == {4}  # one gap: what is kept comes before it, so it ends the text
    starts = {tuple(span_mask(6, 1 / 3, 1.0, generator(seed)).nonzero()[:, 0].tolist()) for seed in range(200)}
    assert starts == {(1, 5), (2, 5), (3, 5)}


def test_a_text_with_gaps_by_hand():
    """Tokens 10 to 16 with gaps 11-12 and 15: blanks (1) in their place, EOS (0), the gaps after a blank each, EOS."""
    gaps = torch.tensor([False, True, True, False, False, True, False])
    inputs, labels = corrupt(torch.arange(10, 17), gaps, 1, 0)
    assert inputs.tolist() == [10, 1, 13, 14, 1, 16, 0, 1, 11, 12, 1, 15, 0]
    assert labels.tolist() == [-100] * 7 + [1, 11, 12, 1, 15, 0]


def test_a_gap_at_either_end():
    """The end does not run into the beginning."""
    inputs, _ = corrupt(torch.arange(10, 14), torch.tensor([True, False, False, True]), 1, 0)
    assert inputs.tolist() == [1, 11, 12, 1, 0, 1, 10, 1, 13, 0]
