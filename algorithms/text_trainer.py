"""``transformers.Trainer`` with the loss of a ``TextAlgorithm``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer, TrainingArguments

from bakeoff.seeds import derive_seed

if TYPE_CHECKING:
    from bakeoff.contracts import TrainContext

    from .text import TextAlgorithm


class TextTrainer(Trainer):
    """Trains the policy of a ``TrainContext`` on its text until the budget is spent."""

    def __init__(self, algorithm: TextAlgorithm, context: TrainContext) -> None:
        self.algorithm = algorithm
        self.context = context
        sequences = algorithm.sequences(context)
        rate, batch = algorithm.settings.learning_rate, algorithm.settings.batch
        super().__init__(
            model=context.policy,
            args=TrainingArguments(
                **context.trainer_arguments(
                    learning_rate=rate,
                    per_device_train_batch_size=min(batch, len(sequences)),
                    # Every step is of a full batch: what an epoch leaves over comes up in another one.
                    dataloader_drop_last=True,
                )
            ),
            train_dataset=sequences,  # type: ignore[arg-type]  # a list of lists is a map-style dataset
            data_collator=self._pad,
            callbacks=context.callbacks,
            optimizers=(context.optimizer(rate), None),
        )

    def _pad(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        pad: Any = self.context.tokenizer.pad_token_id
        tensors = [torch.tensor(row) for row in rows]
        return {
            "ids": pad_sequence(tensors, batch_first=True, padding_value=pad),
            "mask": pad_sequence([torch.ones_like(row) for row in tensors], batch_first=True),
        }

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The algorithm's loss, with the draws of this step."""
        generator = torch.Generator().manual_seed(derive_seed(self.context.seed, "text", self.state.global_step))
        return self.algorithm.loss(self.context, inputs["ids"], inputs["mask"], generator)
