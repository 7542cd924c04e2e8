"""A reward model as a row of a matrix: trained on ranked completions, measured on held-out pairs.

The policy is left alone, so no metric of samples is asked of this row. The same code trains the reward models that
other algorithms optimise (``preparation.reward_model``); here the budget says when it ends. Each loss is a preset:
``reward-model:hinge``.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

from bakeoff.contracts import Algorithm, PluginSettings, Preset, TrainContext
from bakeoff.spec import RewardModelSettings

if TYPE_CHECKING:
    from bakeoff.checkpoint import Stateful

_LOSSES = {
    "bradley-terry": ("Bradley-Terry", "Ouyang et al. 2022, arXiv:2203.02155, Eq. 1"),
    "bradley-terry-margin": ("Bradley-Terry with a margin", "Touvron et al. 2023, arXiv:2307.09288, Eq. 2"),
    "hinge": ("pairwise hinge", "Joachims 2002, doi:10.1145/775047.775067"),
    "label-smoothed": ("label-smoothed Bradley-Terry", "Mitchell 2023, A note on DPO with noisy preferences"),
    "noise-corrected": ("noise-corrected Bradley-Terry", "Chowdhury et al. 2024, arXiv:2403.00409"),
    "soft": ("Bradley-Terry on soft labels", "Bradley and Terry 1952, doi:10.2307/2334029"),
    "plackett-luce": ("Plackett-Luce", "Plackett 1975, doi:10.2307/2346567"),
    "pointwise": ("regression on scores", "Wang et al. 2024, arXiv:2406.08673"),
}
_DIFFERS = {
    "pointwise": "The paper fits five ratings at once; here it is one score.",
    "bradley-terry-margin": "The margin is proportional to the gap of the scores, not one of a few steps.",
    "noise-corrected": "The paper's loss is for DPO's margins; here it is a reward model's, held at 10.",
    "label-smoothed": "The note's loss is for DPO's margins; here it is a reward model's.",
}


class RewardModelRowSettings(RewardModelSettings, PluginSettings):
    """Settings of ``reward-model``: those of ``preparation.reward_model`` without ``steps``, which the budget says."""


class RewardModelRow(Algorithm):
    """Trains ``context.reward_model`` on rankings: pairs, or all samples of a prompt with their scores."""

    title = "Reward model"
    paper = "Ouyang et al. 2022, arXiv:2203.02155"
    Settings = RewardModelRowSettings
    presets = MappingProxyType(
        {
            loss: Preset(f"Reward model, {name}", paper, {"loss": loss}, _DIFFERS.get(loss, ""))
            for loss, (name, paper) in _LOSSES.items()
        }
    )
    consumes = frozenset({"rankings"})
    role = "reward"
    trained_by = "bakeoff's reward-model loop"

    def train(self, context: TrainContext) -> None:
        """Train until the budget is spent."""

        def steps(optimizer: Stateful) -> Iterator[int]:
            for step in context.steps(optimizer):
                yield step
                context.meter.count_prompts(self.settings.batch)

        context.reward_model.fit(
            context.rankings,
            self.settings,
            steps=steps,
            decay=lambda step: context.learning_rate_scale(),
            seed=context.seed,
            log=context.log,
        )
