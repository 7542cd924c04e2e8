"""Every preset of every algorithm that bakeoff brings: it trains, and begins where the paper's formula says.

At the start the policy is its reference, so that a loss of their log-ratios alone is a number known beforehand. Others
are worked out from the toy's own logits.
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
}
"""The loss of the first step, by hand."""


PUBLISHED = [":".join(each) for each in PRESETS]


@pytest.fixture
def two_steps(make_roles, make_context, tokenizer):
    """``two_steps("dpo:ipo", roles)``: what is logged as loss at each of two steps on the toy."""

    def run(name, roles=None):
        algorithm, _, preset = name.partition(":")
        plugin = registry.load("algorithm", algorithm)
        given = dict(registry.preset("algorithm", algorithm, preset).settings) if preset else {}
        small = {key: value for key, value in SMALL.items() if key in plugin.Settings.model_fields}
        context = make_context(roles or make_roles(noise=0.05), budget={"steps": 2})
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
        assert losses[0] == pytest.approx(AT_THE_START[name], rel=1e-4)


def test_every_variant_of_dpo_has_its_number_or_needs_the_model():
    """Three depend on likelihoods, and are below; so no new one is forgotten."""
    variants = {f"dpo:{preset}" for preset in registry.load("algorithm", "dpo").presets}
    assert variants - set(AT_THE_START) == {"dpo:rpo", "dpo:mpo", "dpo:wpo"}


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
    assert two_steps(name)[0] == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("name", registry.names("algorithm"))
def test_settings_come_back_from_a_cells_record(name):
    """Defaults and presets, written out in full and read again, are themselves."""
    plugin = registry.load("algorithm", name)
    for given in ({}, *(preset.settings for preset in plugin.presets.values())):
        settings = plugin.Settings(**given)
        assert plugin.Settings.model_validate(plain(settings)) == settings
