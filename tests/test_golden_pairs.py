"""What DPO's relatives are called here is what TRL 1.16 computed for them, on six frozen pairs: losses and gradients.

``golden/make_trl_family.py`` wrote down TRL's numbers. Against them stand our own losses, where we have them, and else
the formulas of the papers that the presets of ``dpo`` cite. Tolerance: 1e-5 of the value.
"""

import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from bakeoff import registry
from bakeoff.on_policy import Rollout
from bakeoff.preference_losses import hinge_loss, logistic_loss, noise_corrected_loss
from bakeoff.rollout import Sequences

GOLDEN = json.loads((Path(__file__).parent / "golden" / "trl_family.json").read_text())["pairs"]
BETA, NOISE, TAU = GOLDEN["beta"], 0.1, 0.05
LENGTHS = torch.tensor([GOLDEN["chosen_lengths"], GOLDEN["rejected_lengths"]])
REFERENCE = torch.tensor([GOLDEN["reference_chosen_logps"], GOLDEN["reference_rejected_logps"]])
SURE = 1e9
"""Beyond any margin: TRL does not hold them."""


def policy_logps():
    """Of both sides, (2, pairs)."""
    return torch.tensor([GOLDEN["chosen_logps"], GOLDEN["rejected_logps"]], requires_grad=True)


def margins(logps):
    chosen, rejected = logps - REFERENCE
    return BETA * (chosen - rejected)


def gpro_pair(logps):
    """GPRO's preference term with an unbounded trust region and certain labels."""
    from bakeoff.algorithms.gpro import pair_loss

    scores = BETA * (logps - REFERENCE).T
    return pair_loss(scores, torch.zeros_like(scores), torch.ones(len(scores), 1), clip=None)


def exo(logps):
    """Kullback-Leibler divergence of the policy's preference from the smoothed label's, arXiv:2402.00856, Eq. 16."""
    mine = torch.stack([margins(logps), -margins(logps)]).sigmoid()
    theirs = torch.tensor([[1 - NOISE], [NOISE]])
    return (mine * (mine / theirs).log()).sum(0)


def discopop(logps):
    """Logistic and exponential loss, blended by the margin: arXiv:2406.08414, Eq. 5."""
    share = (margins(logps) / TAU).sigmoid()
    return (1 - share) * logistic_loss(margins(logps)) + share * (-margins(logps)).exp()


def sorted_margins(first, second):
    return BETA * (first.sort().values - second.sort().values)


def each(logps):
    """beta times the log-ratios of both sides."""
    return BETA * (logps - REFERENCE)


FORMULAS = {
    "sigmoid": lambda logps: logistic_loss(margins(logps)),
    "hinge": lambda logps: hinge_loss(margins(logps), 1.0),
    "robust": lambda logps: noise_corrected_loss(margins(logps), NOISE, limit=SURE),
    "sigmoid_norm": lambda logps: logistic_loss(BETA * torch.sub(*((logps - REFERENCE) / LENGTHS))),
    # arXiv:2310.12036, Eq. 17, of means over tokens
    "ipo": lambda logps: (torch.sub(*((logps - REFERENCE) / LENGTHS)) - 1 / (2 * BETA)) ** 2,
    "exo_pair": exo,
    # arXiv:2402.05369, the pair's form: both sides count half against a likelihood that falls
    "nca_pair": lambda logps: (
        logistic_loss(each(logps)[0]) + logistic_loss(-each(logps)[0]) / 2 + logistic_loss(-each(logps)[1]) / 2
    ),
    "bco_pair": lambda logps: logistic_loss(each(logps)[0]) + logistic_loss(-each(logps)[1]),
    # arXiv:2405.00675, Eq. 4.7, won with probability 1 and lost with 1
    "sppo_hard": lambda logps: (each(logps)[0] / BETA - 0.5 / BETA) ** 2 + (each(logps)[1] / BETA + 0.5 / BETA) ** 2,
    # arXiv:2408.06266, Eq. 7 and 8, up to a constant
    "apo_zero": lambda logps: 1 - each(logps)[0].sigmoid() + each(logps)[1].sigmoid(),
    "apo_down": lambda logps: each(logps)[0].sigmoid() + 1 - margins(logps).sigmoid(),
    "discopop": discopop,
    "aot": lambda logps: logistic_loss(sorted_margins(torch.sub(*logps), torch.sub(*REFERENCE)), 1 - NOISE),
    "aot_unpaired": lambda logps: logistic_loss(sorted_margins(*(logps - REFERENCE)), 1 - NOISE),
}


def test_every_case_is_compared():
    """Each loss that TRL's numbers hold; and each that ``dpo`` offers is among them, or made of them (sft: an SFT)."""
    assert set(FORMULAS) == set(GOLDEN["cases"])
    dpo = registry.load("algorithm", "dpo")
    named = {name for preset in dpo.presets.values() for name in dpo.Settings(**preset.settings).trl_losses()}
    assert named - {"sft"} == set(FORMULAS)


@pytest.mark.parametrize("name", FORMULAS)
def test_trls_numbers(name):
    """The mean over the pairs, and its gradient to both sides' log-probabilities."""
    golden, logps = GOLDEN["cases"][name], policy_logps()
    check(FORMULAS[name](logps).mean(), logps, golden)


def test_gpros_pairs_are_dpos():
    """Without a trust region, with labels that are certain."""
    logps = policy_logps()
    check(gpro_pair(logps).mean(), logps, GOLDEN["cases"]["sigmoid"])


def test_online_dpos_pairs_are_dpos():
    """Of two samples whose rewards differ, the whole loss: advantages, signs and the mean over prompts."""
    plugin = registry.load("algorithm", "online-dpo")
    algorithm = plugin(plugin.Settings(group=2, beta=BETA))
    rows, logps = 2 * LENGTHS.shape[1], policy_logps()
    batch = Rollout(
        Sequences.pack([[1]] * rows, [[2]] * rows, pad=0, device="cpu"),
        rewards=torch.tensor([1.0, 0.0]).repeat(rows // 2),
        ended_eos=torch.ones(rows, dtype=torch.bool),
        reference_logps=REFERENCE.T.reshape(-1, 1),
    )
    batch.advantages = algorithm.advantages(batch)
    check(algorithm.policy_loss(batch, logps.T.reshape(-1, 1)), logps, GOLDEN["cases"]["sigmoid"])


def test_conservative_dpo_is_made_of_two_of_trls_losses():
    """TRL's sigmoid and robust losses and gradients, weighted as ``dpo:cdpo`` weights them: label-smoothed logistic."""
    dpo = registry.load("algorithm", "dpo")
    weights = dpo.Settings(**registry.preset("algorithm", "dpo", "cdpo").settings).trl_losses()
    assert weights == pytest.approx({"sigmoid": 1.8, "robust": -0.8})
    made = {
        key: sum(weight * torch.tensor(GOLDEN["cases"][name][key]) for name, weight in weights.items())
        for key in ("loss", "chosen_gradient", "rejected_gradient")
    }
    logps = policy_logps()
    check(logistic_loss(margins(logps), 1 - NOISE).mean(), logps, made)


def test_the_pairs_are_hard_ones():
    """Margins of both signs and past a hinge's, so that each branch is taken."""
    found = margins(policy_logps())
    assert (found > 1).any()
    assert (found < 0).any()
    assert ((found > 0) & (found < 1)).any()


def check(loss, logps, golden):
    """Loss and gradients are the golden ones."""
    loss.backward()
    gradients = torch.stack([torch.as_tensor(golden[f"{side}_gradient"]) for side in ("chosen", "rejected")])
    assert_close(loss.detach(), torch.as_tensor(golden["loss"]), atol=1e-5, rtol=1e-5)
    assert_close(logps.grad, gradients, atol=1e-6, rtol=1e-4)
