"""CPO: DPO's loss with a uniform reference, and a likelihood term (arXiv:2401.08417). SimPO is a preset.

TRL's experimental ``CPOTrainer`` on the cell's tokenised pairs. Differs from the paper: the likelihood is
the mean over all chosen tokens of a step, not each completion's sum.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, model_validator

from bakeoff.contracts import Preset

from .trl_experimental import ExperimentalAlgorithm, ExperimentalSettings


class CPOSettings(ExperimentalSettings):
    """Settings of ``cpo``."""

    beta: float = Field(default=0.1, gt=0)
    """Factor of the margin. 0.1 (paper) for sums of log-probabilities, 2 to 10 for SimPO's means."""
    loss: Literal["sigmoid", "hinge", "ipo", "simpo"] = "sigmoid"
    """Of the margin between log-likelihoods: their sums, or with ``ipo`` and ``simpo`` their means a token.
    ``sigmoid`` is the paper's."""
    label_noise: float = Field(default=0.0, ge=0, lt=0.5)
    """Rate at which labels are taken to be wrong; with the losses sigmoid and simpo only. 0 is off,
    as in TRL."""
    likelihood: float = Field(default=1.0, ge=0)
    """Weight of the chosen completions' negative log-likelihood a token (paper: 1; SimPO: 0)."""
    gamma: float = Field(default=0.5, ge=0)
    """Margin that ``simpo`` asks for, after beta (TRL: 0.5; arXiv:2405.14734 tunes it by model)."""
    alpha: float = 0.0
    """Shape of AlphaPO's reward, (1 - p^-alpha) / alpha (arXiv:2501.03884); 0 is the log-probability. With the losses
    simpo and ipo only, whose p is the mean probability a token: of a whole completion, p^-alpha overflows."""

    @model_validator(mode="after")
    def _loss_takes_what_is_set(self) -> CPOSettings:
        if self.label_noise and self.loss not in ("sigmoid", "simpo"):
            raise ValueError(f"label_noise has no effect on {self.loss}: it is for sigmoid and simpo")
        # Not by what was given: settings come back complete, from a cell's record.
        if self.gamma != type(self).model_fields["gamma"].default and self.loss != "simpo":
            raise ValueError(f"gamma has no effect on {self.loss}: it is simpo's")
        if self.alpha and self.loss not in ("simpo", "ipo"):
            raise ValueError(f"alpha needs means over tokens, and {self.loss} has sums: it is for simpo and ipo")
        return self


class CPO(ExperimentalAlgorithm):
    """Contrastive Preference Optimization, Eq. 5, without a reference."""

    title = "Contrastive Preference Optimization"
    paper = "Xu et al. 2024, arXiv:2401.08417"
    Settings = CPOSettings
    kind = "CPO"
    trained_by = "TRL's experimental CPOTrainer"

    presets = MappingProxyType(
        {
            "simpo": Preset(
                "Simple Preference Optimization",
                "Meng et al. 2024, arXiv:2405.14734",
                {"loss": "simpo", "beta": 2.5, "gamma": 1.375, "likelihood": 0.0},
                "The paper tunes beta and gamma by model; these are the authors' for Llama-3-8B-Instruct.",
            ),
            "alpha_po": Preset(
                "AlphaPO",
                "Gupta et al. 2025, arXiv:2501.03884",
                {"loss": "simpo", "beta": 2.5, "gamma": 0.1, "likelihood": 0.0, "alpha": 0.25},
                "The paper tunes all three by model; these are Mistral-7B-Instruct's, as TRL's paper index has them.",
            ),
        }
    )

    def trainer_settings(self) -> dict[str, Any]:
        """By TRL's names."""
        settings = self.settings
        return {
            "beta": settings.beta,
            "loss_type": settings.loss,
            "label_smoothing": settings.label_noise,
            "cpo_alpha": settings.likelihood,
            "simpo_gamma": settings.gamma,
            "alpha": settings.alpha,
        }
