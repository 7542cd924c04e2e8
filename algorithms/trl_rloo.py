"""RLOO by TRL's own ``RLOOTrainer``: the cross-check of ``rloo``.

Composed through the public constructor. Set to compute what ``rloo`` does: full-vocabulary sampling at temperature 1,
no dropout, KL (k1) in the reward of a completion.
"""

from pydantic import Field

from bakeoff.contracts import Algorithm, TrainContext

from .trl_sampling import TRLSamplingSettings, train


class TRLRLOOSettings(TRLSamplingSettings):
    """Settings of ``trl-rloo``, named as ``rloo``'s. The KL is in the reward."""

    group: int = Field(default=4, ge=2)
    """Completions a prompt (paper: 2 and 4; TRL: 2)."""
    beta: float = Field(default=0.05, ge=0)
    """Weight of the KL (TRL: 0.05)."""
    whiten: bool = False
    """Whether advantages are brought to mean 0 and variance 1 (TRL: not)."""


class TRLRLOO(Algorithm):
    """TRL's REINFORCE Leave-One-Out."""

    title = "REINFORCE Leave-One-Out (TRL's trainer)"
    paper = "Ahmadian et al. 2024, arXiv:2402.14740"
    Settings = TRLRLOOSettings
    consumes = frozenset({"prompts", "reward"})
    trained_by = "TRL's RLOOTrainer"

    def train(self, context: TrainContext) -> None:
        """Train until the budget is spent."""
        from trl import RLOOConfig, RLOOTrainer

        train(RLOOTrainer, RLOOConfig, context, self.settings, normalize_advantages=self.settings.whiten)
