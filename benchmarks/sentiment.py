"""Film-review continuations, rewarded for positive sentiment: the task of the DPO paper's Figure 2, made small.

The prompts are made here (openings x invented titles x genres), so nothing is downloaded. They are raw text of
about ten tokens that promise neither praise nor blame. Titles are split between training and test.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product

from pydantic import Field

from bakeoff.contracts import Row, Task, TaskData, TaskSettings

from .fingerprint import fingerprint
from .vader import GOLD, REWARD, compound, gold

OPENINGS = (
    "I watched the {genre} {title} and",
    "{title} is a {genre} that",
    "The new {genre} {title} was",
    "My thoughts on the {genre} {title}:",
    "After seeing the {genre} {title}, I",
    "I thought the {genre} {title} was",
    "Last night we saw the {genre} {title}. It",
    "Watching the {genre} {title}, I felt",
)
GENRES = ("drama", "biopic", "western", "documentary", "mystery", "musical")
ADJECTIVES = ("Copper", "Northern", "Seventh", "Paper", "Granite", "Winter", "Distant", "Crooked", "Inland", "Amber")
NOUNS = (
    "Ferry", "Ledger", "Orchard", "Viaduct", "Almanac", "Turnstile", "Cartographer", "Meridian", "Lighthouse", "Quarry"
)  # fmt: skip
TITLES = tuple(f"{adjective} {noun}" for adjective, noun in product(ADJECTIVES, NOUNS))
N_TEST_TITLES = 20


class SentimentSettings(TaskSettings):
    max_prompt_tokens: int = Field(default=32, ge=1)
    """A row whose prompt is longer is left out for every algorithm alike, and counted."""
    max_new_tokens: int = Field(default=16, ge=1)
    """Completion length in tokens, in training and in evaluation."""
    penalty: float = Field(default=2.0, ge=0)
    """The gold reward's full fine for repetition, in units of the VADER compound score; 2 takes any loop to -1."""


class Sentiment(Task):
    """Prompts and a reward; demonstrations and pairs are sampled from the base and ranked by a stage."""

    title = "Positive film-review continuations"
    Settings = SentimentSettings
    reward_metric = REWARD
    gold_metric = GOLD
    settings: SentimentSettings

    def load(self) -> TaskData:
        """3,840 training and 960 test prompts, in an order shuffled by a fixed seed."""
        rng = random.Random(0)
        titles = rng.sample(TITLES, len(TITLES))
        test = _rows(titles[:N_TEST_TITLES], rng)
        train = _rows(titles[N_TEST_TITLES:], rng)
        return TaskData(
            train=train,
            test=test,
            provides=frozenset({"prompts", "reward"}),
            fingerprint=fingerprint(train, test),
            licence="Apache-2.0",
            source="made by bakeoff from templates",
        )

    def reward(self, rows: Sequence[Row], completions: Sequence[str]) -> list[float]:
        """VADER's compound score of each completion, in [-1, 1]."""
        return [compound(text) for text in completions]

    def gold(self, rows: Sequence[Row], completions: Sequence[str]) -> list[float]:
        """The compound score less what repetition and lists of praise gained, in [-1, 1]."""
        return [gold(text, self.settings.penalty) for text in completions]


def _rows(titles: Sequence[str], rng: random.Random) -> list[Row]:
    """Every opening with every genre and every one of these titles, shuffled."""
    rows: list[Row] = [
        {
            "id": f"{title.lower().replace(' ', '-')}/{genre}/{number}",
            "prompt": opening.format(genre=genre, title=f"The {title}"),
        }
        for title, genre, (number, opening) in product(titles, GENRES, enumerate(OPENINGS))
    ]
    rng.shuffle(rows)
    return rows
