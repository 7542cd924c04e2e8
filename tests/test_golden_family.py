"""Advantages, losses and gradients of TRL 1.16's GRPO family and RLOO, from our functions on the same batch.

``golden/make_trl_family.py`` wrote down TRL's numbers. How the losses of tokens make one number is composed here: the
variants differ in that, and in what the ratio is of. Tolerance: 1e-5.
"""

import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from bakeoff import objectives

GOLDEN = json.loads((Path(__file__).parent / "golden" / "trl_family.json").read_text())["group"]
LENGTHS = torch.tensor(GOLDEN["lengths"])
OLD_LOGPS, REFERENCE_LOGPS = torch.tensor(GOLDEN["old_logps"]), torch.tensor(GOLDEN["reference_logps"])
MASK = (torch.arange(OLD_LOGPS.shape[1]) < LENGTHS[:, None]).float()
REWARDS = torch.tensor(GOLDEN["rewards"])


def mean_of_rows(loss):
    """GRPO's: each completion's mean, then their mean."""
    return ((loss * MASK).sum(1) / LENGTHS).mean()


def mean_of_tokens(loss):
    """DAPO's."""
    return objectives.masked_mean(loss, MASK)


def mean_over_the_limit(loss):
    """Dr. GRPO's: every completion counts as if it were as long as the length limit."""
    return (loss * MASK).sum() / (len(loss) * GOLDEN["max_length"])


def each(name):
    """The runs of one variant: KL weight 0 and 0.1, one micro-batch and two."""
    runs = GOLDEN["cases"][name]["runs"]
    assert {(run["beta"], run["micro_batches"]) for run in runs} == {(0, 1), (0, 2), (0.1, 1), (0.1, 2)}
    return runs


def close(ours, theirs):
    assert_close(ours, torch.tensor(theirs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "scale", "reduce"),
    [("grpo", True, mean_of_rows), ("dapo", True, mean_of_tokens), ("dr_grpo", False, mean_over_the_limit)],
)
def test_token_ratios(name, scale, reduce):
    """Clipped ratio of each token, and k3 in the loss; group advantages with and without the standard deviation."""
    settings = GOLDEN["cases"][name]["settings"]
    clips = {"clip_low": settings["epsilon"], "clip_high": settings["epsilon_high"]}
    advantages = objectives.group_advantages(REWARDS, GOLDEN["group"], scale=scale)
    for run in each(name):
        logps = torch.tensor(GOLDEN["logps"]).requires_grad_()
        close(advantages, run["advantages"])
        loss = objectives.clipped_policy_loss(logps, OLD_LOGPS, advantages[:, None], **clips)
        loss = reduce(loss + run["beta"] * objectives.kl_k3(logps, REFERENCE_LOGPS))
        close(loss, run["loss"])
        loss.backward()
        close(logps.grad, run["gradient"])


def test_sequence_ratios():
    """GSPO: the ratio is the geometric mean over a completion's tokens, clipped as one."""
    settings = GOLDEN["cases"]["gspo"]["settings"]
    clips = {"clip_low": settings["epsilon"], "clip_high": settings["epsilon_high"]}
    advantages = objectives.group_advantages(REWARDS, GOLDEN["group"])[:, None]
    for run in each("gspo"):
        logps = torch.tensor(GOLDEN["logps"]).requires_grad_()
        log_ratio = (((logps - OLD_LOGPS) * MASK).sum(1) / LENGTHS)[:, None]
        loss = objectives.clipped_policy_loss(log_ratio, torch.zeros_like(log_ratio), advantages, **clips)
        loss = mean_of_rows(loss + run["beta"] * objectives.kl_k3(logps, REFERENCE_LOGPS))
        close(loss, run["loss"])
        loss.backward()
        close(logps.grad, run["gradient"])


@pytest.mark.parametrize("name", ["rloo", "rloo_normalised"])
def test_whole_completions(name):
    """RLOO: k1 in the reward, the mean of the others as baseline, and the clipped ratio of the whole completion."""
    settings, group = GOLDEN["cases"][name]["settings"], GOLDEN["group"]
    clips = {"clip_low": settings["epsilon"], "clip_high": settings["epsilon"]}
    for run in each(name):
        kl = (objectives.kl_k1(OLD_LOGPS, REFERENCE_LOGPS) * MASK).sum(1)
        # r - mean(others) = (r - mean(all)) G / (G - 1)
        advantages = objectives.group_advantages(REWARDS - run["beta"] * kl, group, scale=False) * group / (group - 1)
        if settings.get("normalize_advantages"):
            advantages = objectives.group_advantages(advantages, len(advantages))
        close(advantages, run["advantages"])
        logps = torch.tensor(GOLDEN["logps"]).requires_grad_()
        log_ratio = ((logps - OLD_LOGPS) * MASK).sum(1)
        loss = objectives.clipped_policy_loss(log_ratio, torch.zeros_like(log_ratio), advantages, **clips).mean()
        close(loss, run["loss"])
        loss.backward()
        close(logps.grad, run["gradient"])


def test_the_batch_is_a_hard_one():
    """Ratios past both ends of every clip and inside it, with advantages of both signs: each branch is taken."""
    log_ratio = (torch.tensor(GOLDEN["logps"]) - OLD_LOGPS) * MASK
    advantages = objectives.group_advantages(REWARDS, GOLDEN["group"])
    whole = log_ratio.sum(1, keepdim=True)
    for name, of in (("dapo", log_ratio), ("gspo", whole / LENGTHS[:, None]), ("rloo", whole)):
        settings, ratio = GOLDEN["cases"][name]["settings"], of.exp()
        low, high = 1 - settings["epsilon"], 1 + settings.get("epsilon_high", settings["epsilon"])
        for rows in (advantages > 0, advantages < 0):
            assert (ratio[rows] > high).any()
            assert (ratio[rows] < low).any()
        assert ((ratio != 1) & (ratio > low) & (ratio < high)).any()
