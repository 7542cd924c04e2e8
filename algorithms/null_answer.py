"""The null answer: one text for every prompt (arXiv:2410.07137).

A judge or a metric that likes it measures something else than answers. Unlike the paper's, which is written to
deceive a judge, the text is empty unless set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bakeoff.contracts import Algorithm, CompletionContext, PluginSettings, TrainContext

if TYPE_CHECKING:
    import pandas as pd


class NullAnswerSettings(PluginSettings):
    """Settings of ``null-answer``."""

    text: str = ""
    """What it answers; cut at the task's ``max_new_tokens``. Nothing at all is this project's choice."""


class NullAnswer(Algorithm):
    """Gives every prompt the same answer, and asks no model."""

    title = "Null answer"
    paper = "Zheng et al. 2024, arXiv:2410.07137"
    Settings = NullAnswerSettings
    is_control = True
    trains = False

    def train(self, context: TrainContext) -> None:
        """Nothing to do."""

    def complete(self, context: CompletionContext) -> pd.DataFrame:
        """The same text for each row."""
        return context.write([self.settings.text] * len(context.rows))
