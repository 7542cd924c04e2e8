"""The plugins that a check surrounds yours with: a task that has everything, an evaluator, a judge, a warm start.

They are not installed; ``registry.lend`` puts them into the registry for as long as a check runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from bakeoff.contracts import (
    Algorithm,
    EvalContext,
    Evaluator,
    Judge,
    Metric,
    PluginSettings,
    Row,
    Source,
    Task,
    TaskData,
    TaskSettings,
    TrainContext,
    Verdict,
)

if TYPE_CHECKING:
    import pandas as pd

STARTS = ("the film", "we were", "a bad", "never", "three", "sweet", "there was", "good")
REPLIES = ("seen here", "there", "we were sweet", "three", "never seen", "a sweet film", "good", "were there")


class ToyTask(Task):
    """Write as many letters "e" as you can. Rows hold prompts, demonstrations, pairs and text."""

    title = "The letter e"

    class Settings(TaskSettings):
        max_prompt_tokens: int = 32
        max_new_tokens: int = 8
        rewarded: bool = True
        """Without a reward, one is learned from the pairs."""
        held_out: Literal["usual", "other"] = "usual"
        """Which test rows there are; the training rows are the same."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        if self.settings.rewarded:
            self.reward_metric = self.gold_metric = Metric(
                "share_of_e", "share", "higher", "letters e over characters", 0.0, 1.0
            )

    def load(self) -> TaskData:
        """64 training and 8 test rows."""
        train = [_row(number, f"{STARTS[number % 8]} {number} ") for number in range(64)]
        ending = "is" if self.settings.held_out == "usual" else "had been"
        test = [_row(number, f"{STARTS[number % 8]} {ending} {number} ") for number in range(100, 108)]
        provides: set[Source] = {"prompts", "demonstrations", "preferences", "text"}
        if self.settings.rewarded:
            provides.add("reward")
        digest = hashlib.sha256(json.dumps([train, test]).encode()).hexdigest()
        return TaskData(train, test, frozenset(provides), digest, "Apache-2.0", "made by bakeoff.testing")

    def reward(self, rows: Sequence[Row], completions: Sequence[str]) -> list[float]:
        """The share of "e"; 0 for an empty completion."""
        return [text.count("e") / max(1, len(text)) for text in completions]

    gold = reward


def _row(number: int, prompt: str) -> Row:
    reply = REPLIES[(number * 3) % 8][:7]
    return {
        "id": f"row-{number}",
        "prompt": prompt,
        "completion": reply,
        "chosen": reply,
        "rejected": f"bad {number}",
        "text": prompt + reply,
    }


class ToyEvaluator(Evaluator):
    """The length of each completion."""

    title = "Length"
    metrics = (Metric("characters", "characters", "none", "Length of the completion.", 0.0),)

    def score(self, context: EvalContext) -> pd.DataFrame:
        """One value a sample."""
        samples = context.samples
        return samples[["prompt_id", "sample"]].assign(metric="characters", value=samples["completion"].str.len())


class ToyJudge(Judge):
    """Prefers the completion with more letters "e"."""

    title = "More e"

    def compare(self, context: EvalContext, rows: Sequence[Row], a: Sequence[str], b: Sequence[str]) -> list[Verdict]:
        """A tie where both have as many."""
        return [
            "tie" if x.count("e") == y.count("e") else "a" if x.count("e") > y.count("e") else "b"
            for x, y in zip(a, b, strict=True)
        ]


class Nudge(Algorithm):
    """A warm start that costs nothing: a little noise on every adapter weight, drawn from the seed."""

    title = "Nudge"

    class Settings(PluginSettings):
        scale: float = 0.02
        """Standard deviation of the noise."""

    def train(self, context: TrainContext) -> None:
        """One draw."""
        import torch

        generator = torch.Generator().manual_seed(context.seed)
        with torch.no_grad():
            for parameter in context.roles.parameters("policy"):
                noise = torch.randn(parameter.shape, generator=generator) * self.settings.scale
                if not torch.isfinite(noise).all():
                    raise FloatingPointError(f"a nudge of {self.settings.scale}")
                parameter.add_(noise.to(parameter.dtype))
