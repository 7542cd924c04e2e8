"""ORPO: fine-tuning on the chosen completion and an odds-ratio penalty, with no reference (arXiv:2403.07691).

TRL's experimental ``ORPOTrainer`` on the cell's tokenised pairs. Differs from the paper: learning rate for LoRA; the
likelihood is of prompt and chosen completion, as TRL has it, and not of the completion alone.
"""

from typing import Any

from pydantic import Field

from .trl_experimental import ExperimentalAlgorithm, ExperimentalSettings


class ORPOSettings(ExperimentalSettings):
    """Settings of ``orpo``."""

    beta: float = Field(default=0.1, ge=0)
    """Weight of the odds ratio, the paper's lambda; 0 is fine-tuning on prompt and chosen completion. The paper has 0.1
    to 0.25 by model (§6.1), and up to 1 in its ablation."""


class ORPO(ExperimentalAlgorithm):
    """Odds Ratio Preference Optimization, Eq. 6, without a reference."""

    title = "Odds Ratio Preference Optimization"
    paper = "Hong et al. 2024, arXiv:2403.07691"
    Settings = ORPOSettings
    kind = "ORPO"
    trained_by = "TRL's experimental ORPOTrainer"

    def trainer_settings(self) -> dict[str, Any]:
        """The weight alone."""
        return {"beta": self.settings.beta}
