"""GRPO on other rewards: what is paid, and that the task's reward is not."""

from dataclasses import replace

import pytest

from bakeoff import registry
from bakeoff.on_policy_trainer import OnPolicyTrainer

SETTINGS = {"learning_rate": 1e-2, "prompts_per_rollout": 4, "group": 8, "beta": 0.0}


def paid(name, context, monkeypatch):
    """What each rollout of a run is paid, and the lengths of its completions in tokens."""
    seen = []
    score = OnPolicyTrainer.score

    def watched(self, prompts, ids):
        rewards = score(self, prompts, ids)
        seen.append((rewards.tolist(), [len(each) for each in ids]))
        return rewards

    monkeypatch.setattr(OnPolicyTrainer, "score", watched)
    plugin = registry.load("algorithm", name)
    plugin(plugin.Settings(**SETTINGS)).train(replace(context, reward=None))
    return seen


def test_coins_are_fair_and_follow_the_seed(make_roles, make_context, monkeypatch):
    """Of 256 tosses about half are 1, no two rollouts get the same, and only the same seed tosses them again."""
    tosses = {}
    for key, seed in (("first", 3), ("again", 3), ("other", 4)):
        context = make_context(make_roles(), budget={"steps": 8}, seed=seed)
        tosses[key] = [rewards for rewards, _ in paid("random-reward", context, monkeypatch)]
        monkeypatch.undo()
    flat = [toss for rollout in tosses["first"] for toss in rollout]
    assert len(flat) == 256 and set(flat) == {0.0, 1.0}
    assert 0.4 < sum(flat) / 256 < 0.6
    assert len({tuple(rollout) for rollout in tosses["first"]}) == 8
    assert tosses["first"] == tosses["again"] != tosses["other"]


def test_length_is_paid_as_a_share_of_the_limit(make_roles, make_context, monkeypatch):
    """A completion of 6 of 8 tokens gets 0.75."""
    seen = paid("length-reward", make_context(make_roles(), budget={"steps": 2}), monkeypatch)
    assert len(seen) == 2 and len({length for _, lengths in seen for length in lengths}) > 1
    for rewards, lengths in seen:
        assert rewards == pytest.approx([length / 8 for length in lengths])


@pytest.mark.parametrize("name", ["random-reward", "length-reward"])
def test_it_is_a_control_that_needs_no_reward(name):
    """It differs from GRPO in the reward alone: same settings, no presets of its own."""
    plugin, grpo = registry.load("algorithm", name), registry.load("algorithm", "grpo")
    assert plugin.is_control and not grpo.is_control
    assert plugin.consumes == {"prompts"} and plugin.Settings is grpo.Settings and not plugin.presets
