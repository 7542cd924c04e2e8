"""One base, several adapters: roles switch without touching each other, and never where gradients would be wrong."""

import pytest
import torch
from torch.testing import assert_close

from bakeoff import models
from bakeoff.budget import Meter
from bakeoff.errors import RoleError
from bakeoff.roles import RoleModel
from bakeoff.rollout import Sequences, completion_hidden, completion_logps, logps_as, score, score_roles
from bakeoff.spec import LoraSpec, ModelSpec

PROMPTS = [[3, 4, 5, 6], [7, 8]]
COMPLETIONS = [[9, 10, 0], [11, 12, 13, 14]]


@pytest.fixture
def four_roles(make_roles):
    """A float32 toy with all four roles, each with weights of its own, and a head that is not zero."""

    def make():
        roles = make_roles(noise=0.05)
        for noise, role in ((0.02, "reference"), (0.03, "value"), (0.04, "reward")):
            roles.add(role, train=role == "value")
            make_roles.perturb(roles, role, noise)
        return roles

    return make


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("architecture", ["toy", "toy_gpt2"])
def test_attention_to_both_sides(architecture, attention, make_roles, request):
    """The last token moves the first hidden state then and only then, padding never; afterwards all is as before."""
    roles = make_roles(folder=request.getfixturevalue(architecture), noise=0.05)
    roles.causal_lm.set_attn_implementation(attention)

    @torch.no_grad()
    def first(last, padding=0):
        ids = torch.tensor([[3, 4, 5, last, *[7] * padding], [3, 4, 5, last, *[9] * padding]])
        mask = torch.tensor([[1, 1, 1, 1, *[0] * padding]] * 2)
        return roles.hidden(ids, mask)[:, 0]

    before = first(6)
    assert torch.equal(before, first(8))
    with roles.attending(both_sides=True):
        seen = first(6)
        assert (seen - first(8)).abs().max() > 1e-3
        padded = first(6, padding=3)
        assert torch.equal(padded[0], padded[1])
        assert_close(padded, seen, atol=1e-5, rtol=0)
        with roles.attending(both_sides=False):
            assert torch.equal(first(6), before)
        assert torch.equal(first(6), seen)
    assert torch.equal(first(6), before)


def pack():
    return Sequences.pack(PROMPTS, COMPLETIONS, pad=0, device="cpu")


def loss_of(roles, role):
    """A loss under ``role`` that depends on its adapter and, for the value, its head."""
    with roles.use(role):
        if role == "policy":
            return completion_logps(roles, pack()).sum()
        return roles.head_output(role, completion_hidden(roles, pack())).sum()


def gradients(roles, role):
    """Backward of the role's loss alone; the gradients by parameter."""
    for parameter in roles.parameters(role):
        parameter.grad = None
    with roles.use(role):
        if role == "policy":
            loss = completion_logps(roles, pack()).sum()
        else:
            loss = roles.head_output(role, completion_hidden(roles, pack())).sum()
        loss.backward()
    return [p.grad.clone() for p in roles.parameters(role)]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "nf4"])
def test_a_fresh_adapter_is_the_base_exactly(precision, make_roles):
    """B = 0: log-probabilities are bit-identical with the adapter on and off, and KL is exactly 0."""
    roles = make_roles(precision)
    scores = score(roles, pack())
    assert torch.equal(scores.logps, scores.reference_logps)
    assert (scores.kl == 0).all()
    assert (scores.entropy.sum(1) > 0).all()


def test_roles_are_independent(four_roles):
    """Each role gives its own result, in any order, and the former role is back afterwards."""
    roles = four_roles()
    with torch.no_grad():
        first = {role: logps_as(roles, role, pack()) for role in ("policy", "reference", "value", "reward")}
        again = {role: logps_as(roles, role, pack()) for role in reversed(first)}
    assert roles.active == "policy"
    assert all(torch.equal(first[role], again[role]) for role in first)
    values = list(first.values())
    assert all(not torch.equal(a, b) for i, a in enumerate(values) for b in values[:i])


def test_the_former_role_is_back_after_an_error(four_roles):
    """Nested and interrupted: the adapter that was active is active again."""
    roles = four_roles()
    before = logps_as(roles, "policy", pack())
    with pytest.raises(ZeroDivisionError), roles.use("value"), roles.use("reference"):
        raise ZeroDivisionError
    assert roles.active == "policy"
    with torch.no_grad():
        assert torch.equal(completion_logps(roles, pack()), before)


def test_an_error_while_a_checkpointed_graph_waits_is_that_error(four_roles):
    """Running out of memory between a forward pass and its backward pass is not told as a forbidden switch."""
    roles = four_roles()
    roles.model.train()
    roles.causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    roles.model.enable_input_require_grads()
    hidden = []
    with pytest.raises(torch.OutOfMemoryError), roles.use("value"):
        hidden.append(completion_hidden(roles, pack()))
        raise torch.OutOfMemoryError
    assert roles.active == "policy"


@pytest.mark.parametrize("architecture", ["toy", "toy_gpt2"])
def test_adapters_on_embeddings_are_the_roles_own(architecture, request):
    """peft names their parameters in another way: they are trained, copied and scored as those of matrices."""
    embeddings = {"toy": "embed_tokens", "toy_gpt2": "wte"}[architecture]
    spec = ModelSpec(label="toy", folder=request.getfixturevalue(architecture), precision="fp32")
    lora = LoraSpec(r=4, alpha=8, targets=(embeddings, "q_proj", "c_attn"))
    roles = RoleModel(models.add_lora(models.load_base(spec), lora, seed=0, dtype=torch.float32))
    assert {id(p) for p in roles.parameters("policy")} == {id(p) for p in roles.model.parameters() if p.requires_grad}
    assert [layer for layer, _ in roles.layered_parameters("policy")] == [0] * 4 + [1] * 2
    with torch.no_grad():
        for parameter in roles.parameters("policy"):
            parameter.add_(0.1)
    roles.add("reference", copy_of="policy")
    policy = logps_as(roles, "policy", pack())
    assert torch.equal(policy, logps_as(roles, "reference", pack()))
    said = score_roles(roles, pack(), ("policy", "reference"))
    assert torch.equal(said["policy"], said["reference"])
    completion_logps(roles, pack()).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in roles.parameters("policy"))


def test_a_copy_starts_equal_and_stays_when_the_other_moves(make_roles):
    """The reference of a warm start is frozen: moving the policy moves it by nothing."""
    roles = make_roles(noise=0.05)
    roles.add("reference", copy_of="policy")
    before = logps_as(roles, "reference", pack())
    assert torch.equal(before, logps_as(roles, "policy", pack()))
    make_roles.perturb(roles, "policy", 0.1)
    assert torch.equal(before, logps_as(roles, "reference", pack()))
    assert not torch.equal(before, logps_as(roles, "policy", pack()))


def test_a_value_copied_from_a_reward_starts_as_its_predictor(make_roles):
    """Adapter and head: the value of the last token is the reward model's score."""
    roles = make_roles()
    roles.add("reward")
    make_roles.perturb(roles, "reward", 0.1)
    roles.add("value", copy_of="reward", train=True)
    with torch.no_grad():
        outputs = []
        for role in ("reward", "value"):
            with roles.use(role):
                outputs.append(roles.head_output(role, completion_hidden(roles, pack())))
    assert torch.equal(*outputs)
    assert outputs[0].abs().max() > 0


def test_a_fresh_value_is_zero(make_roles):
    """Its head starts at zero, so that the first advantages are the rewards."""
    roles = make_roles()
    roles.add("value", train=True)
    with torch.no_grad(), roles.use("value"):
        assert (roles.head_output("value", completion_hidden(roles, pack())) == 0).all()


def test_a_fresh_role_depends_on_its_seed_alone(make_roles):
    """Not on what was drawn before: a shared reward model must not depend on which cell trains it."""
    drawn = []
    for seed, before in ((0, 0), (0, 5), (1, 0)):
        roles = make_roles()
        torch.rand(before)
        state = torch.get_rng_state()
        roles.add("reward", seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        drawn.append(roles.parameters("reward")[0].detach())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_only_trained_roles_require_gradients_whatever_is_active(four_roles):
    """peft's set_adapter clears requires_grad on the others; a value would silently not train."""
    roles = four_roles()
    for role in ("reference", "value", "reward", "policy"):
        with roles.use(role):
            trained = {id(p) for name in ("policy", "value") for p in roles.parameters(name)}
            everything = [*roles.model.parameters(), *roles.heads.parameters()]
            assert {id(p) for p in everything if p.requires_grad} == trained
    roles.model.set_adapter("reward")
    roles.refresh()
    assert all(p.requires_grad for p in roles.parameters("value"))
    assert not any(p.requires_grad for p in roles.parameters("reward"))


@pytest.mark.parametrize("role", ["policy", "value", "reward"])
def test_gradient_checkpointing_changes_no_gradient(role, four_roles):
    """Recomputation runs with the role's own adapter. The value's gradient passes through frozen layers."""
    roles = four_roles()
    roles.trained.add(role)
    roles.refresh()
    expected = gradients(roles, role)
    roles.model.train()
    roles.causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    roles.model.enable_input_require_grads()
    assert any(gradient.abs().max() > 0 for gradient in expected)
    for a, b in zip(gradients(roles, role), expected, strict=True):
        assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_a_switch_is_refused_while_a_checkpointed_graph_waits(four_roles):
    """Policy and value losses added up before one backward: recomputed with the wrong adapter, so an error."""
    roles = four_roles()
    roles.model.train()
    roles.causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    roles.model.enable_input_require_grads()
    policy = loss_of(roles, "policy")
    with pytest.raises(RoleError, match=r"(?s)policy to value.*backward\(\)"), roles.use("value"):
        pass
    assert roles.active == "policy"
    policy.backward()
    with roles.use("value"):
        dropped = roles.head_output("value", completion_hidden(roles, pack())).sum()
        with pytest.raises(RoleError), roles.use("policy"):
            pass
        del dropped
        with roles.use("policy"):
            assert roles.active == "policy"


def test_without_checkpointing_a_switch_before_backward_is_exact(four_roles):
    """All activations are held, so nothing is recomputed: the sum's gradients are those of the parts."""
    roles = four_roles()
    expected = gradients(roles, "policy") + gradients(roles, "value")
    parameters = roles.parameters("policy") + roles.parameters("value")
    for parameter in parameters:
        parameter.grad = None
    (loss_of(roles, "policy") + loss_of(roles, "value")).backward()
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-5)


def test_scoring_is_allowed_while_a_plain_graph_waits_and_without_gradients(four_roles):
    """A no-grad pass leaves nothing pending under checkpointing either."""
    roles = four_roles()
    roles.model.train()
    roles.causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    with torch.no_grad():
        completion_logps(roles, pack())
    with roles.use("reference"):
        assert roles.active == "reference"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "nf4"])
def test_roles_scored_in_one_pass_are_those_scored_apart(precision, make_roles):
    """Policy, reference, value and reward mixed in one batch: bit for bit what separate passes give."""
    roles = make_roles(precision, noise=0.05)
    for noise, role in ((0.03, "value"), (0.04, "reward")):
        roles.add(role, train=role == "value")
        make_roles.perturb(roles, role, noise)
    for wanted in (
        ("policy", "reference"),
        ("reference", "policy", "value"),
        ("policy", "reference", "value", "reward"),
    ):
        mixed = score_roles(roles, pack(), wanted)
        for role in wanted:
            assert torch.equal(mixed[role], logps_as(roles, role, pack())), (wanted, role)
    assert roles.active == "policy"
    assert roles.mixed == ()


def test_a_mixed_pass_is_counted_by_role(four_roles):
    """Its tokens and FLOPs are those of separate passes, role by role."""
    roles = four_roles()
    apart, mixed = Meter({"steps": 1}), Meter({"steps": 1})
    for meter, passes in (
        (apart, [("policy",), ("reference",), ("value",)]),
        (mixed, [("policy", "reference", "value")]),
    ):
        detach = meter.attach(roles)
        for wanted in passes:
            score_roles(roles, pack(), wanted)
        detach()
    assert apart.roles == mixed.roles
    assert apart.roles["value"].tokens_scored == 6 + 7


def test_a_mixed_backward_pass_is_counted_by_role(four_roles):
    """As two passes with gradients: trained tokens, and FLOPs forward and backward."""
    roles, packed = four_roles(), pack()
    apart, mixed = Meter({"steps": 1}), Meter({"steps": 1})
    detach = apart.attach(roles)
    for role in ("policy", "value"):
        with roles.use(role):
            roles.hidden(packed.input_ids, packed.attention_mask).sum().backward()
    detach()
    detach = mixed.attach(roles)
    states = dict(roles.hidden_by_role(("policy", "value"), packed.input_ids, packed.attention_mask))
    (states["policy"].sum() + states["value"].sum()).backward()
    detach()
    assert apart.roles == mixed.roles
    assert mixed.roles["value"].tokens_trained == 6 + 7


def test_a_value_on_the_policys_trunk_has_a_head_only(make_roles):
    """It reads the policy's hidden states; what it trains is one row of weights and a bias."""
    roles = make_roles(noise=0.05)
    roles.add("value", on_policy=True, train=True)
    assert roles.shares_adapter("value")
    assert [p.numel() for p in roles.parameters("value")] == [64, 1]
    assert all(p.requires_grad for role in ("policy", "value") for p in roles.parameters(role))
    with torch.no_grad():
        roles.heads["value"].weight.fill_(0.1)
        with roles.use("policy"):
            hidden = completion_hidden(roles, pack())
    expected = roles.head_output("value", hidden)
    said = score_roles(roles, pack(), ("policy", "value"))
    assert torch.equal(said["value"][pack().completion_mask.bool()], expected)


def test_tidy_takes_off_what_a_trainer_added(make_roles):
    """TRL leaves its frozen copy on the model; the next trainer would fail to add its own."""
    roles = make_roles(noise=0.05)
    roles.add("reference", copy_of="policy")
    before = logps_as(roles, "policy", pack())
    roles.model.add_adapter("ref", roles.model.peft_config["default"])
    roles.model.set_adapter("ref")
    roles.tidy()
    assert set(roles.model.peft_config) == {"default", "reference"}
    assert torch.equal(logps_as(roles, "policy", pack()), before)
    assert all(p.requires_grad for p in roles.parameters("policy"))


@pytest.mark.parametrize("precision", ["bf16", "nf4"])
def test_loading_an_adapter_keeps_the_parameters(precision, make_roles, tmp_path):
    """An optimizer made before still trains the model after a checkpoint is loaded, in the cell's precision."""
    roles = make_roles(precision, noise=0.05)
    roles.model.save_pretrained(tmp_path)
    saved = logps_as(roles, "policy", pack())
    held = roles.parameters("policy")
    make_roles.perturb(roles, "policy", 0.1)
    roles.model.load_adapter(str(tmp_path), "default", is_trainable=True)
    assert all(a is b for a, b in zip(held, roles.parameters("policy"), strict=True))
    assert {p.dtype for p in held} == {torch.bfloat16}
    assert torch.equal(logps_as(roles, "policy", pack()), saved)
