"""SFT: fit the policy to demonstrations by maximum likelihood.

TRL's ``SFTTrainer`` on the cell's tokenised rows, so that it trains on the tokens that every other algorithm
sees; the loss is on the completion only (labels are -100 on the prompt). Differs from TRL's defaults:
learning rate for LoRA, no gradient checkpointing.
"""

from pydantic import Field

from bakeoff.contracts import Algorithm, PluginSettings, TrainContext


class SFTSettings(PluginSettings):
    """Settings of ``sft``."""

    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak; decays linearly over the budget. TRL's 2e-5 is for full fine-tuning, LoRA wants about ten times that
    (Schulman et al., "LoRA Without Regret", 2025)."""
    batch: int = Field(default=16, ge=1)
    """Demonstrations an optimizer step."""


class SFT(Algorithm):
    """Supervised fine-tuning on demonstrations."""

    title = "Supervised Fine-Tuning"
    paper = "Ouyang et al. 2022, arXiv:2203.02155, §3.5"
    Settings = SFTSettings
    consumes = frozenset({"demonstrations"})

    def train(self, context: TrainContext) -> None:
        """Train until the budget is spent."""
        from trl import SFTConfig, SFTTrainer

        trainer = SFTTrainer(
            model=context.policy,
            args=SFTConfig(
                **context.trainer_arguments(
                    learning_rate=self.settings.learning_rate,
                    per_device_train_batch_size=self.settings.batch,
                    max_length=None,  # rows that are too long were left out for all algorithms alike
                )
            ),
            train_dataset=context.demonstrations.select_columns(["input_ids", "labels"]),
            processing_class=context.tokenizer,
            callbacks=context.callbacks,
            optimizers=(context.optimizer(self.settings.learning_rate), None),
        )
        trainer.train(resume_from_checkpoint=context.checkpoint)
