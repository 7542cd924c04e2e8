"""Test prompts that training saw: equal but for case and spaces, or made of the same runs of words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

GRAM = 8
"""Words of a run, as in the contamination checks of GPT-3 and its successors (8 to 13)."""
NEAR = 0.8
"""Share of a prompt's runs that also stand in training prompts, from which on it counts as near. Prompts made from one
template share some runs; near ones share almost all."""
EXAMPLES = 20


def overlap(train: Sequence[str], test: Mapping[str, str]) -> dict[str, Any]:
    """How many of the ``test`` prompts (by id) are among the ``train`` prompts.

    ``exact`` counts equal prompts, ``near`` those that are not equal and share at least ``NEAR`` of their runs of
    ``GRAM`` words (a prompt that is shorter is never near), ``examples`` names the ids of the first of both.
    """
    seen = {_plain(prompt) for prompt in train}
    runs = {run for prompt in seen for run in _runs(prompt)}
    exact, near = [], []
    for name, prompt in test.items():
        text = _plain(prompt)
        own = _runs(text)
        if text in seen:
            exact.append(name)
        elif own and len(own & runs) >= NEAR * len(own):
            near.append(name)
    return {"exact": len(exact), "near": len(near), "examples": [*exact, *near][:EXAMPLES]}


def _plain(prompt: str) -> str:
    return " ".join(prompt.casefold().split())


def _runs(text: str) -> set[str]:
    words = text.split(" ")
    return {" ".join(words[start : start + GRAM]) for start in range(len(words) - GRAM + 1)}
