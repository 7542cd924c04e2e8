"""Our GRPO with its settings and our RLOO give TRL 1.16's advantages, losses and gradients on the same batch.

``golden/make_trl_family.py`` wrote down TRL's numbers. Tolerance: 1e-5; 1e-4 for RLOO's normalised advantages, where
TRL adds 1e-4 to the standard deviation and we 1e-8 to the variance.
"""

import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from bakeoff import objectives, registry
from bakeoff.on_policy import Rollout
from bakeoff.rollout import Sequences

GOLDEN = json.loads((Path(__file__).parent / "golden" / "trl_family.json").read_text())["group"]
LENGTHS = torch.tensor(GOLDEN["lengths"])
REWARDS = torch.tensor(GOLDEN["rewards"])
LOGPS = torch.tensor(GOLDEN["logps"])
OLD_LOGPS = torch.tensor(GOLDEN["old_logps"])

OURS = {
    "grpo": ("grpo", {"average": "sequences"}),
    "dr_grpo": ("grpo", {"average": "length_limit", "scale_rewards": "none"}),
    "dapo": ("grpo", {}),
    "batch_scaled": ("grpo", {"scale_rewards": "batch"}),
    "gspo": ("grpo", {"average": "sequences", "ratio_of": "sequence"}),
    # TRL's bound is on the ratio itself, and there is none below.
    "cispo": ("grpo", {"clip": "weight", "clip_low": 1.0, "clip_high": 0.2}),
    "rloo": ("rloo", {}),
    "rloo_normalised": ("rloo", {"whiten": True}),
}


def algorithm(name, beta):
    """Our algorithm with the settings of TRL's case ``name``."""
    plugin, settings = OURS[name]
    theirs = GOLDEN["cases"][name]["settings"]
    if name != "cispo":
        low = theirs["epsilon"]
        settings = settings | {"clip_low": low, "clip_high": theirs.get("epsilon_high", low)}
    kind = registry.load("algorithm", plugin)
    return kind(kind.Settings(group=GOLDEN["group"], beta=beta, **settings))


def rollout(beta):
    return Rollout(
        Sequences.pack([[1]] * len(LENGTHS), [[2] * length for length in LENGTHS], pad=0, device="cpu"),
        rewards=REWARDS,
        ended_eos=torch.ones(len(LENGTHS), dtype=torch.bool),
        old_logps=OLD_LOGPS,
        reference_logps=torch.tensor(GOLDEN["reference_logps"]) if beta else None,
        max_tokens=GOLDEN["max_length"],
    )


def test_every_case_is_compared():
    """Each variant, with KL weight 0 and 0.1, in one micro-batch and in two."""
    assert set(OURS) == set(GOLDEN["cases"])
    for case in GOLDEN["cases"].values():
        assert {(run["beta"], run["micro_batches"]) for run in case["runs"]} == {(0, 1), (0, 2), (0.1, 1), (0.1, 2)}


@pytest.mark.parametrize("name", OURS)
def test_trls_numbers(name):
    """Advantages from rewards; the loss of a step and its gradient to each log-probability, by micro-batches."""
    tolerance = {"atol": 1e-4 if name == "rloo_normalised" else 1e-5, "rtol": 1e-5}
    for run in GOLDEN["cases"][name]["runs"]:
        ours, batch = algorithm(name, run["beta"]), rollout(run["beta"])
        batch.advantages = ours.advantages(batch)
        theirs = torch.tensor(run["advantages"])[:, None] * batch.mask
        assert_close(batch.advantages, theirs, **tolerance)
        logps = LOGPS.clone().requires_grad_()
        size = len(LENGTHS) // run["micro_batches"]
        loss = sum(
            ours.policy_loss(micro, part[:, : micro.mask.shape[1]])
            for micro, part in zip(batch.micro_batches(size), logps.split(size), strict=True)
        )
        assert_close(loss, torch.tensor(run["loss"]), **tolerance)
        loss.backward()
        assert_close(logps.grad, torch.tensor(run["gradient"]), **tolerance)


def test_reinforce_pp_has_the_loss_of_trls_token_mean():
    """REINFORCE++'s advantages are its own; of given ones TRL's DAPO loss, the mean over tokens, is its loss."""
    case = GOLDEN["cases"]["dapo"]
    clip = {"clip_low": case["settings"]["epsilon"], "clip_high": case["settings"]["epsilon_high"]}
    plugin = registry.load("algorithm", "reinforce++")
    for run in (run for run in case["runs"] if not run["beta"]):
        batch, logps = rollout(0.1), LOGPS.clone().requires_grad_()
        batch.advantages = torch.tensor(run["advantages"])[:, None] * batch.mask
        size = len(LENGTHS) // run["micro_batches"]
        loss = sum(
            plugin(plugin.Settings(**clip)).policy_loss(micro, part[:, : micro.mask.shape[1]])
            for micro, part in zip(batch.micro_batches(size), logps.split(size), strict=True)
        )
        loss.backward()
        assert_close(loss, torch.tensor(run["loss"]), atol=1e-5, rtol=1e-5)
        assert_close(logps.grad, torch.tensor(run["gradient"]), atol=1e-5, rtol=1e-5)


def test_the_batch_is_a_hard_one():
    """Ratios past both ends of every clip and inside it, with advantages of both signs: each branch is taken."""
    mask = rollout(0).mask
    log_ratio = (LOGPS - OLD_LOGPS) * mask
    advantages = objectives.group_advantages(REWARDS, GOLDEN["group"])
    whole = log_ratio.sum(1, keepdim=True)
    for name, of in (("dapo", log_ratio), ("gspo", whole / LENGTHS[:, None]), ("rloo", whole)):
        settings, ratio = GOLDEN["cases"][name]["settings"], of.exp()
        low, high = 1 - settings["epsilon"], 1 + settings.get("epsilon_high", settings["epsilon"])
        for rows in (advantages > 0, advantages < 0):
            assert (ratio[rows] > high).any()
            assert (ratio[rows] < low).any()
        assert ((ratio != 1) & (ratio > low) & (ratio < high)).any()
