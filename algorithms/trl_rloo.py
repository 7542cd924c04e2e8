"""RLOO by TRL's own ``RLOOTrainer``: the cross-check of ``rloo``.

Composed through the public constructor. Set to compute what ``rloo`` does: full-vocabulary sampling at temperature 1,
no dropout, KL (k1) in the reward of a completion.
"""

from pydantic import Field

from bakeoff.contracts import Algorithm, PluginSettings, TrainContext

from .trl_grpo import without_bos


class TRLRLOOSettings(PluginSettings):
    """Settings of ``trl-rloo``, named as ``rloo``'s."""

    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak; follows the matrix's schedule."""
    prompts_per_rollout: int = Field(default=8, ge=1)
    """Distinct prompts an optimizer step."""
    group: int = Field(default=4, ge=2)
    """Completions a prompt."""
    beta: float = Field(default=0.05, ge=0)
    """Weight of the KL in the reward."""
    clip_low: float = Field(default=0.2, gt=0)
    """Lower clip of the ratio."""
    clip_high: float = Field(default=0.2, gt=0)
    """Upper clip of the ratio."""
    whiten: bool = False
    """Whether advantages are brought to mean 0 and variance 1."""


class TRLRLOO(Algorithm):
    """TRL's REINFORCE Leave-One-Out."""

    title = "REINFORCE Leave-One-Out (TRL's trainer)"
    paper = "Ahmadian et al. 2024, arXiv:2402.14740"
    Settings = TRLRLOOSettings
    consumes = frozenset({"prompts", "reward"})
    trained_by = "TRL's RLOOTrainer"

    def train(self, context: TrainContext) -> None:
        """Train until the budget is spent."""
        from trl import RLOOConfig, RLOOTrainer

        settings = self.settings
        trainer = RLOOTrainer(
            model=context.policy,
            reward_funcs=[context.reward],  # type: ignore[list-item]  # TRL's alias is invariant in its float | None
            args=RLOOConfig(
                **context.trainer_arguments(
                    learning_rate=settings.learning_rate,
                    per_device_train_batch_size=settings.prompts_per_rollout * settings.group,
                    num_generations=settings.group,
                    max_completion_length=context.max_new_tokens,
                    temperature=1.0,
                    top_p=1.0,
                    top_k=0,
                    beta=settings.beta,
                    epsilon=settings.clip_low,
                    epsilon_high=settings.clip_high,
                    normalize_advantages=settings.whiten,
                    disable_dropout=True,
                )
            ),
            train_dataset=context.prompts.remove_columns(["prompt_ids"]).map(
                without_bos, fn_kwargs={"bos": context.tokenizer.bos_token or ""}
            ),
            processing_class=context.tokenizer,
            callbacks=context.callbacks,
            optimizers=(context.optimizer(settings.learning_rate), None),
        )
        trainer.train(resume_from_checkpoint=context.checkpoint)
