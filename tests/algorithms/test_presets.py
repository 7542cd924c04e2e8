"""Every preset of every algorithm that bakeoff brings: it trains, and begins where the paper's formula says.

At the start the policy is its reference, so that a loss of their log-ratios alone is a number known beforehand. Others
are worked out from the toy's own logits, or from what it sampled and what that was paid.
"""

import math
from importlib.metadata import distribution
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from bakeoff import registry
from bakeoff.identity import plain
from bakeoff.reward_model import RewardModel

OURS = sorted(point.name for point in distribution("bakeoff").entry_points if point.group == "bakeoff.algorithms")
PRESETS = [(name, preset) for name in OURS for preset in registry.load("algorithm", name).presets]
SMALL = {"group": 4, "prompts_per_rollout": 2, "offline_pairs": 4}
"""In the place of a paper's sizes, where an algorithm has such a setting."""

LOG_2 = math.log(2)
AT_THE_START = {
    "dpo": LOG_2,
    # (0 - 1 / (2 beta))^2, beta 0.1
    "dpo:ipo": 25.0,
    "dpo:hinge": 1.0,
    # [(1 - e) log 2 - e log 2] / (1 - 2e)
    "dpo:robust": LOG_2,
    "dpo:cdpo": LOG_2,
    # KL(1/2, 1/2 || 1 - e, e), e 0.001
    "dpo:exo": -LOG_2 - math.log(1e-3 * (1 - 1e-3)) / 2,
    "dpo:nca": 2 * LOG_2,
    "dpo:bco": 2 * LOG_2,
    # 2 (1 / (2 beta))^2, beta 0.001
    "dpo:sppo": 5e5,
    "dpo:aot": LOG_2,
    "dpo:aot_unpaired": LOG_2,
    "dpo:apo_zero": 1.0,
    "dpo:apo_down": 1.0,
    # half logistic, half exponential
    "dpo:discopop": (LOG_2 + 1) / 2,
    "dpo:sigmoid_norm": LOG_2,
    "dpo:forward_kl": LOG_2,
    "dpo:js": LOG_2,
    "dpo:ld": LOG_2,
    "kto": 0.5,
    "kto:apo_zero_unpaired": 0.5,
    # Every ratio is 1 and the KL 0: what is left is the mean advantage, of sequences or of whitened tokens
    "grpo:paper": 0.0,
    "grpo:gspo": 0.0,
    "trl-grpo:paper": 0.0,
    "trl-grpo:gspo": 0.0,
    "rloo": 0.0,
    "trl-rloo": 0.0,
    "reinforce++": 0.0,
    "reinforce++:baseline": 0.0,
    "ppo": 0.0,
    # mu times log 2: a pair under a policy that cannot tell it apart, or a tie
    "gpro": 0.5 * LOG_2,
    "gpro:ppo_only": 0.0,
    "gpro:preferences_only": LOG_2,
    "gpro:unclipped": 0.5 * LOG_2,
    "gpro:own_pairs": 0.5 * LOG_2,
    # A head of zeros says 0 to both sides, whose scores are 1 and 0
    "reward-model:bradley-terry": LOG_2,
    "reward-model:bradley-terry-margin": math.log(1 + math.e),
    "reward-model:hinge": 1.0,
    "reward-model:label-smoothed": LOG_2,
    "reward-model:noise-corrected": LOG_2,
    "reward-model:soft": LOG_2,
    "reward-model:plackett-luce": LOG_2,
    "reward-model:pointwise": 0.5,
}
"""The loss of the first step, by hand."""


PUBLISHED = [":".join(each) for each in PRESETS]


@pytest.fixture
def two_steps(make_roles, make_context, tokenizer):
    """``two_steps("dpo:ipo")``: what is logged as loss at each of two steps on the toy."""

    def run(name, roles=None, **given_context):
        algorithm, _, preset = name.partition(":")
        plugin = registry.load("algorithm", algorithm)
        given = dict(registry.preset("algorithm", algorithm, preset).settings) if preset else {}
        small = {key: value for key, value in SMALL.items() if key in plugin.Settings.model_fields}
        context = make_context(roles or make_roles(), budget={"steps": 2}, **given_context)
        if plugin.role == "reward":
            context.reward_model = RewardModel(context.roles, tokenizer, max_new_tokens=8)
            context.rankings = [
                {
                    "id": row["id"],
                    "prompt_ids": row["prompt_ids"],
                    "completion_ids": [row["chosen_ids"], row["rejected_ids"]],
                    "scores": [1.0, 0.0],
                }
                for row in context.preferences
            ]
        plugin(plugin.Settings(**given | small)).train(context)
        return [line["loss"] for line in context.lines if "loss" in line]

    return run


@pytest.mark.parametrize("name", dict.fromkeys([*AT_THE_START, *PUBLISHED]))
def test_a_preset_trains_from_where_its_formula_says(name, two_steps):
    """Two steps on the toy: a loss that is a number at each, and at the first the one worked out by hand."""
    losses = two_steps(name)
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    if name in AT_THE_START:
        assert losses[0] == pytest.approx(AT_THE_START[name], rel=1e-4, abs=1e-6)


def test_every_preset_begins_at_a_number_worked_out_by_hand():
    """But the one whose loss begins with noise; so no new one is forgotten."""
    assert set(PUBLISHED) - set(AT_THE_START) - set(LIKELIHOODS) - set(ROLLOUTS) == {"sft:neftune"}


LIKELIHOODS = {
    # log 2 and the likelihood; 0.8 log 2 + 0.2 x 2 log 2 and the likelihood
    "dpo:rpo": lambda of: LOG_2 + of.nll,
    "dpo:mpo": lambda of: 1.2 * LOG_2 + of.nll,
    # weights are exp(mean of log p - log sum p^2), of both sides
    "dpo:wpo": lambda of: (of.chosen.weight * of.rejected.weight * LOG_2).mean(),
    "cpo": lambda of: of.nll - F.logsigmoid(0.1 * (of.chosen.total - of.rejected.total)).mean(),
    "cpo:simpo": lambda of: -F.logsigmoid(2.5 * (of.chosen.mean - of.rejected.mean) - 1.375).mean(),
    "cpo:alpha_po": lambda of: -F.logsigmoid(2.5 * (of.chosen.power(0.25) - of.rejected.power(0.25)) - 0.1).mean(),
    "orpo": lambda of: of.whole_nll - 0.1 * F.logsigmoid(of.chosen.log_odds - of.rejected.log_odds).mean(),
    # the demonstrations are the chosen sides
    "sft": lambda of: of.nll,
    "sft-chosen": lambda of: of.nll,
    "sft:dft": lambda of: -(torch.cat(of.chosen.tokens).exp() * torch.cat(of.chosen.tokens)).mean(),
}
"""The loss of the first step, from the likelihoods of the eight pairs."""


class Side:
    """One side's log-likelihoods: of completions, their totals and means a token (8,); of all tokens but the first."""

    def __init__(self, roles, rows, kind):
        prompts, completions = [row["prompt_ids"] for row in rows], [row[f"{kind}_ids"] for row in rows]
        lengths = [(len(prompt), len(completion)) for prompt, completion in zip(prompts, completions, strict=True)]
        tokens, weights = [], []
        with torch.no_grad():
            for prompt, completion in zip(prompts, completions, strict=True):
                ids = torch.tensor([prompt + completion])
                logps = roles.causal_lm(ids).logits[0, :-1].log_softmax(-1)
                tokens.append(logps.gather(1, ids[0, 1:, None]).squeeze(1))
                weights.append((tokens[-1] - (2 * logps).logsumexp(-1))[len(prompt) - 1 :].mean().exp())
        self.tokens = [each[prompt - 1 :] for each, (prompt, _) in zip(tokens, lengths, strict=True)]
        self.whole = torch.cat(tokens)
        self.total = torch.stack([each.sum() for each in self.tokens])
        self.mean = torch.stack([each.mean() for each in self.tokens])
        self.weight = torch.stack(weights)
        self.log_odds = self.mean - (1 - self.mean.exp()).log()

    def power(self, alpha):
        """AlphaPO's reward of the mean probability a token."""
        return (1 - self.mean.exp() ** -alpha) / alpha


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_loss_of_likelihoods_begins_at_the_papers_formula(name, make_roles, make_context, two_steps):
    """Worked out from the toy's own logits, a row at a time."""
    roles = make_roles(noise=0.05)
    rows = list(make_context(roles).preferences)
    chosen, rejected = Side(roles, rows, "chosen"), Side(roles, rows, "rejected")
    nll, whole_nll = -torch.cat(chosen.tokens).mean(), -chosen.whole.mean()
    expected = LIKELIHOODS[name](SimpleNamespace(chosen=chosen, rejected=rejected, nll=nll, whole_nll=whole_nll))
    assert two_steps(name, make_roles(noise=0.05))[0] == pytest.approx(expected.item(), rel=1e-4)


def per_token(advantages, of):
    """The negated mean over all tokens of each completion's advantage."""
    return -(advantages * of.lengths).sum() / of.lengths.sum()


def centred(rewards):
    """Less the mean of each group."""
    return rewards - rewards.mean(1, keepdim=True)


def standardised(rewards):
    """GRPO's advantages."""
    return centred(rewards) / (rewards.std(1, keepdim=True) + 1e-4)


def dapo(of):
    """A fine that rises over the last fifth of the limit; what was cut off counts as tokens without a loss."""
    late = (of.lengths - 0.8 * of.limit) / (0.2 * of.limit)
    return per_token(standardised(of.rewards - late.clamp(0, 1)) * of.ended, of)


BY_ROLLOUT = {
    "grpo": lambda of: per_token(standardised(of.rewards), of),
    "grpo:dr_grpo": lambda of: -(centred(of.rewards) * of.lengths).sum() / (of.lengths.numel() * of.limit),
    "grpo:dapo": dapo,
    "grpo:lite_ppo": lambda of: per_token(centred(of.rewards) / (of.rewards.std() + 1e-4), of),
    "grpo:cispo": lambda of: -(standardised(of.rewards) * of.logps).sum() / of.lengths.sum(),
    "online-dpo": lambda of: LOG_2 * (of.rewards.amax(1) > of.rewards.amin(1)).float().mean(),
}
OF_TRL = {name: f"trl-{name}" for name in ("grpo", "grpo:dr_grpo", "grpo:lite_ppo", "grpo:cispo")}
ROLLOUTS = BY_ROLLOUT | {theirs: BY_ROLLOUT[name] for name, theirs in OF_TRL.items()}
"""The loss of the first step, from the rewards of each group of completions, their lengths and likelihoods."""


@pytest.mark.parametrize("name", ROLLOUTS)
def test_a_loss_of_samples_begins_at_the_papers_formula(name, make_roles, tokenizer, two_steps):
    """Two prompts with four completions each, of which some are cut off; each is paid by its length and first token."""
    roles, limit, rollouts = make_roles(), 8, []
    with torch.no_grad():  # an end is as likely as an "e"
        roles.lm_head.weight[tokenizer.eos_token_id] = roles.lm_head.weight[tokenizer("e")["input_ids"][0]]

    def paid(prompts, completions, completion_ids, **columns):
        rewards = [0.3 * len(ids) + 0.1 * ids[0] for ids in completion_ids]
        if not rollouts:  # the weights are still those of the start
            rollouts.append(measured(list(prompts), completion_ids, rewards))
        return rewards

    def measured(prompts, completions, rewards):
        logps = []
        for prompt, ids in zip(prompts, completions, strict=True):
            before = tokenizer(prompt)["input_ids"]
            with torch.no_grad(), roles.use("reference"):
                logits = roles.causal_lm(torch.tensor([before + list(ids)])).logits[0, len(before) - 1 : -1]
            logps.append(logits.log_softmax(-1).gather(1, torch.tensor(list(ids))[:, None]).sum())
        return SimpleNamespace(
            rewards=torch.tensor(rewards).view(-1, 4),
            lengths=torch.tensor([float(len(ids)) for ids in completions]).view(-1, 4),
            ended=torch.tensor([float(ids[-1] == tokenizer.eos_token_id) for ids in completions]).view(-1, 4),
            logps=torch.stack(logps).view(-1, 4),
            limit=limit,
        )

    loss = two_steps(name, roles, reward=paid, max_new_tokens=limit)[0]
    assert len(set(rollouts[0].lengths.flatten().tolist())) > 1
    assert loss == pytest.approx(ROLLOUTS[name](rollouts[0]).item(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", registry.names("algorithm"))
def test_settings_come_back_from_a_cells_record(name):
    """Defaults and presets, written out in full and read again, are themselves."""
    plugin = registry.load("algorithm", name)
    for given in ({}, *(preset.settings for preset in plugin.presets.values())):
        settings = plugin.Settings(**given)
        assert plugin.Settings.model_validate(plain(settings)) == settings
