"""Our PPO computes what TRL 1.10's computed, on the same rollouts; ``golden/make_trl_ppo.py`` wrote down its numbers.

Where the two differ by design, the test composes TRL's choice from our functions. TRL pays the score one position after
EOS and counts the value there (where the completion leaves room): its ``mask`` for rewards and values is one longer.
TRL's approximate KL is k2 averaged over padding, too. Tolerance everywhere: 1e-5.
"""

import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from bakeoff import objectives

GOLDEN = json.loads((Path(__file__).parent / "golden" / "trl_ppo.json").read_text())["cases"]


def close(ours, theirs):
    assert_close(ours, torch.tensor(theirs), atol=1e-5, rtol=1e-5)


@pytest.fixture(params=GOLDEN)
def case(request):
    return GOLDEN[request.param]


def up_to(lengths, width):
    return (torch.arange(width) < torch.tensor(lengths)[:, None]).float()


def masks(case):
    """Of the completions' tokens, and the same with one position more; (B, C) each."""
    width = len(case["logprobs"][0])
    return up_to(case["lengths"], width), up_to([length + 1 for length in case["lengths"]], width)


def shaped(case):
    """Per-token rewards, before whitening, and the KL in them; (B, C)."""
    settings, (mask, longer) = case["settings"], masks(case)
    kl_of = {"k1": objectives.kl_k1, "k3": objectives.kl_k3}[settings["kl_estimator"]]
    kl = kl_of(torch.tensor(case["logprobs"]), torch.tensor(case["ref_logprobs"])) * mask
    return objectives.shape_rewards(torch.tensor(case["scores"]), kl, longer, beta=settings["kl_coef"]), kl


def unwhitened_advantages(case):
    settings = case["settings"]
    return objectives.gae(
        torch.tensor(case["rewards"]),
        torch.tensor(case["values"]),
        masks(case)[1],
        gamma=settings["gamma"],
        gae_lambda=settings["lam"],
    )


def test_the_rollouts_are_the_hard_ones():
    """Lengths from one token to the full width, with EOS and without, and one EOS on the last position."""
    for case in GOLDEN.values():
        width = len(case["logprobs"][0])
        ends = set(zip(case["lengths"], case["ended_eos"], strict=True))
        assert {(1, True), (width, True), (width, False)} < ends
        assert all(ended or length == width for length, ended in ends)


def test_shaped_rewards(case):
    """Score and KL on the tokens where TRL puts them, whitened without moving the mean where asked for."""
    rewards, kl = shaped(case)
    close(kl, case["kl"])
    if case["settings"]["whiten_rewards"]:
        close(rewards, case["unwhitened_rewards"])
        rewards = objectives.masked_whiten(rewards, masks(case)[1], shift_mean=False)
    close(rewards, case["rewards"])


def test_advantages_and_returns(case):
    """GAE, returns, and advantages whitened over the rollout's tokens."""
    advantages = unwhitened_advantages(case)
    close(advantages, case["unwhitened_advantages"])
    close(advantages + torch.tensor(case["values"]), case["returns"])
    close(objectives.masked_whiten(advantages, masks(case)[0]), case["advantages"])


def test_losses_and_their_gradients(case):
    """Policy and value loss of every update, with their gradients to each log-probability and value."""
    settings, (mask, longer) = case["settings"], masks(case)
    clip = settings["cliprange"]
    for update in case["updates"]:
        rows = torch.tensor(update["rows"])
        logps = torch.tensor(update["new_logprobs"]).requires_grad_()
        values = torch.tensor(update["vpred"]).requires_grad_()
        old_logps, advantages, old_values, returns = (
            torch.tensor(case[name])[rows] for name in ("logprobs", "advantages", "values", "returns")
        )
        policy_loss = objectives.masked_mean(
            objectives.clipped_policy_loss(
                objectives.ratio(logps, old_logps), advantages, clip_low=clip, clip_high=clip
            ),
            mask[rows],
        )
        value_loss = objectives.masked_mean(
            objectives.clipped_value_loss(values, old_values, returns, clip=settings["cliprange_value"]), longer[rows]
        )
        close(policy_loss, update["pg_loss"])
        close(value_loss, update["vf_loss"])
        loss = policy_loss + settings["vf_coef"] * value_loss
        close(loss, update["loss"])
        loss.backward()
        close(logps.grad, update["new_logprobs_gradient"])
        close(values.grad, update["vpred_gradient"])


def test_diagnostics(case):
    """Approximate KL and clip fraction of every update; the first of a rollout has none, a later one has both."""
    settings, (mask, _) = case["settings"], masks(case)
    clips = {"clip_low": settings["cliprange"], "clip_high": settings["cliprange"]}
    for update in case["updates"]:
        rows = torch.tensor(update["rows"])
        logps, old_logps = torch.tensor(update["new_logprobs"]), torch.tensor(case["logprobs"])[rows]
        advantages = torch.tensor(case["advantages"])[rows]
        clipped = objectives.is_clipped(objectives.ratio(logps, old_logps), advantages, **clips)
        close(objectives.masked_mean(clipped, mask[rows]), update["pg_clipfrac"])
        close((objectives.kl_k2(logps, old_logps) * mask[rows]).mean(), update["approxkl"])
    first, *_, last = case["updates"]
    assert first["approxkl"] == first["pg_clipfrac"] == 0
    assert 0 < last["pg_clipfrac"] < 1
    assert 0 < last["vf_clipfrac"] < 1
