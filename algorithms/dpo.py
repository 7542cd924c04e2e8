"""DPO: fit the policy to preference pairs without a reward model (arXiv:2305.18290); its relatives are presets.

TRL's ``DPOTrainer`` on the cell's tokenised pairs. Differs from TRL's defaults: learning rate for LoRA, no
gradient checkpointing. The reference is the policy's starting point: the base, or a frozen copy of the warm start.

TRL 1.x reads ``label_smoothing`` in some losses and passes over it in silence in others, the sigmoid among them. Here
``label_noise`` with a loss that has none is an error, and conservative DPO is ``cdpo``, made of two losses of TRL's.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field, model_validator

from bakeoff.contracts import Algorithm, PluginSettings, Preset, TrainContext

Loss = Literal[
    "sigmoid", "hinge", "ipo", "robust", "cdpo", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sigmoid_norm", "sft",
]  # fmt: skip

NOISE_AWARE = frozenset({"cdpo", "robust", "exo_pair", "aot", "aot_unpaired"})
"""Losses that ``label_noise`` is a part of."""
SORTED = frozenset({"aot", "aot_unpaired"})
"""Losses that compare order statistics of a batch, so that no weight belongs to a pair."""
UNWEIGHTED = frozenset({"hinge", "sft"})
"""Losses whose backward pass TRL's weighting breaks: it multiplies in place what autograd still needs."""
DIVERGENT = frozenset({"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "cdpo", "discopop", "sft"})
"""Losses that TRL has for other divergences than the reverse KL: functions of the pair's margin."""


class DPOSettings(PluginSettings):
    """Settings of ``dpo``."""

    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak; follows the matrix's schedule. Full fine-tuning uses 1e-6 (paper, App. B); LoRA ten to a hundred
    times that."""
    batch: int = Field(default=8, ge=1)
    """Pairs an optimizer step. 8 is the default of HF's Trainer; the paper has 64 (App. B)."""
    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull to the reference; smaller moves further. 0.01 to 0.5 (paper: 0.1)."""
    loss: Loss | Annotated[dict[Loss, float], Field(min_length=1)] = "sigmoid"
    """``cdpo`` or one of TRL's by TRL's name; or several, each with its weight: ``{sigmoid: 1, sft: 0.5}``. ``sft`` is
    the chosen completions' negative log-likelihood a token. ``sigmoid`` is the paper's."""
    label_noise: float = Field(default=0.0, ge=0, lt=0.5)
    """Rate at which labels are taken to be wrong; with the losses cdpo, robust, exo_pair, aot and aot_unpaired only.
    0.1 (robust, arXiv:2403.00409, §6) or 0.001 (exo_pair, which needs one). 0 is off."""
    divergence: Literal["reverse_kl", "forward_kl", "js_divergence"] = "reverse_kl"
    """What keeps the policy near the reference (f-DPO, arXiv:2309.16240); DPO's paper has the reverse KL."""
    weighting: bool = False
    """Whether a pair counts as much as the policy would write it (WPO, arXiv:2406.11827, Eq. 2); not with the losses
    hinge and sft, which TRL 1.16 cannot weigh."""
    tail_weight: float = Field(default=1.0, ge=0, le=1)
    """Weight of a completion's tokens beyond the length of the pair's shorter one (LD-DPO, arXiv:2409.06411).
    1 is off."""
    discopop_tau: float = Field(default=0.05, gt=0)
    """Temperature of ``discopop``'s blend (arXiv:2406.08414, Eq. 5)."""

    @property
    def losses(self) -> dict[str, float]:
        """The losses of ``loss`` with their weights."""
        return {self.loss: 1.0} if isinstance(self.loss, str) else dict[str, float](self.loss.items())

    @model_validator(mode="after")
    def _losses_take_what_is_set(self) -> DPOSettings:
        names = set(self.losses)
        if self.label_noise and not names & NOISE_AWARE:
            raise ValueError(
                f"label_noise has no effect on {', '.join(sorted(names))}: the loss for wrong labels is cdpo or robust"
            )
        if "exo_pair" in names and not self.label_noise:
            raise ValueError("exo_pair needs a label_noise above 0: the paper has 0.001")
        # Not by what was given: settings come back complete, from a cell's record.
        if self.discopop_tau != type(self).model_fields["discopop_tau"].default and "discopop" not in names:
            raise ValueError(f"discopop_tau has no effect on {', '.join(sorted(names))}")
        if self.weighting and names & SORTED:
            raise ValueError(f"weighting is of pairs, and {', '.join(sorted(names & SORTED))} sorts a batch's")
        if self.weighting and names & UNWEIGHTED:
            raise ValueError(f"TRL cannot weigh {', '.join(sorted(names & UNWEIGHTED))}: its backward pass fails")
        if self.divergence != "reverse_kl" and names - DIVERGENT:
            raise ValueError(f"{', '.join(sorted(names - DIVERGENT))} exists for the reverse KL only")
        return self

    def trl_losses(self) -> dict[str, float]:
        """TRL's names of losses with their weights, in which ``cdpo`` is written by two others.

        With l(u) = -log sigma(u) and label noise e, TRL's robust loss is [(1 - e) l(u) - e l(-u)] / (1 - 2e). So
        (1 - e) l(u) + e l(-u) = 2 (1 - e) sigmoid - (1 - 2e) robust, without an approximation.
        """
        weights: dict[str, float] = {}
        noise = self.label_noise
        for name, weight in self.losses.items():
            parts = {"sigmoid": 2 * (1 - noise), "robust": 2 * noise - 1} if name == "cdpo" else {name: 1.0}
            for part, share in parts.items():
                weights[part] = weights.get(part, 0.0) + weight * share
        return weights


class DPO(Algorithm):
    """Direct Preference Optimization, the sigmoid loss of Eq. 7."""

    title = "Direct Preference Optimization"
    paper = "Rafailov et al. 2023, arXiv:2305.18290"
    Settings = DPOSettings
    settings: DPOSettings
    consumes = frozenset({"preferences"})
    trained_by = "TRL's DPOTrainer"

    presets = MappingProxyType(
        {
            "ipo": Preset(
                "Identity Preference Optimization",
                "Azar et al. 2023, arXiv:2310.12036",
                {"loss": "ipo"},
                "Log-ratios are divided by the completion's length, which the authors confirmed to TRL; the formula in "
                "the paper has sums.",
            ),
            "hinge": Preset(
                "Sequence Likelihood Calibration's hinge",
                "Zhao et al. 2023, arXiv:2305.10425",
                {"loss": "hinge"},
                "The margin is of log-ratios to the reference, as in RSO (arXiv:2309.06657); the paper's is of "
                "log-likelihoods, with a likelihood term beside it.",
            ),
            "robust": Preset(
                "Provably Robust DPO",
                "Chowdhury et al. 2024, arXiv:2403.00409",
                {"loss": "robust", "label_noise": 0.1, "beta": 0.01},
            ),
            "cdpo": Preset(
                "Conservative DPO",
                "Mitchell 2023, A note on DPO with noisy preferences and relationship to IPO",
                {"loss": "cdpo", "label_noise": 0.1},
                "TRL 1.x has no such loss: it is made of the sigmoid's and the robust one's, which gives the same.",
            ),
            "rpo": Preset(
                "Iterative Reasoning Preference Optimization's loss",
                "Pang et al. 2024, arXiv:2404.19733",
                {"loss": {"sigmoid": 1.0, "sft": 1.0}},
                "One round on the pairs that there are. The likelihood is the mean over all tokens of a step, not of "
                "each completion first.",
            ),
            "mpo": Preset(
                "Mixed Preference Optimization",
                "Wang et al. 2024, arXiv:2411.10442",
                {"loss": {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}},
                "The BCO term has no running shift of the reward.",
            ),
            "exo": Preset(
                "Efficient Exact Optimization",
                "Ji et al. 2024, arXiv:2402.00856",
                {"loss": "exo_pair", "label_noise": 1e-3},
            ),
            "nca": Preset(
                "Noise Contrastive Alignment",
                "Chen et al. 2024, arXiv:2402.05369",
                {"loss": "nca_pair", "beta": 0.01},
            ),
            "bco": Preset(
                "Binary Classifier Optimization",
                "Jung et al. 2024, arXiv:2404.04656",
                {"loss": "bco_pair", "beta": 0.01},
                "On pairs, without the paper's shift of the reward and its weights for unequal prompts.",
            ),
            "sppo": Preset(
                "Self-Play Preference Optimization with hard labels",
                "Wu et al. 2024, arXiv:2405.00675",
                {"loss": "sppo_hard", "beta": 1e-3},
                "No self-play: the pairs that there are, each won for certain. The paper samples anew each round and "
                "takes the probability from a preference model.",
            ),
            "aot": Preset(
                "Alignment via Optimal Transport, paired",
                "Melnyk et al. 2024, arXiv:2406.05882",
                {"loss": "aot"},
                "Sorted are the pairs of an optimizer step; with a batch of one it is DPO.",
            ),
            "aot_unpaired": Preset(
                "Alignment via Optimal Transport, unpaired",
                "Melnyk et al. 2024, arXiv:2406.05882",
                {"loss": "aot_unpaired"},
                "Sorted are the completions of an optimizer step, each kind by itself.",
            ),
            "apo_zero": Preset(
                "Anchored Preference Optimization, zero",
                "D'Oosterlinck et al. 2024, arXiv:2408.06266",
                {"loss": "apo_zero"},
            ),
            "apo_down": Preset(
                "Anchored Preference Optimization, down",
                "D'Oosterlinck et al. 2024, arXiv:2408.06266",
                {"loss": "apo_down"},
            ),
            "discopop": Preset(
                "Discovered Preference Optimization",
                "Lu et al. 2024, arXiv:2406.08414",
                {"loss": "discopop", "beta": 0.05},
            ),
            "sigmoid_norm": Preset(
                "Length-normalised DPO",
                "Lambert et al. 2024, Tülu 3, arXiv:2411.15124",
                {"loss": "sigmoid_norm", "beta": 5.0},
            ),
            "forward_kl": Preset(
                "f-DPO under the forward KL",
                "Wang et al. 2023, arXiv:2309.16240",
                {"divergence": "forward_kl"},
            ),
            "js": Preset(
                "f-DPO under the Jensen-Shannon divergence",
                "Wang et al. 2023, arXiv:2309.16240",
                {"divergence": "js_divergence"},
            ),
            "wpo": Preset(
                "Weighted Preference Optimization",
                "Zhou et al. 2024, arXiv:2406.11827",
                {"weighting": True, "beta": 0.01},
            ),
            "ld": Preset(
                "Length-Desensitised DPO",
                "Liu et al. 2024, arXiv:2409.06411",
                {"tail_weight": 0.5},
                "The paper tunes the weight by model; 0.5 is the middle of its range.",
            ),
        }
    )

    def train(self, context: TrainContext) -> None:
        """Train until the budget is spent."""
        from trl import DPOConfig, DPOTrainer

        settings = self.settings
        losses = settings.trl_losses()
        trainer = DPOTrainer(
            model=context.policy,
            args=DPOConfig(
                **context.trainer_arguments(
                    learning_rate=settings.learning_rate,
                    per_device_train_batch_size=settings.batch,
                    beta=settings.beta,
                    loss_type=list(losses),
                    loss_weights=list(losses.values()),
                    label_smoothing=settings.label_noise,
                    f_divergence_type=settings.divergence,
                    use_weighting=settings.weighting,
                    ld_alpha=None if settings.tail_weight == 1 else settings.tail_weight,
                    discopop_tau=settings.discopop_tau,
                    max_length=None,  # rows that are too long were left out for all algorithms alike
                )
            ),
            train_dataset=context.preferences.select(range(1)),
            processing_class=context.tokenizer,
            callbacks=context.callbacks,
            optimizers=(context.optimizer(settings.learning_rate), None),
        )
        # TRL tokenises text itself and appends EOS to completions that were cut off, too. Train on the
        # cell's own tokens, which every algorithm is given alike.
        trainer.train_dataset = context.preferences.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"])
        trainer.train(resume_from_checkpoint=context.checkpoint)
