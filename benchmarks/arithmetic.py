"""Sums and differences to be continued with the exact result: reasoning-gym's ``chain_sum``, as raw text.

The prompts have no chat form: there a model of 135M parameters keeps to no answer format, and a reward that
is always 0 teaches nothing. Questions are dealt to training or test by a hash of the question alone, so no
size or seed lets a test question into training.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from itertools import islice

from pydantic import Field, model_validator

from bakeoff.contracts import Row, Task, TaskData, TaskSettings
from bakeoff.errors import DataError

from .answers import ACCURACY, best_constant_answer, sole_number
from .fingerprint import fingerprint

TEST_SHARE = 0.2
"""Share of all questions that are test questions."""
DRAWS_PER_ROW = 200
"""Questions drawn for each row asked for before giving up: small ranges hold few distinct questions."""


class ArithmeticSettings(TaskSettings):
    max_prompt_tokens: int = Field(default=32, ge=1)
    """A row whose prompt is longer is left out for every algorithm alike, and counted."""
    max_new_tokens: int = Field(default=6, ge=1)
    """Completion length in tokens, in training and in evaluation."""
    min_terms: int = Field(default=2, ge=2)
    """Terms of a sum, at least ..."""
    max_terms: int = Field(default=2, ge=2)
    """... and at most. Two are hard enough for models of a few hundred million weights."""
    min_digits: int = Field(default=1, ge=1)
    """Digits of a term, at least; all terms of one question have the same number of digits at most."""
    max_digits: int = Field(default=2, ge=1)
    """Digits of a term, at most."""
    train_size: int = Field(default=512, ge=1)
    """Training questions."""
    test_size: int = Field(default=128, ge=1)
    """Held-out questions."""
    data_seed: int = Field(default=0, ge=0)
    """Which questions are drawn. Apart from the cell's seed: all cells share one set of questions."""

    @model_validator(mode="after")
    def _ranges_are_not_empty(self) -> ArithmeticSettings:
        for name in ("terms", "digits"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low > high:
                raise ValueError(f"min_{name} ({low}) is above max_{name} ({high})")
        return self


class Arithmetic(Task):
    """Prompts, exact answers as demonstrations, and a reward that checks the answer."""

    title = "Sums and differences with exact answers"
    Settings = ArithmeticSettings
    reward_metric = ACCURACY
    gold_metric = ACCURACY
    settings: ArithmeticSettings

    def load(self) -> TaskData:
        """Raises ``DataError`` when the ranges hold too few distinct questions for the sizes."""
        rows = list(self._rows())
        train = [row for row in rows if row["id"].startswith("train")]
        test = [row for row in rows if row["id"].startswith("test")]
        return TaskData(
            train=train,
            test=test,
            provides=frozenset({"prompts", "demonstrations", "reward"}),
            fingerprint=fingerprint(train, test),
            licence="Apache-2.0",
            source="made by reasoning-gym, chain_sum",
            references=best_constant_answer(row["answer"] for row in test),
        )

    def reward(self, rows: Sequence[Row], completions: Sequence[str]) -> list[float]:
        """1.0 where the first line of the completion is exactly the answer, else 0.0."""
        return [
            float(sole_number(text.strip().partition("\n")[0]) == sole_number(row["answer"]))
            for row, text in zip(rows, completions, strict=True)
        ]

    gold = reward

    def _rows(self) -> Iterator[Row]:
        """Distinct questions in the order drawn, until both splits are full."""
        wanted = {"train": self.settings.train_size, "test": self.settings.test_size}
        seen: set[str] = set()
        for question, answer in islice(self._questions(), DRAWS_PER_ROW * sum(wanted.values())):
            split = "test" if _hash01(question) < TEST_SHARE else "train"
            if question in seen or not wanted[split]:
                continue
            seen.add(question)
            wanted[split] -= 1
            yield {
                "id": f"{split}: {question}",
                "prompt": f"Question: {question} =\nAnswer:",
                "completion": f" {answer}",
                "answer": answer,
            }
            if not any(wanted.values()):
                return
        found = {split: getattr(self.settings, f"{split}_size") - missing for split, missing in wanted.items()}
        raise DataError(
            f"arithmetic: only {found['train']} training and {found['test']} test questions with these terms and "
            f"digits are distinct; train_size is {self.settings.train_size}, test_size {self.settings.test_size}.",
            fix="Lower train_size and test_size, or raise max_terms or max_digits.",
        )

    def _questions(self) -> Iterator[tuple[str, str]]:
        """An endless stream of ("67 + 75", "142"). Each is drawn from (seed + position) alone."""
        from reasoning_gym.arithmetic.chain_sum import ChainSumConfig, ChainSumDataset

        settings = self.settings
        # reasoning-gym seeds question i with seed + i, so neighbouring seeds would share all but one question.
        seed = random.Random(settings.data_seed).getrandbits(48)
        questions = ChainSumDataset(
            ChainSumConfig(
                min_terms=settings.min_terms,
                max_terms=settings.max_terms,
                min_digits=settings.min_digits,
                max_digits=settings.max_digits,
                seed=seed,
            )
        )
        position = 0
        while True:
            entry = questions[position]
            yield entry["metadata"]["expression"], entry["answer"]
            position += 1


def _hash01(question: str) -> float:
    """A number in [0, 1) from the text alone."""
    return int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big") / 2**64
