"""DPO: fit the policy to preference pairs without a reward model (arXiv:2305.18290).

TRL's ``DPOTrainer`` on the cell's tokenised pairs. Differs from TRL's defaults: learning rate for LoRA, no
gradient checkpointing. The reference is the policy's starting point: the base, or a frozen copy of the warm start.
"""

from pydantic import Field

from bakeoff.contracts import Algorithm, PluginSettings, TrainContext


class DPOSettings(PluginSettings):
    """Settings of ``dpo``."""

    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak; follows the matrix's schedule. Full fine-tuning uses 1e-6 (paper, App. B); LoRA ten to a hundred
    times that."""
    batch: int = Field(default=8, ge=1)
    """Pairs an optimizer step."""
    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull to the reference; smaller moves further. 0.01 to 0.5 (paper: 0.1)."""


class DPO(Algorithm):
    """Direct Preference Optimization, the sigmoid loss of Eq. 7."""

    title = "Direct Preference Optimization"
    paper = "Rafailov et al. 2023, arXiv:2305.18290"
    Settings = DPOSettings
    consumes = frozenset({"preferences"})

    def train(self, context: TrainContext) -> None:
        """Train until the budget is spent."""
        from trl import DPOConfig, DPOTrainer

        trainer = DPOTrainer(
            model=context.policy,
            args=DPOConfig(
                **context.trainer_arguments(
                    learning_rate=self.settings.learning_rate,
                    per_device_train_batch_size=self.settings.batch,
                    beta=self.settings.beta,
                    loss_type=["sigmoid"],
                    max_length=None,  # rows that are too long were left out for all algorithms alike
                )
            ),
            train_dataset=context.preferences.select(range(1)),
            processing_class=context.tokenizer,
            callbacks=context.callbacks,
            optimizers=(context.optimizer(self.settings.learning_rate), None),
        )
        # TRL tokenises text itself and appends EOS to completions that were cut off, too. Train on the
        # cell's own tokens, which every algorithm is given alike.
        trainer.train_dataset = context.preferences.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"])
        trainer.train(resume_from_checkpoint=context.checkpoint)
