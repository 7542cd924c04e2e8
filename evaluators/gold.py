"""A judge that prefers the completion with the higher gold reward: exact, free, and the same in both orders."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from pydantic import Field

from bakeoff.contracts import EvalContext, Judge, PluginSettings, Row, Verdict

logger = logging.getLogger(__name__)


class GoldSettings(PluginSettings):
    epsilon: float = Field(default=1e-9, ge=0)
    """Rewards that differ by no more than this are a tie. This project's choice: rounding in fp64, and nothing else."""


class Gold(Judge):
    """Prefers the completion with the higher gold reward, or training reward where a task has no gold one.

    The fallback, told in the log, favours what training optimised, over-optimisation included. Without either
    reward, or where one is not finite, the verdict is "invalid".
    """

    title = "The higher gold reward wins"
    Settings = GoldSettings
    settings: GoldSettings
    free = True

    def compare(self, context: EvalContext, rows: Sequence[Row], a: Sequence[str], b: Sequence[str]) -> list[Verdict]:
        score = context.gold or context.train_reward
        if score is None:
            logger.warning("judge gold: the task has neither a gold nor a training reward; no verdict is possible")
            return ["invalid"] * len(rows)
        if context.gold is None:
            logger.warning("judge gold: the task has no gold reward; the training reward decides instead")
        return [
            self._verdict(reward_a, reward_b) for reward_a, reward_b in zip(score(rows, a), score(rows, b), strict=True)
        ]

    def _verdict(self, reward_a: float, reward_b: float) -> Verdict:
        gap = reward_a - reward_b
        if not math.isfinite(gap):
            return "invalid"
        if abs(gap) <= self.settings.epsilon:
            return "tie"
        return "a" if gap > 0 else "b"
