"""SFT on the chosen side of preferences: what pairs give to an algorithm that never sees what was rejected.

The "Preferred-FT" of the DPO paper. After a warm start it is continued SFT. All else is ``sft``'s, with its settings.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

from bakeoff.contracts import TrainContext

from .sft import SFT


class SFTChosen(SFT):
    """Supervised fine-tuning on chosen completions, without the rejected ones."""

    title = "SFT on chosen completions"
    paper = "Rafailov et al. 2023, arXiv:2305.18290, §6 (Preferred-FT)"
    presets = MappingProxyType({})
    consumes = frozenset({"preferences"})
    is_control = True

    def train(self, context: TrainContext) -> None:
        """Train until the budget is spent."""
        chosen = context.preferences.map(demonstration, remove_columns=context.preferences.column_names)
        super().train(replace(context, demonstrations=chosen))


def demonstration(row: dict[str, Any]) -> dict[str, Any]:
    """A pair's prompt and chosen completion, as SFT takes them."""
    prompt, chosen = row["prompt_ids"], row["chosen_ids"]
    return {"id": row["id"], "input_ids": prompt + chosen, "labels": [-100] * len(prompt) + chosen}
