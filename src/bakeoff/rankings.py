"""Completions of one prompt with a score each: what reward models learn from and are measured on.

A ranking has ``id, prompt_ids, completion_ids`` (K lists) and ``scores`` (K, larger is better). Imports no torch.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bakeoff.errors import Incompatible
from bakeoff.seeds import derive_seed

if TYPE_CHECKING:
    import pandas as pd

    from bakeoff.rows import Tokenised
    from bakeoff.spec import RewardModelSettings

Rankings = Sequence[Mapping[str, Any]]


def of_pairs(rows: Sequence[Tokenised]) -> Rankings:
    """A task's own pairs; the chosen completion scores 1, the rejected one 0."""
    return [
        {
            "id": row.row["id"],
            "prompt_ids": list(row.prompt_ids),
            "completion_ids": [list(row.completions["chosen"]), list(row.completions["rejected"])],
            "scores": [1.0, 0.0],
        }
        for row in rows
        if "chosen" in row.completions
    ]


def of_samples(samples: pd.DataFrame, *, min_gap: float = 0.0) -> Rankings:
    """The samples of each prompt with their rewards, where best and worst differ by more than ``min_gap``.

    ``samples`` has columns ``prompt_id, prompt_ids, completion_ids, reward``.
    """
    rankings = []
    for name, group in samples.groupby("prompt_id", sort=False):
        scores = [float(reward) for reward in group["reward"]]
        if max(scores) - min(scores) > min_gap:
            prompt, completions = group["prompt_ids"].iloc[0], group["completion_ids"]
            ids = {"prompt_ids": [int(i) for i in prompt], "completion_ids": [[int(i) for i in c] for c in completions]}
            rankings.append({"id": str(name), **ids, "scores": scores})
    return rankings


def asked_for(rankings: Rankings, settings: RewardModelSettings) -> Rankings:
    """The first ``comparisons`` of them, a share of ``label_noise`` turned round.

    Which ones is drawn ranking by ranking from a fixed seed, so that a longer list flips the same of a shorter one.
    Raises ``Incompatible`` when there are too few.
    """
    wanted, rankings = settings.comparisons, list(rankings)  # a slice of a datasets.Dataset is a dict of columns
    if wanted is not None and len(rankings) < wanted:
        raise Incompatible(
            f"a reward model is to learn from {wanted} comparisons, but there are {len(rankings)}.",
            fix="Lower reward_model.comparisons, or raise preparation.prompts where comparisons are sampled.",
        )
    draws = random.Random(derive_seed("label noise"))
    return [turned(row) if draws.random() < settings.label_noise else row for row in rankings[:wanted]]


def turned(ranking: Mapping[str, Any]) -> Mapping[str, Any]:
    """The best completion gets the worst one's score, and so on: of a pair, the label is flipped."""
    order = sorted(range(len(ranking["scores"])), key=ranking["scores"].__getitem__)
    scores = dict(zip(order, (ranking["scores"][index] for index in reversed(order)), strict=True))
    return {**ranking, "scores": [scores[index] for index in range(len(order))]}
