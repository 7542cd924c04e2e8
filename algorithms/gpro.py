"""GPRO: PPO's clipped trust region joined with a direct preference term under a trust region of its own.

"Generalized Preference-based Reinforcement Optimization" is this project's composition: no paper proposes this exact
sum. What it composes: PPO (arXiv:1707.06347), DPO and its Plackett-Luce form (arXiv:2305.18290, Eq. 7 and App. A.3),
soft targets from scores (arXiv:2406.11704, RPO), a likelihood term on the better side (arXiv:2404.19733), pairs of
offline and own samples mixed (arXiv:2505.02363), a weight that shifts over training (arXiv:2508.11408, CHORD), and
clipping applied to pairs (arXiv:2310.00212, P3O).

With the implicit reward s(y) = beta_p [log pi(y|x) - log pi_ref(y|x)], the margin u of two completions, its value u_old
under the policy that sampled, and l(u) = -[p log sigma(u) + (1 - p) log sigma(-u)] with target p:

    L_pref = max( l(u), l(u_old + clip(u - u_old, -eps_p, eps_p)) )
    L      = (1 - mu) L_PPO + mu [ mean L_pref + alpha NLL(better) / |better| ]      (the value has its own loss)

The ``max`` is PPO's pessimism on the quantity that DPO optimises: within one rollout's updates a pair that has moved
by eps_p in its favour has no gradient left, where DPO's would persist while PPO's is clipped. Degenerate settings are
known algorithms: mu = 0 is PPO; mu = 1 without a clip is DPO; a ranking of two is a pair.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from bakeoff import objectives
from bakeoff.contracts import Preset
from bakeoff.on_policy import Rollout
from bakeoff.preference_losses import logistic_loss, plackett_luce, score_targets

from .ppo import PPO, PPOSettings

if TYPE_CHECKING:
    from torch import Tensor

    from bakeoff.contracts import TrainContext


class GPROSettings(PPOSettings):
    """Settings of ``gpro``: PPO's, and those of the preference term."""

    prompts_per_rollout: int = Field(default=16, ge=1)
    """Distinct prompts sampled before each round of updates. This project's choice, small for small machines."""
    group: int = Field(default=2, ge=1)
    """Completions a prompt; pairs and rankings of own samples need two or more. This project's choice, the
    fewest that make a pair."""
    mu_start: float = Field(default=0.5, ge=0, le=1)
    """Weight of the preference term at the start, against PPO's 1 - mu. 0 is PPO, 1 is preferences alone.
    This project's choice: both count alike at first."""
    mu_end: float = Field(default=0.1, ge=0, le=1)
    """... and when the budget is spent; linear in between. Less at the end is CHORD's idea (arXiv:2508.11408),
    the number this project's choice."""
    preference_beta: float = Field(default=0.1, gt=0)
    """beta_p: strength of the preference term's pull to the reference (DPO: 0.1)."""
    preference_clip: float | None = Field(default=0.5, gt=0)
    """eps_p: how far a margin may move in one rollout's updates, in nats times beta_p; None is no trust region.
    0.2 to 2; 0.5 is this project's choice, a guess."""
    own_share: float = Field(default=0.0, ge=0, le=1)
    """Weight of preferences among the policy's own samples, ranked by the reward, against offline pairs'. 0 is
    this project's choice: the reward has PPO's term already."""
    offline_pairs: int = Field(default=16, ge=1)
    """Offline pairs a rollout, unless ``own_share`` is 1. This project's choice, as many as prompts."""
    own_target: Literal["pairs", "scores", "ranking"] = "pairs"
    """What rewards say of own samples: which is better (ties 1/2); by how much, p = sigma(gap / std) (RPO); or
    their order, by Plackett-Luce. Pairs are DPO's (arXiv:2305.18290, Eq. 7)."""
    label_noise: float = Field(default=0.0, ge=0, lt=0.5)
    """Rate at which offline labels are wrong: their target is 1 - label_noise (cDPO). 0 is off, as in TRL's DPO."""
    likelihood: float = Field(default=0.0, ge=0)
    """alpha: weight of the better side's negative log-likelihood a token. 0.005 to 1 (arXiv:2404.19733: 1).
    0 is off."""
    length_normalised: bool = False
    """Whether s(y) is divided by the number of tokens; not in DPO's paper (arXiv:2305.18290)."""

    @model_validator(mode="after")
    def _own_samples_have_rivals(self) -> GPROSettings:
        if self.own_share > 0 and self.group < 2:
            raise ValueError("own_share needs a group of two or more completions a prompt")
        if self.own_share == 0 and self.own_target != "pairs":
            raise ValueError("own_target says how own samples are compared: give them an own_share")
        if self.own_share > 0 and self.minibatches > self.prompts_per_rollout:
            raise ValueError("own_share needs whole groups: minibatches must not exceed prompts_per_rollout")
        return self


class GPRO(PPO):
    """PPO's loss and a clipped preference loss on offline pairs and own samples."""

    title = "Generalized Preference-based Reinforcement Optimization"
    paper = "this project's composition of PPO, arXiv:1707.06347, and DPO, arXiv:2305.18290; unpublished"
    Settings = GPROSettings
    settings: GPROSettings
    consumes = frozenset({"prompts", "reward", "preferences"})

    presets = MappingProxyType(
        {
            "ppo_only": Preset("GPRO without preferences: PPO", paper, {"mu_start": 0.0, "mu_end": 0.0}),
            "preferences_only": Preset("GPRO without PPO's loss", paper, {"mu_start": 1.0, "mu_end": 1.0}),
            "unclipped": Preset("GPRO without the preference term's trust region", paper, {"preference_clip": None}),
            "own_pairs": Preset("GPRO on pairs of its own samples", paper, {"own_share": 1.0}),
        }
    )

    def __init__(self, settings: GPROSettings | None = None) -> None:
        super().__init__(settings)
        self.loss_over_groups = self._uses_own
        self.needs_reference = self.needs_reference or self._uses_own

    @property
    def _uses_own(self) -> bool:
        """Whether the policy's own samples are compared with each other."""
        return self.settings.own_share > 0 and max(self.settings.mu_start, self.settings.mu_end) > 0

    def mu(self, fraction: float) -> float:
        """Weight of the preference term when this share of the budget is spent."""
        start, end = self.settings.mu_start, self.settings.mu_end
        return start + (end - start) * min(1.0, fraction)

    def companions(self, context: TrainContext, rollout: Rollout) -> Rollout | None:
        """The next offline pairs: chosen, rejected, chosen, ...; none where the loss leaves them out."""
        import torch

        from bakeoff.rollout import Sequences
        from bakeoff.seeds import in_turn

        if self.mu(rollout.fraction) == 0 or self.settings.own_share == 1:
            return None
        count, rows = self.settings.offline_pairs, context.preferences
        chosen = [rows[i] for i in in_turn(context.seed, "pairs", rollout.number, count, len(rows))]
        device = rollout.rewards.device
        return Rollout(
            Sequences.pack(
                [row["prompt_ids"] for row in chosen for _ in range(2)],
                [ids for row in chosen for ids in (row["chosen_ids"], row["rejected_ids"])],
                pad=context.tokenizer.pad_token_id,
                device=device,
            ),
            rewards=torch.tensor([1.0, 0.0] * count, device=device),
            ended_eos=torch.ones(2 * count, dtype=torch.bool, device=device),
            number=rollout.number,
            fraction=rollout.fraction,
        )

    def advantages(self, rollout: Rollout) -> Tensor:
        """PPO's."""
        spread = rollout.rewards.std().item() if len(rollout) > 1 else 0.0
        self.score_scale = 1.0 / max(spread, 1e-6)
        return super().advantages(rollout)

    def policy_loss(self, batch: Rollout, logps: Tensor) -> Tensor:
        """(1 - mu) of PPO's loss, and mu x own_share of the preferences among own samples."""
        settings, mu = self.settings, self.mu(batch.fraction)
        loss = (1 - mu) * super().policy_loss(batch, logps)
        weight = mu * settings.own_share
        if weight == 0:
            return loss
        scores, old_scores = self._scores(batch, logps, settings.group)
        rewards = batch.rewards.view(-1, settings.group)
        if settings.own_target == "ranking":
            own = ranking_loss(scores, old_scores, rewards, clip=settings.preference_clip)
        else:
            gaps = pairwise(rewards)
            is_soft = settings.own_target == "scores"
            targets = score_targets(gaps, scale=self.score_scale) if is_soft else (gaps.sign() + 1) / 2
            own = pair_loss(scores, old_scores, targets, clip=settings.preference_clip)
        return loss + weight * self._preferences(batch, logps, own)

    def companion_loss(self, batch: Rollout, logps: Tensor) -> Tensor:
        """mu x (1 - own_share) of the preferences of offline pairs."""
        scores, old_scores = self._scores(batch, logps, 2)
        targets = scores.new_full((len(scores), 1), 1 - self.settings.label_noise)
        offline = pair_loss(scores, old_scores, targets, clip=self.settings.preference_clip)
        weight = self.mu(batch.fraction) * (1 - self.settings.own_share)
        return weight * self._preferences(batch, logps, offline)

    def _scores(self, batch: Rollout, logps: Tensor, group: int) -> tuple[Tensor, Tensor]:
        """The implicit reward s(y) now and under the policy that sampled, both (prompts, group)."""
        old_logps, reference_logps = batch.old_logps, batch.reference_logps
        assert old_logps is not None and reference_logps is not None

        def score(of: Tensor) -> Tensor:
            log_ratio = ((of - reference_logps) * batch.mask).sum(1)
            if self.settings.length_normalised:
                log_ratio = log_ratio / batch.mask.sum(1).clamp(min=1)
            return self.settings.preference_beta * log_ratio.view(-1, group)

        return score(logps), score(old_logps)

    def _preferences(self, batch: Rollout, logps: Tensor, losses: Tensor) -> Tensor:
        """Mean over the step's prompts of their ``losses`` and of alpha NLL / |y| of their best; a scalar share."""
        group = len(batch) // len(losses)
        if self.settings.likelihood:
            best = batch.rewards.view(-1, group).argmax(1, keepdim=True)
            nll = -objectives.sequence_mean(logps, batch.mask).view(-1, group)
            losses = losses + self.settings.likelihood * nll.gather(1, best).squeeze(1)
        return batch.mean(losses) * group  # mean() divides by sequences, of which a prompt has `group`


def pairwise(values: Tensor) -> Tensor:
    """Differences of all pairs i < j of each row, (N, K) to (N, K (K - 1) / 2)."""
    first, second = values.new_ones(values.shape[1], values.shape[1]).triu(1).nonzero(as_tuple=True)
    return values[:, first] - values[:, second]


def clipped_loss(loss: Callable[[Tensor], Tensor], current: Tensor, old: Tensor, clip: float | None) -> Tensor:
    """max(loss(current), loss(old + clip(current - old))): no gradient beyond a gain of ``clip``; None is no clip."""
    if clip is None:
        return loss(current)
    return loss(current).maximum(loss(old + (current - old).clamp(-clip, clip)))


def pair_loss(scores: Tensor, old_scores: Tensor, targets: Tensor, *, clip: float | None) -> Tensor:
    """Mean of L_pref over the pairs i < j of each row of scores (N, K), with targets as ``pairwise``; (N,)."""
    margins, old_margins = pairwise(scores), pairwise(old_scores)
    return clipped_loss(lambda u: logistic_loss(u, targets), margins, old_margins, clip).mean(1)


def ranking_loss(scores: Tensor, old_scores: Tensor, rewards: Tensor, *, clip: float | None) -> Tensor:
    """-log Plackett-Luce of the order of ``rewards`` under scores (N, K), ties averaged; (N,).

    The clip is on each score relative to its row's mean, since a shift of all changes nothing.
    """
    import torch

    def loss(rows: Tensor) -> Tensor:
        return -torch.stack([plackett_luce(row, order) for row, order in zip(rows, rewards, strict=True)])

    centred, old_centred = (each - each.mean(1, keepdim=True) for each in (scores, old_scores))
    return clipped_loss(loss, centred, old_centred, clip)
