"""What the algorithms share that TRL keeps in ``trl.experimental``: a probe, and pairs as these trainers take them.

TRL may take any of them away in any release, and has. An algorithm without its trainer says so when a run is planned,
its cells are "incompatible", and no other algorithm is affected.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from bakeoff.contracts import Algorithm, PluginSettings, TrainContext
from bakeoff.errors import Incompatible


class ExperimentalSettings(PluginSettings):
    """What each of them can set."""

    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak; follows the matrix's schedule. LoRA: ten to a hundred times full fine-tuning's 3e-7 to 8e-6. This
    project's choice, ``dpo``'s rate."""
    batch: int = Field(default=8, ge=1)
    """Pairs an optimizer step (HF's Trainer: 8)."""


class ExperimentalAlgorithm(Algorithm):
    """Trains on pairs, without a reference, by the trainer ``<kind>Trainer`` of ``trl.experimental.<kind>``."""

    Settings = ExperimentalSettings
    consumes = frozenset({"preferences"})
    kind: ClassVar[str]

    @classmethod
    def unavailable(cls) -> str:
        """Looks for the trainer's folder and imports nothing."""
        found = importlib.util.find_spec("trl")
        places = (found and found.submodule_search_locations) or []
        if any((Path(place) / "experimental" / cls.kind.lower()).is_dir() for place in places):
            return ""
        return (
            f"the installed TRL has no {cls.kind}Trainer, which is experimental there and was in 1.16: "
            "install trl==1.16.0, or leave this algorithm out"
        )

    @abstractmethod
    def trainer_settings(self) -> dict[str, Any]:
        """What the trainer's configuration has of the settings, by TRL's names."""

    def train(self, context: TrainContext) -> None:
        """Train until the budget is spent. Raises ``Incompatible`` where TRL has no such trainer."""
        config, trainer_class = self._imported()
        trainer = trainer_class(
            model=context.policy,
            args=config(
                **context.trainer_arguments(
                    learning_rate=self.settings.learning_rate,
                    per_device_train_batch_size=self.settings.batch,
                    max_length=context.max_tokens,
                    **self.trainer_settings(),
                )
            ),
            train_dataset=context.preferences.select(range(1)),
            processing_class=context.tokenizer,
            callbacks=context.callbacks,
            optimizers=(context.optimizer(self.settings.learning_rate), None),
        )
        # TRL tokenises text itself; it trains on the cell's own tokens.
        trainer.train_dataset = context.preferences.map(labelled, remove_columns=context.preferences.column_names)
        trainer.train(resume_from_checkpoint=context.checkpoint)

    def _imported(self) -> tuple[Any, Any]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TRL says that it is experimental; so do we
                module = importlib.import_module(f"trl.experimental.{self.kind.lower()}")
                return getattr(module, f"{self.kind}Config"), getattr(module, f"{self.kind}Trainer")
        except (ImportError, AttributeError) as error:
            raise Incompatible(self.unavailable() or f"TRL's {self.kind}Trainer cannot be used: {error}") from error


def labelled(pair: dict[str, Any]) -> dict[str, list[int]]:
    """A pair's two whole sequences with their labels, -100 on the prompt: the columns of TRL's older collator."""
    columns = {}
    for side in ("chosen", "rejected"):
        prompt, completion = pair["prompt_ids"], pair[f"{side}_ids"]
        columns[f"{side}_input_ids"] = prompt + completion
        columns[f"{side}_attention_mask"] = [1] * len(prompt + completion)
        columns[f"{side}_labels"] = [-100] * len(prompt) + completion
    return columns
