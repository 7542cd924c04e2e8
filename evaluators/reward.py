"""The rewards of each sample: the gold one that the report believes, and the one that training optimised.

Where the training reward rises and the gold one does not, the policy has over-optimised its proxy
(Gao, Schulman and Hilton 2022, arXiv:2210.10760).
"""

from __future__ import annotations

import pandas as pd

from bakeoff.contracts import EvalContext, Evaluator, Metric

from .long import long_form, sampled_rows


class Reward(Evaluator):
    title = "Gold and training reward"
    metrics = (
        Metric("gold_reward", "reward", "higher", "Gold reward of the completion, in the task's units."),
        Metric("train_reward", "reward", "higher", "The reward that training optimised; a proxy of the gold one."),
    )

    def score(self, context: EvalContext) -> pd.DataFrame:
        """One value a sample of each reward that there is; a reward that is missing is left out whole."""
        rows = sampled_rows(context, context.samples)
        completions = context.samples["completion"].tolist()
        rewards = {"gold_reward": context.gold, "train_reward": context.train_reward}
        return long_form(
            context.samples,
            {name: reward(rows, completions) for name, reward in rewards.items() if reward is not None},
        )
