"""GRPO with its reward taken away: coins in its place, or length.

What GRPO gains from coins is not learned from the reward (Shao et al. 2025, arXiv:2506.10947, where some models gain
much); what it gains from length, a reward that favours length would pay for, too (Singhal et al. 2023,
arXiv:2310.03716). All else is ``grpo``'s, with its settings.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

from bakeoff.contracts import TrainContext
from bakeoff.seeds import derive_seed

from .grpo import GRPO


class RandomReward(GRPO):
    """GRPO paid by the toss of a coin: each completion gets 1 or 0, whatever it says."""

    title = "GRPO on a random reward"
    paper = "Shao et al. 2025, arXiv:2506.10947"
    presets = MappingProxyType({})
    consumes = frozenset({"prompts"})
    is_control = True

    def train(self, context: TrainContext) -> None:
        """Train until the budget is spent. The coins depend on the seed and on how many prompts were seen."""
        import torch

        def coins(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
            seed = derive_seed(context.seed, "random reward", context.meter.prompts)
            tosses = torch.randint(2, (len(completions),), generator=torch.Generator().manual_seed(seed))
            return [float(toss) for toss in tosses]

        super().train(replace(context, reward=coins))


class LengthReward(GRPO):
    """GRPO paid by length: each completion gets the share of the length limit that it fills, EOS included."""

    title = "GRPO on length"
    paper = "Singhal et al. 2023, arXiv:2310.03716"
    presets = MappingProxyType({})
    consumes = frozenset({"prompts"})
    is_control = True

    def train(self, context: TrainContext) -> None:
        """Train until the budget is spent."""

        def length(completion_ids: list[list[int]], **columns: Any) -> list[float]:
            return [len(ids) / context.max_new_tokens for ids in completion_ids]

        super().train(replace(context, reward=length))
