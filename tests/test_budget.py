"""The meter against torch's own count of operations, and budgets that end where they say."""

import contextlib
import itertools
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bakeoff import models, registry, rollout
from bakeoff.budget import Meter, Spent, learning_rate_scale, meter_for, running
from bakeoff.errors import BudgetError
from bakeoff.optim import MasterAdamW
from bakeoff.roles import RoleModel
from bakeoff.rollout import Sequences, completion_logps, logps_as, sample, score, uniforms
from bakeoff.spec import BudgetSpec, LoraSpec, ScheduleSpec
from bakeoff.testing import toy_model

BATCH = Sequences.pack([[3] * 20, [4] * 15] * 2, [[5] * 30, [6] * 18] * 2, pad=0, device="cpu")
PROMPT_TOKENS, COMPLETION_TOKENS = 70, 96


def six_layers(architecture):
    """Hidden 128, fp32, and a vocabulary of 2048, so that the head is a share of the cost as in a real model.

    Eager attention: torch's counter does not see inside the fused one.
    """
    model = toy_model(architecture=architecture, layers=6, hidden=128)
    model.resize_token_embeddings(2048, mean_resizing=False)
    model.set_attn_implementation("eager")
    model.requires_grad_(False)
    model.eval()
    return RoleModel(models.add_lora(model, LoraSpec(r=8, alpha=16), seed=0, dtype=torch.float32))


@pytest.fixture
def deep():
    """Six Llama layers."""
    return six_layers("llama")


@pytest.fixture
def metered(deep):
    """The roles and a meter on them."""
    meter = Meter({"steps": 1})
    meter.attach(deep)
    return deep, meter


def relative_gap(meter, work):
    """(the meter's FLOPs of ``work``) / (torch's) - 1."""
    before = meter.spent()["flops"]
    # TRL's fused head adds its products up in place, which the counter does not know of itself.
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: addmm_flops}) as counter:
        work()
    return (meter.spent()["flops"] - before) / counter.get_total_flops() - 1


def addmm_flops(total, a, b, **rest):
    """Of the product of shapes ``a`` and ``b``."""
    return 2 * a[0] * a[1] * b[1]


def sgd_step(roles):
    """A forward and a backward pass of the policy."""
    completion_logps(roles, BATCH).sum().backward()


# --------------------------------------------------------------------------------------- what a pass costs


def test_forward_flops_are_exact(metered):
    """Policy (with its adapter) and reference (without): every matrix product, none more."""
    roles, meter = metered
    assert relative_gap(meter, lambda: logps_as(roles, "policy", BATCH)) == 0
    assert relative_gap(meter, lambda: logps_as(roles, "reference", BATCH)) == 0
    roles.add("reference")
    assert relative_gap(meter, lambda: score(roles, BATCH)) == 0


def test_other_layers_are_seen():
    """GPT-2's linear layers are of a class of their own."""
    roles = six_layers("gpt2")
    meter = Meter({"steps": 1})
    meter.attach(roles)
    assert relative_gap(meter, lambda: logps_as(roles, "policy", BATCH)) == 0


def test_training_flops(metered):
    """Within 3 %: the first layer's inputs need no gradient, which the meter does not know."""
    roles, meter = metered
    assert 0 <= relative_gap(meter, lambda: sgd_step(roles)) < 0.03


def test_frozen_layers_cost_no_backward_pass(metered):
    """Only the two top layers learn: gradients stop there, and so does the count."""
    roles, meter = metered
    whole = meter.spent()["flops"]
    sgd_step(roles)
    whole = meter.spent()["flops"] - whole
    with roles.training_only({4, 5}):
        before = meter.spent()["flops"]
        assert 0 <= relative_gap(meter, lambda: sgd_step(roles)) < 0.03
        assert meter.spent()["flops"] - before < 0.75 * whole


def test_training_flops_of_the_whole_model(metered):
    """A loop of one's own that calls the model for its logits: the head's backward pass counts."""
    roles, meter = metered
    ids = torch.randint(3, 40, (4, 30))

    def step():
        roles.model(input_ids=ids, labels=ids).loss.backward()

    assert 0 <= relative_gap(meter, step) < 0.03


def test_training_flops_with_gradient_checkpointing(metered):
    """The recomputed forward pass counts."""
    roles, meter = metered
    roles.model.train()
    roles.causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    roles.model.enable_input_require_grads()
    assert relative_gap(meter, lambda: sgd_step(roles)) == pytest.approx(0, abs=0.03)


def test_sampling_flops_are_exact(metered, monkeypatch):
    """With the adapter attached, prefill and decoding. (Merged weights save the adapter's share, about a tenth in
    this toy; the meter charges it, so that a CPU and a GPU charge the same.)"""
    roles, meter = metered
    monkeypatch.setattr(rollout, "merged", lambda roles: contextlib.nullcontext())
    prompts = [[3] * 20] * 8
    assert relative_gap(meter, lambda: sample(roles, prompts, uniforms(0, 8, 16), eos=[46], pad=0)) == 0


@pytest.mark.parametrize("name", ["sft", "dpo", "trl-grpo", "grpo", "ppo"])
def test_a_trainers_step(name, deep, make_context):
    """A whole step of each algorithm through its own trainer: within 5 %."""
    context = make_context(deep, budget={"steps": 1})
    plugin = registry.load("algorithm", name)
    size = {"sft": {"batch": 4}, "dpo": {"batch": 4}}.get(name, {"prompts_per_rollout": 4, "group": 4})
    if name == "ppo":
        size = {"prompts_per_rollout": 8, "epochs": 1}
    algorithm = plugin(plugin.Settings(**size))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollout, "merged", lambda roles: contextlib.nullcontext())
        assert relative_gap(context.meter, lambda: algorithm.train(context)) == pytest.approx(0, abs=0.05)


# ------------------------------------------------------------------------------------------ tokens and roles


def test_tokens_are_attended_positions_by_role_and_kind(metered):
    """Padding is computed, so it costs operations, but it is no token."""
    roles, meter = metered
    sgd_step(roles)
    logps_as(roles, "reference", BATCH)
    completions = sample(roles, [[3] * 20, [4] * 5], uniforms(0, 2, 9), eos=[46], pad=0)
    policy, reference = meter.roles["policy"], meter.roles["reference"]
    assert policy.tokens_trained == PROMPT_TOKENS + COMPLETION_TOKENS
    assert policy.tokens_generated == sum(map(len, completions.ids))
    assert policy.tokens_scored == 0
    assert (reference.tokens_trained, reference.tokens_scored) == (0, PROMPT_TOKENS + COMPLETION_TOKENS)
    assert meter.spent()["flops"] == policy.flops + reference.flops


def test_a_graph_that_is_dropped_is_not_trained_on(metered):
    """Tokens count as trained when the backward pass comes."""
    roles, meter = metered
    loss = completion_logps(roles, BATCH).sum()
    del loss
    assert meter.spent()["tokens_trained"] == 0


def test_roles_are_read_from_the_model(deep):
    """Also when somebody else switches adapters: TRL's frozen copy and the model without adapters are the reference."""
    assert running(deep) == ("policy", True)
    with deep.use("reference"):
        assert running(deep) == ("reference", False)
    deep.add("value")
    with deep.use("value"):
        assert running(deep) == ("value", True)
    deep.model.add_adapter("ref", deep.model.peft_config["default"])
    deep.model.set_adapter("ref")
    assert running(deep) == ("reference", True)
    deep.model.add_adapter("mine", deep.model.peft_config["default"])
    deep.model.set_adapter("mine")
    assert running(deep) == ("mine", True)


def test_a_trainers_reference_pass_is_the_references(make_roles, make_context):
    """TRL's DPO switches adapters itself; each pair is trained on once and scored by the reference once."""
    context = make_context(make_roles(), budget={"steps": 2})
    dpo = registry.load("algorithm", "dpo")
    dpo(dpo.Settings(batch=4)).train(context)
    lengths = [
        2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in context.preferences
    ]
    policy, reference = context.meter.roles["policy"], context.meter.roles["reference"]
    assert (policy.tokens_trained, policy.tokens_scored) == (sum(lengths), 0)
    assert (reference.tokens_trained, reference.tokens_scored) == (0, sum(lengths))
    assert context.meter.spent()["prompts"] == 8


# ------------------------------------------------------------------------------------------------- the clock


def test_off_is_uncounted_and_off_the_clock(metered, monkeypatch):
    """Nested too: the clock runs again after the outermost."""
    roles, meter = metered
    clock = iter([10.0, 12.0, 100.0, 101.5])
    monkeypatch.setattr("bakeoff.budget.time.perf_counter", lambda: next(clock))
    meter.start()  # 10
    with meter.off(), meter.off():  # 12
        logps_as(roles, "policy", BATCH)
        sgd_step(roles)
    meter.stop()  # on at 100, off at 101.5
    assert meter.seconds == 2.0 + 1.5
    assert meter.spent() | {"seconds": 0} == Meter({"steps": 1}).spent()


def test_hooks_come_off(deep):
    """A detached meter counts nothing."""
    meter = Meter({"steps": 1})
    meter.attach(deep)()
    sgd_step(deep)
    assert meter.spent()["flops"] == 0
    assert deep.meter is None


# ---------------------------------------------------------------------------------------------------- budgets


def test_the_limit_nearest_to_its_end_decides():
    """Fractions, the end, and by how much each limit was passed."""
    meter = Meter({"steps": 10, "prompts": 40})
    meter.count_step(3)
    meter.count_prompts(24)
    assert meter.fraction == 0.6
    assert not meter.is_spent
    meter.count_prompts(24)
    assert meter.is_spent
    assert meter.overshoot() == {"steps": 0.0, "prompts": pytest.approx(0.2)}


def test_a_checkpoint_holds_the_meter():
    """Counts and seconds go on where they were."""
    meter = Meter({"steps": 10})
    meter.roles["value"] = Spent(1, 2, 3, 4.0)
    meter.count_step(3)
    meter._seconds = 1.5
    other = Meter({"steps": 10})
    other.restore(meter.state())
    assert other.spent() == meter.spent()
    assert other.roles == meter.roles


def test_a_budget_without_a_limit_is_an_error():
    """It would never end."""
    with pytest.raises(BudgetError, match="never ends"):
        meter_for(BudgetSpec(name="b"))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({}, [1.0, 0.75, 0.5, 0.0, 0.0]),
        ({"warmup": 0.5}, [0.0, 0.5, 1.0, 0.0, 0.0]),
        ({"shape": "cosine"}, [1.0, 0.5 + 0.5**1.5, 0.5, 0.0, 0.0]),
        ({"shape": "constant", "warmup": 0.5}, [0.0, 0.5, 1.0, 1.0, 1.0]),
        ({"shape": "wsd", "warmup": 0.25, "decay": 0.625}, [0.0, 1.0, 0.8, 0.0, 0.0]),
    ],
)
def test_the_learning_rate_scale(schedule, expected):
    """At shares 0, 1/4, 1/2, 1 of the budget, and beyond it: cosine at a quarter is (1 + cos 45°) / 2."""
    scales = [learning_rate_scale(fraction, ScheduleSpec(**schedule)) for fraction in (0.0, 0.25, 0.5, 1.0, 1.3)]
    assert scales == pytest.approx(expected, abs=1e-12)


def test_a_schedule_whose_parts_overlap_is_refused():
    """Warm-up and decay are shares of the same budget."""
    with pytest.raises(ValueError, match="must not exceed 1"):
        ScheduleSpec(shape="wsd", warmup=0.5, decay=0.6)


@pytest.mark.parametrize("name", ["sft", "grpo"])
def test_every_trainer_follows_the_schedule(name, make_roles, make_context):
    """A quarter of the budget is spent in a warm-up to the peak, by TRL's trainer and by ours."""
    settings = {"sft": {"batch": 2}, "grpo": {"prompts_per_rollout": 2, "group": 2}}[name]
    context = make_context(make_roles(), budget={"steps": 4})
    context.schedule = ScheduleSpec(shape="wsd", warmup=0.25, decay=0.5)
    plugin = registry.load("algorithm", name)
    plugin(plugin.Settings(learning_rate=1e-3, **settings)).train(context)
    rates = [line["learning_rate"] for line in context.lines]
    assert rates == pytest.approx([0.0, 1e-3, 1e-3, 5e-4])


@pytest.mark.parametrize("limit", ["flops", "tokens_trained", "prompts"])
def test_every_algorithm_ends_within_a_step_of_the_budget(limit, make_roles, make_context):
    """SFT and GRPO under one limit that is not in steps: both spend it, neither more than a step beyond."""
    amount = {"flops": 4e8, "tokens_trained": 700, "prompts": 30}[limit]
    for name, settings in (("sft", {"batch": 4}), ("grpo", {"prompts_per_rollout": 2, "group": 4})):
        context = make_context(make_roles(), budget={limit: amount})
        spent = [0.0]
        context.callbacks[0].after_step = lambda spent=spent, meter=context.meter: spent.append(meter.spent()[limit])
        plugin = registry.load("algorithm", name)
        plugin(plugin.Settings(**settings)).train(context)
        steps = [after - before for before, after in itertools.pairwise(spent)]
        assert spent[-2] < amount <= spent[-1]
        assert context.meter.overshoot()[limit] == pytest.approx(spent[-1] / amount - 1)
        assert context.meter.overshoot()[limit] <= max(steps) / amount
        assert len(steps) > 3


@pytest.mark.parametrize("name", ["sft", "dpo", "grpo", "ppo", "trl-grpo"])
def test_the_learning_rate_decays_with_what_is_spent(name, make_roles, make_context, monkeypatch):
    """From the peak to almost 0, the same for every algorithm, on what the optimizer was really given."""
    rates, step = [], MasterAdamW.step

    def recorded(self, closure=None):
        rates.append(self.param_groups[0]["lr"])
        return step(self, closure)

    monkeypatch.setattr(MasterAdamW, "step", recorded)
    context = make_context(make_roles(), budget={"prompts": 64})
    plugin = registry.load("algorithm", name)
    size = {"batch": 4} if name in ("sft", "dpo") else {"prompts_per_rollout": 4}
    size |= {"group": 2} if "grpo" in name else {"epochs": 1} if name == "ppo" else {}
    plugin(plugin.Settings(learning_rate=1e-3, **size)).train(context)
    assert rates == pytest.approx([1e-3 * (1 - done / 16) for done in range(16)])
    assert [line["learning_rate"] for line in context.lines] == rates
    assert math.isclose(context.meter.fraction, 1.0)
