"""A judge that prefers the completion that a reward model scores higher.

Either a reward model that a run trained on pairs (a folder ``stages/reward-model-...``), or any sequence
classifier with one output in transformers' format. A reward model that training optimised is not an independent judge:
what fooled it in training fools it here (Gao, Schulman and Hilton 2022, arXiv:2210.10760).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from bakeoff.contracts import EvalContext, Judge, PluginSettings, Row, Score, Verdict
from bakeoff.errors import ModelError

if TYPE_CHECKING:
    import torch


class RewardModelSettings(PluginSettings):
    stage: Path | None = None
    """A folder ``stages/reward-model-...`` of a run that trained a reward model. No default: this or ``model``."""
    model: Path | str | None = None
    """Or a sequence classifier with one output: a folder, or a hub id. No default: this or ``stage``."""
    revision: str | None = None
    """Of a hub id, the commit; pin it, since a hub id can change under you. The newest unless given."""
    epsilon: float = Field(default=1e-6, ge=0)
    """Rewards that differ by no more than this are a tie. This project's choice: rounding in fp32, and nothing else."""
    max_tokens: int = Field(default=1024, ge=16)
    """Prompt and completion together; what is longer loses its beginning, so that the answer stays
    whole (TRL's reward trainer: 1024)."""
    batch: int = Field(default=16, ge=1)
    """Texts scored at once: memory and speed only. This project's choice."""

    transport = frozenset({"batch"})

    @model_validator(mode="after")
    def _one_source(self) -> RewardModelSettings:
        if (self.stage is None) == (self.model is None):
            raise ValueError("give either `stage` or `model`")
        return self


class RewardModelJudge(Judge):
    """Prefers the completion to which a reward model gives more; a difference below ``epsilon`` is a tie.

    Loads its model once a process, beside the model that is being judged: mind the memory.
    """

    title = "The higher reward of a reward model wins"
    Settings = RewardModelSettings
    settings: RewardModelSettings

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self._score: Score | None = None
        self._facts: dict[str, Any] = {}

    @property
    def facts(self) -> Mapping[str, Any]:
        return self._facts

    def compare(self, context: EvalContext, rows: Sequence[Row], a: Sequence[str], b: Sequence[str]) -> list[Verdict]:
        if self._score is None:
            self._score = self._load()
        # A reward has no order of reading, and a completion meets many others: each is scored once.
        both = list(dict.fromkeys([*zip(map(_id, rows), a, strict=True), *zip(map(_id, rows), b, strict=True)]))
        by_id = {_id(row): row for row in rows}
        rewards = dict(
            zip(both, self._score([by_id[name] for name, _ in both], [text for _, text in both]), strict=True)
        )
        return [
            self._verdict(rewards[_id(row), left] - rewards[_id(row), right])
            for row, left, right in zip(rows, a, b, strict=True)
        ]

    def _verdict(self, gap: float) -> Verdict:
        if not math.isfinite(gap):
            return "invalid"
        if abs(gap) <= self.settings.epsilon:
            return "tie"
        return "a" if gap > 0 else "b"

    def _load(self) -> Score:
        if self.settings.stage is not None:
            from bakeoff.reward_model import load_stage

            model = load_stage(self.settings.stage)
            self._facts = {"model": str(self.settings.stage), **model.facts}
            return model.score
        classifier = Classifier(self.settings)
        self._facts = {"model": classifier.name}
        return classifier.score


class Classifier:
    """A sequence classifier with one output. Raises ``ModelError`` when it does not load whole."""

    def __init__(self, settings: RewardModelSettings) -> None:
        from bakeoff import modelfiles, models
        from bakeoff.spec import ModelSpec

        folder = Path(str(settings.model))
        where = {"folder": folder} if folder.is_dir() else {"hub": str(settings.model), "revision": settings.revision}
        spec = ModelSpec(label=folder.name, **where)  # type: ignore[arg-type]
        self.name = modelfiles.fingerprint(spec)
        self.settings = settings
        self.tokenizer = models.load_tokenizer(spec)
        self.tokenizer.truncation_side = "left"
        self.tokenizer.padding_side = "right"
        self.model = _whole(str(settings.model), *models.prepare(spec)).to(models.device())
        self.model.config.pad_token_id = self.tokenizer.pad_token_id

    def score(self, rows: Sequence[Row], completions: Sequence[str]) -> list[float]:
        """The output of each completion behind its prompt."""
        import torch

        texts = [self._text(row, completion) for row, completion in zip(rows, completions, strict=True)]
        # Of like length together, so that little is padding; handed back in the order of the rows.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        values: dict[int, float] = {}
        for start in range(0, len(order), self.settings.batch):
            part = order[start : start + self.settings.batch]
            inputs = self.tokenizer(
                [texts[index] for index in part],
                padding=True,
                truncation=True,
                max_length=self.settings.max_tokens,
                add_special_tokens=not self.tokenizer.chat_template,
                return_tensors="pt",
            )
            with torch.no_grad():
                rewards: torch.Tensor = self.model(**inputs.to(self.model.device)).logits[:, 0]
            values |= dict(zip(part, rewards.float().tolist(), strict=True))
        return [values[index] for index in range(len(texts))]

    def _text(self, row: Row, completion: str) -> str:
        """As a conversation where the classifier has a chat template, as one running text where it has none."""
        prompt = row["prompt"]
        if self.tokenizer.chat_template:
            turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
            turns.append({"role": "assistant", "content": completion})
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False))
        before = prompt if isinstance(prompt, str) else "\n".join(str(turn["content"]) for turn in prompt) + "\n"
        return before + completion


def _whole(name: str, where: str, revision: str | None) -> Any:
    """The classifier in eval mode. Raises ``ModelError`` when a weight of it was made up instead of loaded."""
    from transformers import AutoModelForSequenceClassification

    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            where, revision=revision, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the reward model '{name}' did not load: {error}",
            fix="Name a folder or a hub id of a sequence classifier with safetensors weights.",
        ) from error
    made_up = [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]
    if made_up:
        raise ModelError(
            f"the reward model '{name}' is not one: {', '.join(sorted(made_up)[:3])} would be random numbers.",
            fix="Name a model whose classification head was trained and saved, not a language model.",
        )
    if model.config.num_labels != 1:
        raise ModelError(
            f"the reward model '{name}' has {model.config.num_labels} outputs; a reward is one.",
            fix="Name a reward model (num_labels 1), not a classifier of several classes.",
        )
    return model.eval()


def _id(row: Row) -> str:
    return str(row["id"])
