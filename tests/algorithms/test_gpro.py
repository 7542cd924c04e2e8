"""GPRO: its degenerate settings are known algorithms, and its trust region holds on margins."""

import importlib
import math

import pytest
import torch
from torch.testing import assert_close

from bakeoff import registry
from bakeoff.on_policy import Rollout
from bakeoff.on_policy_trainer import OnPolicyTrainer
from bakeoff.preference_losses import logistic_loss
from bakeoff.rollout import Sequences

gpro = importlib.import_module("bakeoff.algorithms.gpro")
SIZE = {"prompts_per_rollout": 4, "group": 2, "learning_rate": 5e-3, "beta": 0.1}


def make(name="gpro", **settings):
    plugin = registry.load("algorithm", name)
    return plugin(plugin.Settings(**settings))


def test_it_raises_its_reward(learn):
    """Twenty updates on ten rollouts: the share of "e" nearly doubles."""
    settings = {"learning_rate": 5e-3, "prompts_per_rollout": 32, "epochs": 2, "beta": 0.0, "own_share": 1.0}
    before, after = learn("gpro", settings, steps=20)
    assert before < 0.35
    assert after > 0.5


@pytest.mark.parametrize("epochs", [1, 2])
def test_without_preferences_it_is_ppo_bit_for_bit(epochs, make_roles, make_context):
    """mu = 0: after three steps, every parameter of policy and value equals PPO's."""
    weights = []
    for name, settings in (("ppo", {}), ("gpro", {"mu_start": 0.0, "mu_end": 0.0})):
        context = make_context(make_roles(noise=0.05), budget={"steps": 4})
        make(name, **SIZE, epochs=epochs, minibatches=epochs, **settings).train(context)
        roles = context.roles
        weights.append([p.detach().clone() for role in ("policy", "value") for p in roles.parameters(role)])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_preferences_alone_without_a_clip_are_trls_dpo(make_roles, make_context):
    """mu = 1, no clip, offline pairs: TRL's DPO trainer has the same loss and gradients on the same pairs."""
    theirs = []

    def keep_gradients(args, state, control, **kwargs):
        theirs.extend(p.grad.clone() for p in context.roles.parameters("policy"))

    context = make_context(make_roles(noise=0.05))
    context.callbacks[0].on_pre_optimizer_step = keep_gradients
    make("dpo", batch=8, beta=0.3, learning_rate=1e-4).train(context)
    loss, norm = context.lines[0]["loss"], context.lines[0]["grad_norm"]

    context = make_context(make_roles(noise=0.05))
    algorithm = make(
        **SIZE, mu_start=1.0, mu_end=1.0, preference_clip=None, preference_beta=0.3, offline_pairs=8, max_grad_norm=1e9
    )
    # TRL's DPO takes the adapter's start as its reference; here that is a role.
    context.roles.add("reference", copy_of="policy")
    trainer = OnPolicyTrainer(algorithm, context)
    trainer.create_optimizer()
    ours = trainer.training_step(context.policy, None)
    assert ours.item() == pytest.approx(loss, abs=1e-6)
    assert loss == pytest.approx(math.log(2), abs=1e-6)
    # TRL's were clipped to a norm of 1 when they were kept; it logs the norm from before.
    own = [p.grad / norm for p in context.roles.parameters("policy")]
    assert_close(torch.stack([gradient.norm() for gradient in own]).norm().item(), 1.0, atol=1e-4, rtol=0)
    for a, b in zip(theirs, own, strict=True):
        assert_close(a, b, atol=1e-5, rtol=1e-3)


def pair_batch(log_ratios, *, old=None, rewards=(1.0, 0.0), tokens=2):
    """Completions of two tokens each, whose log-ratios to the reference sum to ``log_ratios``; and their logps."""
    rows = len(log_ratios)
    packed = Sequences.pack([[3]] * rows, [[4] * tokens] * rows, pad=0, device="cpu")
    spread = torch.tensor(log_ratios)[:, None].expand(rows, tokens) / tokens
    before = spread if old is None else torch.tensor(old)[:, None].expand(rows, tokens) / tokens
    batch = Rollout(
        packed, torch.tensor(rewards), torch.ones(rows).bool(),
        old_logps=before - 1.0, reference_logps=torch.full((rows, tokens), -1.0),
    )  # fmt: skip
    return batch, (spread - 1.0).clone().requires_grad_()


def gradient(loss, logps):
    loss.backward()
    return logps.grad[0].sum().item()


@pytest.mark.parametrize(
    ("moved", "expected"),
    [(0.0, -0.5), (0.5, -0.378), (0.51, 0.0), (-1.0, -0.731)],
    ids=["still", "edge", "past", "back"],
)
def test_a_margin_that_moved_far_enough_has_no_gradient(moved, expected):
    """DPO's gradient -sigma(-u) up to eps_p beyond the old margin, then exactly 0; moving back is never clipped."""
    algorithm = make(mu_start=1.0, mu_end=1.0, preference_beta=1.0, preference_clip=0.5)
    batch, logps = pair_batch([moved, 0.0], old=[0.0, 0.0])
    assert gradient(algorithm.companion_loss(batch, logps), logps) / 2 == pytest.approx(expected, abs=1e-3)


def test_a_soft_target_pulls_an_overshoot_back():
    """Labels wrong at rate 0.4: at a margin of 1 the gradient is sigma(1) - 0.6 > 0, clip or no clip."""
    algorithm = make(mu_start=1.0, mu_end=1.0, preference_beta=1.0, preference_clip=0.5, label_noise=0.4)
    batch, logps = pair_batch([1.0, 0.0], old=[0.0, 0.0])
    wanted = 1 / (1 + math.exp(-1.0)) - 0.6
    assert gradient(algorithm.companion_loss(batch, logps), logps) / 2 == pytest.approx(wanted, abs=1e-3)


def test_a_ranking_of_two_is_a_pair():
    """Plackett-Luce over K = 2, ties included; over four equal scores it pays log 4!."""
    scores, zeros = torch.tensor([[0.3, -0.2], [0.1, 0.4]]), torch.zeros(2, 2)
    rewards = torch.tensor([[1.0, 0.0], [2.0, 2.0]])
    ranking = gpro.ranking_loss(scores, zeros, rewards, clip=None)
    pairs = gpro.pair_loss(scores, zeros, torch.tensor([[1.0], [0.5]]), clip=None)
    assert_close(ranking, pairs)
    four = gpro.ranking_loss(torch.zeros(1, 4), torch.zeros(1, 4), torch.tensor([[1.0, 2.0, 3.0, 4.0]]), clip=None)
    assert four.item() == pytest.approx(math.log(24))


def test_targets_of_own_samples():
    """Rewards 1, 3, 3: better or worse, or a tie; by score, sigma of the gap over the rollout's deviation."""
    batch, logps = pair_batch([0.0, 0.5, 1.0], rewards=(1.0, 3.0, 3.0))
    u = torch.tensor([-0.5, -1.0, -0.5])
    common = {"group": 3, "mu_start": 1.0, "mu_end": 1.0, "own_share": 1.0, "preference_beta": 1.0}
    batch.advantages = torch.zeros(3, 2)
    for own_target, p in (
        ("pairs", torch.tensor([0.0, 0.0, 0.5])),
        ("scores", torch.sigmoid(torch.tensor([-2.0, -2.0, 0.0]) / torch.tensor([1.0, 3.0, 3.0]).std())),
    ):
        algorithm = make(**common, own_target=own_target, preference_clip=None)
        algorithm.score_scale = 1 / batch.rewards.std().item()
        assert_close(algorithm.policy_loss(batch, logps), logistic_loss(u, p).mean())


def test_mu_moves_with_the_budget():
    """From mu_start to mu_end, linearly in the share that is spent; an overshoot stays at the end."""
    algorithm = make(mu_start=0.5, mu_end=0.1)
    assert [algorithm.mu(spent) for spent in (0.0, 0.5, 1.0, 1.2)] == pytest.approx([0.5, 0.3, 0.1, 0.1])


def test_the_better_sides_likelihood():
    """alpha x the mean negative log-likelihood of a token of the chosen completion, here 1.0, on top of log 2."""
    algorithm = make(mu_start=1.0, mu_end=1.0, likelihood=0.25)
    batch, logps = pair_batch([0.0, 0.0])
    assert algorithm.companion_loss(batch, logps).item() == pytest.approx(math.log(2) + 0.25)


def test_own_samples_alone_need_no_offline_pairs(make_roles, make_context):
    """own_share 1 trains on what it sampled; the default trains on offline pairs, and pays for them."""
    rollouts, spent = [], []
    for own_share in (1.0, 0.0):
        context = make_context(make_roles(noise=0.05))
        trainer = OnPolicyTrainer(make(**SIZE, own_share=own_share, offline_pairs=4), context)
        trainer.create_optimizer()
        rollout = trainer.roll_out()
        rollouts.append(rollout.companions)
        trainer.pending = [rollout]
        trainer.training_step(context.policy, None)
        spent.append(context.meter.spent()["tokens_trained"])
    assert rollouts[0] is None
    assert len(rollouts[1]) == 8
    assert spent[1] > spent[0]


def test_offline_pairs_come_in_turn(make_roles, make_context):
    """Eight pairs, three a rollout: each is seen once before any is seen twice."""
    context = make_context(make_roles())
    trainer = OnPolicyTrainer(make(**SIZE, offline_pairs=4), context)
    seen = []
    for _ in range(2):
        chosen = trainer.roll_out().companions.sequences
        seen += [tuple(ids) for ids in chosen.completion_ids[::2, :3].tolist()]
    assert len(set(seen)) > 4


def test_pairs_of_own_samples_need_a_group():
    """One completion has no rival."""
    with pytest.raises(ValueError, match="group"):
        make(group=1, own_share=0.5)


def test_a_target_of_own_samples_needs_a_share():
    """A ranking that nothing is trained on would be asked for in vain."""
    with pytest.raises(ValueError, match="give them an own_share"):
        make(own_target="ranking")
    assert make(own_target="ranking", own_share=0.5).settings.own_target == "ranking"


def test_a_pair_of_own_samples_is_not_divided():
    """Eight minibatches of four groups would be four: a rollout would have fewer steps than it says."""
    with pytest.raises(ValueError, match="whole groups"):
        make(prompts_per_rollout=4, group=2, minibatches=8, own_share=0.5)
    assert make(prompts_per_rollout=4, group=2, minibatches=8).settings.minibatches == 8


def test_own_pairs_alone_without_a_clip_are_online_dpo(make_roles, make_context):
    """mu = 1, own samples only, no clip, groups of two whose rewards differ: online DPO's gradients."""

    def reward(completions, completion_ids, **columns):
        return [float(row) for row in range(len(completions))]

    gradients = []
    for name, settings in (
        ("online-dpo", {"beta": 0.3}),
        ("gpro", {"mu_start": 1.0, "mu_end": 1.0, "own_share": 1.0, "preference_clip": None, "preference_beta": 0.3}),
    ):
        context = make_context(make_roles(noise=0.05), reward=reward)
        trainer = OnPolicyTrainer(make(name, **SIZE | settings | {"max_grad_norm": 1e9, "epochs": 1}), context)
        trainer.create_optimizer()
        trainer.training_step(context.policy, None)
        gradients.append([p.grad for p in context.roles.parameters("policy")])
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients[0])
    for a, b in zip(*gradients, strict=True):
        assert_close(a, b, atol=1e-6, rtol=1e-4)
