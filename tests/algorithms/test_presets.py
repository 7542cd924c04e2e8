"""Every preset of every algorithm that bakeoff brings: it trains, and begins where the paper's formula says.

At the start the policy is its reference, so that a loss of their log-ratios alone is a number known beforehand.
"""

import math
from importlib.metadata import distribution

import pytest

from bakeoff import registry
from bakeoff.rollout import Sequences, logps_as

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


@pytest.fixture
def losses(make_roles, make_context):
    """``losses("dpo:ipo", {settings}, steps=2)``: what is logged as loss at each step on the toy."""

    def run(name, settings=None, *, steps=2, roles=None):
        plugin = registry.load("algorithm", name.partition(":")[0])
        preset = name.partition(":")[2]
        given = dict(plugin.presets[preset].settings) if preset else {}
        small = {key: value for key, value in SMALL.items() if key in plugin.Settings.model_fields}
        context = make_context(roles or make_roles(noise=0.05), budget={"steps": steps})
        plugin(plugin.Settings(**given | small | (settings or {}))).train(context)
        return [line["loss"] for line in context.lines if "loss" in line]

    return run


@pytest.mark.parametrize("name", [":".join(each) for each in PRESETS if each[0] != "reward-model"])
def test_a_preset_trains(name, losses):
    """Two steps on the toy, each with a loss that is a number."""
    found = losses(name)
    assert len(found) == 2
    assert all(map(math.isfinite, found))


@pytest.mark.parametrize("name", AT_THE_START)
def test_a_policy_that_is_its_reference_has_the_loss_worked_out_by_hand(name, losses):
    """In the first step, before anything has moved."""
    assert losses(name, steps=1) == [pytest.approx(AT_THE_START[name], rel=1e-4)]
