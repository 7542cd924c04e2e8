"""The shared on-policy trainer: what a rollout holds, what an update does to whom, and how a step is divided."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from bakeoff import objectives, registry
from bakeoff.on_policy import OnPolicyAlgorithm, OnPolicySettings, Rollout
from bakeoff.on_policy_trainer import OnPolicyTrainer
from bakeoff.rollout import Sequences, logps_as, sample, score, uniforms

LOSSES = ("grpo", "ppo", "gpro", "rloo", "reinforce++", "online-dpo")
WITH_VALUE = ("ppo", "gpro")


class Trained:
    """A trainer on a toy, ready to take steps by hand: ``trainer``, ``context``, ``algorithm``, ``roles``."""

    def __init__(self, context, name, settings):
        plugin = registry.load("algorithm", name)
        self.context, self.roles = context, context.roles
        self.algorithm = plugin(plugin.Settings(**settings))
        self.trainer = OnPolicyTrainer(self.algorithm, context)
        self.trainer.create_optimizer()

    def gradients(self, batch):
        """Of one step on ``batch``, unclipped, by parameter: the policy's and then the value's."""
        parameters = [p for role in ("policy", "value") if self.roles.has(role) for p in self.roles.parameters(role)]
        for parameter in parameters:
            parameter.grad = None
        self.trainer._backward(batch)
        return [p.grad.clone() for p in parameters]


@pytest.fixture
def trained(make_roles, make_context):
    """``trained("ppo", {settings}, noise=...)``; the value, where there is one, gets a head that is not zero."""

    def make(name, settings=None, *, precision="fp32", noise=0.05, **context):
        roles = make_roles(precision, noise=noise)
        if name in WITH_VALUE:
            roles.add("reward")
            make_roles.perturb(roles, "reward", 0.1)
        size = {"prompts_per_rollout": 4, "group": 4, "beta": 0.1}
        made = Trained(make_context(roles, **context), name, size | (settings or {}))
        return made

    return make


# ----------------------------------------------------------------------------------------- the rollout


def test_a_rollout_scores_what_it_sampled(trained):
    """The reward sees decoded text with the row's own columns, group by group; the mask counts EOS."""
    seen = []

    def reward(prompts, completions, completion_ids, id):
        seen.append((prompts, completions, id))
        return [float(len(ids)) for ids in completion_ids]

    made = trained("grpo", reward=reward)
    rollout = made.trainer.roll_out()
    prompts, _, ids = seen[0]
    assert len(ids) == 16
    assert all(len(set(ids[start : start + 4])) == 1 for start in range(0, 16, 4))
    assert prompts == [made.context.prompts[int(name)]["prompt"] for name in ids]
    assert torch.equal(rollout.rewards, rollout.mask.sum(1))
    ended = (rollout.sequences.completion_ids == 0) & rollout.sequences.completion_mask.bool()
    assert torch.equal(ended.any(1), rollout.ended_eos)


def test_prompts_are_permutations_one_after_another(trained):
    """Every prompt is seen once before any is seen twice, also where rollouts and passes do not fit together."""
    made = trained("grpo", {"prompts_per_rollout": 3})
    names = []
    for number in range(8):
        made.trainer.rollouts = number
        names += [row["id"] for row in made.trainer.next_prompts()]
    passes = [names[start : start + 8] for start in range(0, 24, 8)]
    assert all(sorted(names) == [str(i) for i in range(8)] for names in passes)
    assert passes[0] != passes[1]


def test_the_same_seed_gives_the_same_rollout(trained):
    """Tokens and rewards, bit for bit; another seed gives others."""
    rollouts = [trained("grpo", seed=seed).trainer.roll_out() for seed in (0, 0, 1)]
    assert torch.equal(rollouts[0].sequences.input_ids, rollouts[1].sequences.input_ids)
    assert torch.equal(rollouts[0].rewards, rollouts[1].rewards)
    shapes = [rollout.sequences.input_ids for rollout in rollouts]
    assert shapes[0].shape != shapes[2].shape or not torch.equal(shapes[0], shapes[2])


def test_a_reward_that_is_not_finite_is_an_error(trained):
    """It would turn the weights to NaN."""
    made = trained("grpo", reward=lambda completions, **columns: [float("nan")] * len(completions))
    with pytest.raises(FloatingPointError, match="not finite"):
        made.trainer.roll_out()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "nf4"])
def test_before_the_first_update_the_shaped_reward_is_the_raw_score(precision, trained):
    """A fresh adapter is the reference: the KL paid in PPO's reward is exactly 0."""
    rollout = trained("ppo", noise=0.0, precision=precision).trainer.roll_out()
    kl = objectives.kl_k1(rollout.old_logps, rollout.reference_logps)
    assert (kl == 0).all()
    shaped = objectives.shape_rewards(rollout.rewards, kl, rollout.mask, beta=0.1)
    assert torch.equal(shaped.sum(1), rollout.rewards)


# --------------------------------------------------------------------------------------- the first update


def test_the_first_ratio_is_one(trained):
    """Old log-probabilities come from the training path: nothing is clipped, the loss is -mean(whitened A), about 0."""
    made = trained("ppo", {"prompts_per_rollout": 16, "group": 1, "micro_batch": 16})
    rollout = made.trainer.roll_out()
    loss = made.trainer._backward(rollout)
    metrics = made.trainer._metrics
    assert metrics["clip_fraction"] == 0
    assert metrics["approx_kl"] == 0
    assert_close(loss, -objectives.masked_mean(rollout.advantages, rollout.mask), atol=1e-7, rtol=0)
    assert abs(loss.item()) < 1e-6
    assert_close(objectives.masked_mean(rollout.advantages**2, rollout.mask).item(), 1.0, atol=0.05, rtol=0)


def test_one_update_a_rollout_needs_no_old_log_probabilities(trained):
    """Its own, detached, are the same thing: equal gradients, and a forward pass is saved."""
    made = trained("grpo")
    rollout = made.trainer.roll_out()
    assert rollout.old_logps is None
    without = made.gradients(rollout)
    rollout.old_logps = logps_as(made.roles, "policy", rollout.sequences)
    for a, b in zip(without, made.gradients(rollout), strict=True):
        assert_close(a, b, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_micro_batches_change_no_gradient(name, trained):
    """One batch of 16, 3 of 5 and one of 1, 8 of 2, 16 of 1, completions of unequal lengths: policy and value alike."""
    made = trained(name, {"epochs": 2})
    rollout = made.trainer.roll_out()
    rollout.old_logps = rollout.old_logps + 0.1 * torch.randn(rollout.old_logps.shape) * rollout.mask
    assert len(set(rollout.mask.sum(1).tolist())) > 1
    gradients = []
    for micro_batch in (16, 5, 2, 1):
        made.trainer.settings = made.algorithm.settings.model_copy(update={"micro_batch": micro_batch})
        gradients.append(made.gradients(rollout))
    assert sum(gradient.abs().max() > 1e-4 for gradient in gradients[0]) > 10
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            assert_close(a, b, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("name", "settings"), [*((name, {}) for name in LOSSES), ("ppo", {"value": "head"})])
def test_gradient_checkpointing_changes_no_gradient(name, settings, trained):
    """A whole step, rollout and joint pass included: each role goes backward before another goes forward."""
    steps = []
    for checkpointing in (False, True):
        made = trained(name, {"epochs": 1, **settings})
        if checkpointing:
            made.roles.causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
            made.roles.model.enable_input_require_grads()
        made.roles.model.train()
        steps.append(made.gradients(made.trainer.roll_out()))
    assert sum(gradient.abs().max() > 1e-4 for gradient in steps[0]) > 10
    for a, b in zip(*steps, strict=True):
        assert_close(a, b, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_what_stands_after_the_end_changes_nothing(name, trained):
    """Other tokens, values and log-probabilities in the padding: advantages, losses and gradients are bit-identical."""
    made = trained(name, {"epochs": 2})
    clean = made.trainer.roll_out()
    mask = clean.mask.bool()
    assert not mask.all()

    def spoil(values):
        return None if values is None else torch.where(mask, values, torch.full_like(values, 77.0))

    ids = torch.where(mask, clean.sequences.completion_ids, torch.tensor(33))
    sequences = Sequences(clean.sequences.prompt_ids, clean.sequences.prompt_mask, ids, clean.sequences.completion_mask)
    dirty = Rollout(
        sequences, clean.rewards, clean.ended_eos,
        spoil(clean.old_logps), spoil(clean.reference_logps), spoil(clean.values),
        companions=clean.companions, fraction=clean.fraction,
    )  # fmt: skip
    dirty.advantages = made.algorithm.advantages(dirty)
    assert torch.equal(clean.advantages, dirty.advantages)
    for a, b in zip(made.gradients(clean), made.gradients(dirty), strict=True):
        assert torch.equal(a, b)


def test_equal_rewards_and_no_kl_give_no_gradient(trained):
    """GRPO with beta = 0 has nothing to prefer in a group of equal rewards: exactly zero."""
    made = trained("grpo", {"beta": 0.0}, reward=lambda completions, **columns: [0.5] * len(completions))
    rollout = made.trainer.roll_out()
    assert rollout.reference_logps is None
    assert all((gradient == 0).all() for gradient in made.gradients(rollout))


def test_equal_rewards_and_a_kl_pull_back(trained):
    """... but away from the reference, the penalty's gradient is there."""
    made = trained("grpo", {"beta": 0.1}, reward=lambda completions, **columns: [0.5] * len(completions))
    assert any((gradient != 0).any() for gradient in made.gradients(made.trainer.roll_out()))


# --------------------------------------------------------------------------------------------- training


def snapshot(roles):
    """Every tensor of the model and the heads, by name."""
    return {
        name: value.detach().clone()
        for name, value in itertools.chain(roles.model.state_dict().items(), roles.heads.state_dict().items())
        if torch.is_tensor(value)
    }


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
@pytest.mark.parametrize("name", LOSSES)
def test_an_update_moves_what_it_trains_and_nothing_else(name, precision, make_roles, make_context):
    """Base, reference and reward stay bit-identical; all of the policy moves, and of PPO's value, head included."""
    roles = make_roles(precision, noise=0.05)
    roles.add("reference", copy_of="policy")
    roles.add("reward")
    make_roles.perturb(roles, "reward", 0.1)
    context = make_context(roles, budget={"steps": 2})
    made = Trained(context, name, {"prompts_per_rollout": 4, "group": 4, "learning_rate": 1e-2, "epochs": 1})
    groups = made.trainer.optimizer.param_groups
    moving = ["policy", "value"] if name in WITH_VALUE else ["policy"]
    assert sum(len(group["params"]) for group in groups) == sum(len(roles.parameters(role)) for role in moving)
    assert len(groups) == (3 if name in WITH_VALUE else 1)
    assert all(p.requires_grad for group in groups for p in group["params"])
    held = {id(p) for group in groups for p in group["params"]}
    assert {id(p) for p in [*roles.model.parameters(), *roles.heads.parameters()] if p.requires_grad} == held
    moved = {id(p): p.detach().clone() for role in moving for p in roles.parameters(role)}
    before = snapshot(roles)
    made.trainer.train()
    for role in moving:
        assert all(not torch.equal(p, moved[id(p)]) for p in roles.parameters(role))
    trainable = (".default.", ".value.") if name in WITH_VALUE else (".default.",)
    for tensor_name, value in snapshot(roles).items():
        if not any(part in f".{tensor_name}" for part in trainable):
            assert torch.equal(value, before[tensor_name]), tensor_name


@pytest.mark.parametrize("settings", [{"epochs": 2, "minibatches": 2}, {"epochs": 3, "minibatches": 1}])
def test_optimizer_steps_a_rollout(settings, trained):
    """epochs x minibatches, over several data-loader lengths; each rollout is used up before the next."""
    updates = settings["epochs"] * settings["minibatches"]
    made = trained("ppo", {"group": 1, **settings}, budget={"steps": 5 * updates})
    sizes = []
    backward = made.trainer._backward
    made.trainer._backward = lambda batch: sizes.append(len(batch)) or backward(batch)
    made.trainer.train()
    assert made.trainer.rollouts == 5
    assert made.context.meter.spent()["prompts"] == 5 * 4
    assert sizes == [4 // settings["minibatches"]] * 5 * updates
    assert [("reward" in line) for line in made.context.lines] == ([True] + [False] * (updates - 1)) * 5


def test_minibatches_divide_the_rollout(trained):
    """Each sequence once an epoch, in another order each time."""
    made = trained("ppo", {"epochs": 2, "minibatches": 4, "group": 1, "prompts_per_rollout": 8})
    rollout = made.trainer.roll_out()
    rollout.rewards = torch.arange(8.0)
    order = [reward for batch in made.trainer._minibatches(rollout) for reward in batch.rewards.tolist()]
    assert sorted(order[:8]) == sorted(order[8:]) == list(range(8))
    assert order[:8] != order[8:]


@pytest.mark.parametrize("name", LOSSES)
def test_every_line_of_the_log_is_a_step(name, trained):
    """Reward, lengths, loss, gradient norms and learning rate in one place."""
    made = trained(name, budget={"steps": 3})
    made.trainer.train()
    assert len(made.context.lines) == 3
    expected = {"reward", "reward_std", "length_tokens", "ended_eos", "loss", "grad_norm_policy", "approx_kl"}
    expected |= {"clip_fraction", "learning_rate"}
    expected |= {"loss_value", "grad_norm_value"} if name in WITH_VALUE else set()
    expected |= {"loss_companions"} if name == "gpro" else set()
    assert set(made.context.lines[0]) - {"kl_k1"} == expected
    assert ("kl_k1" in made.context.lines[0]) == made.algorithm.kl_in_reward


def test_gradients_are_clipped_by_role(trained):
    """A large value loss must not shrink the policy's step."""
    made = trained("ppo", {"max_grad_norm": 1e-3})
    made.trainer.training_step(made.context.policy, None)
    for role in ("policy", "value"):
        norm = torch.stack([p.grad.norm() for p in made.roles.parameters(role)]).norm()
        assert made.trainer._metrics[f"grad_norm_{role}"] > 1e-3
        assert_close(norm.item(), 1e-3, atol=1e-6, rtol=1e-2)


def test_a_loss_that_is_not_finite_is_an_error(trained):
    """The step that broke is named, before its gradient reaches the weights."""
    made = trained("grpo")
    made.algorithm.policy_loss = lambda batch, logps: batch.mean(logps * float("nan"))
    with pytest.raises(FloatingPointError, match="GRPO"):
        made.trainer.training_step(made.context.policy, None)


def test_a_value_head_costs_no_pass_and_leaves_the_policy_alone(trained):
    """On the policy's trunk: the value's loss gives the policy no gradient, and no token is trained twice."""
    tokens, gradients = {}, {}
    for value in ("adapter", "head"):
        made = trained("ppo", {"value": value}, budget={"steps": 1})
        rollout = made.trainer.roll_out()
        rollout.values = torch.zeros_like(rollout.mask)
        gradients[value] = made.gradients(rollout)[: len(made.roles.parameters("policy"))]
        spent = made.context.meter.roles
        tokens[value] = {role: spent[role].tokens_trained for role in ("policy", "value") if role in spent}
    assert tokens["head"] == {"policy": tokens["adapter"]["policy"]}
    assert tokens["adapter"]["value"] == tokens["adapter"]["policy"]


def test_a_value_head_sends_the_policy_no_gradient(trained):
    """With advantages of 0 and no KL, only the head has a gradient."""
    made = trained("ppo", {"value": "head", "beta": 0.0, "epochs": 2})
    rollout = made.trainer.roll_out()
    rollout.advantages = torch.zeros_like(rollout.mask)
    gradients = made.gradients(rollout)
    assert all((gradient == 0).all() for gradient in gradients[:-2])
    assert all((gradient != 0).any() for gradient in gradients[-2:])


def test_the_value_warms_up_alone(trained):
    """In the first rollout's updates the policy stays; from the second on it moves."""
    made = trained("ppo", {"value_warmup": 1, "epochs": 2, "group": 1, "learning_rate": 1e-2}, budget={"steps": 4})
    policy, value = ([p.detach().clone() for p in made.roles.parameters(role)] for role in ("policy", "value"))
    seen = []

    def look():
        moved = [
            any(not torch.equal(a, b) for a, b in zip(before, made.roles.parameters(role), strict=True))
            for role, before in (("policy", policy), ("value", value))
        ]
        seen.append(tuple(moved))

    made.context.callbacks[0].after_step = look
    made.trainer.train()
    assert seen == [(False, True), (False, True), (True, True), (True, True)]
    assert "grad_norm_policy" not in made.context.lines[0]


def test_updates_stop_when_the_policy_has_moved_far(trained):
    """A large step passes the limit in the second update; the other six of the rollout are dropped, and said so."""
    settings = {"epochs": 8, "group": 1, "stop_kl": 1e-3, "learning_rate": 1e-2}
    made = trained("ppo", settings, budget={"steps": 4})
    made.trainer.train()
    assert made.trainer.rollouts == 2
    assert [line.get("stopped_updates") for line in made.context.lines] == [None, 6.0, None, 6.0]


@pytest.mark.slow
def test_the_family_learns_under_one_budget(make_roles, make_context, tokenizer):
    """PPO, GRPO, RLOO and GPRO, five seeds each, the same FLOPs: the share of "e" rises and KL stays bounded."""
    common = {"learning_rate": 5e-3, "beta": 0.02, "prompts_per_rollout": 16, "group": 4}
    gains, kls = {}, {}
    for name in ("ppo", "grpo", "rloo", "gpro"):
        settings = (
            common | ({"epochs": 2} if name in WITH_VALUE else {}) | ({"own_share": 1.0} if name == "gpro" else {})
        )
        for seed in range(5):
            context = make_context(make_roles(r=8), budget={"flops": 3e9}, seed=seed)
            before = measured(context)
            plugin = registry.load("algorithm", name)
            plugin(plugin.Settings(**settings)).train(context)
            after = measured(context)
            gains.setdefault(name, []).append(after[0] - before[0])
            kls.setdefault(name, []).append(after[1])
            assert before[1] == 0
    assert all(gain > 0.06 for each in gains.values() for gain in each), gains
    assert all(kl < 12 for each in kls.values() for kl in each), kls


def measured(context):
    """Mean share of "e" of 64 samples, and their exact KL to the reference in nats a sequence."""
    prompts = list(context.prompts["prompt_ids"]) * 8
    with torch.no_grad(), context.meter.off():
        ids = sample(context.roles, prompts, uniforms(5, len(prompts), context.max_new_tokens), eos=[0], pad=0).ids
        kl = score(context.roles, Sequences.pack(prompts, ids, pad=0, device="cpu")).kl.sum(1).mean().item()
    texts = context.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return sum(context.reward(prompts, texts)) / len(texts), kl


# ------------------------------------------------------------------------------------ an algorithm of one's own


def test_the_defaults_are_reinforce(make_roles, make_context):
    """A subclass that overrides nothing trains: the batch's mean reward is the baseline."""

    class Reinforce(OnPolicyAlgorithm):
        title = "REINFORCE"

    context = make_context(make_roles(), budget={"steps": 2})
    algorithm = Reinforce(OnPolicySettings(prompts_per_rollout=2, group=2, learning_rate=1e-3))
    before = [p.detach().clone() for p in context.roles.parameters("policy")]
    algorithm.train(context)
    assert any(not torch.equal(a, b) for a, b in zip(before, context.roles.parameters("policy"), strict=True))
    rollout = OnPolicyTrainer(algorithm, context).roll_out()
    assert_close(
        (rollout.advantages * rollout.mask).sum(1) / rollout.mask.sum(1), rollout.rewards - rollout.rewards.mean()
    )
