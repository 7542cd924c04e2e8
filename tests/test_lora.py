"""LoRA layers for a while: adapters mixed in one batch, with gradients, and one folded into the weights."""

import pytest
import torch
from peft.tuners.lora import LoraLayer

from bakeoff.errors import RoleError
from bakeoff.lora import merged, mixed
from bakeoff.rollout import Sequences, at_completion, completion_hidden, logits_of, logps_as

PROMPTS = [[3, 4, 5, 6], [7, 8], [9, 3, 5]]
COMPLETIONS = [[9, 10, 0], [11, 12, 13, 14], [15]]


def pack():
    return Sequences.pack(PROMPTS, COMPLETIONS, pad=0, device="cpu")


# -------------------------------------------------------------------------- several adapters in one batch


@pytest.fixture
def two_roles(make_roles, request):
    """``two_roles(precision, architecture)``: policy and value, both trained, with weights of their own."""

    def make(precision="fp32", architecture="toy"):
        roles = make_roles(precision, folder=request.getfixturevalue(architecture), noise=0.05)
        roles.add("value", train=True)
        make_roles.perturb(roles, "value", 0.03)
        roles.model.train()
        return roles

    return make


def backward(roles, hidden):
    """Gradients by parameter of a loss that weighs the two roles' hidden states differently."""
    parameters = roles.parameters("policy") + roles.parameters("value")[:-2]
    for parameter in parameters:
        parameter.grad = None
    (hidden["policy"].float().square().mean() + 3 * hidden["value"].float().sin().mean()).backward()
    return [parameter.grad.float() for parameter in parameters]


@pytest.mark.parametrize("architecture", ["toy", "toy_gpt2"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 2e-2), ("nf4", 2e-2)])
def test_a_mixed_pass_has_the_gradients_of_passes_apart(precision, tolerance, architecture, two_roles):
    """Hidden states bit for bit; gradients to rounding, relative to each parameter's."""
    roles, packed, apart = two_roles(precision, architecture), pack(), {}
    for role in ("policy", "value"):
        with roles.use(role):
            apart[role] = completion_hidden(roles, packed)
    expected = backward(roles, apart)
    inputs = packed.input_ids, packed.attention_mask
    mixed = {role: at_completion(states, packed) for role, states in roles.hidden_by_role(("policy", "value"), *inputs)}
    assert all(torch.equal(mixed[role], apart[role]) for role in apart)
    for gradient, truth in zip(backward(roles, mixed), expected, strict=True):
        assert truth.norm() > 0
        assert (gradient - truth).norm() <= tolerance * truth.norm()


def test_rows_that_a_layer_gets_flat_are_mixed_as_others(two_roles):
    """As a mixture calls its shared expert, with (tokens, width): the numbers of (rows, tokens, width)."""
    roles = two_roles()
    layer = next(module for module in roles.backbone.modules() if isinstance(module, LoraLayer))
    inputs = torch.randn(4, 3, layer.in_features, generator=torch.Generator().manual_seed(0))
    found = []
    with mixed(roles.backbone, ("default", "value")):
        for shape in ((4, 3), (12,)):
            given = inputs.reshape(*shape, -1).clone().requires_grad_()
            roles.model.zero_grad()
            output = layer(given)
            output.square().sum().backward()
            weights = (layer.lora_A, layer.lora_B)
            gradients = [matrices[name].weight.grad for matrices in weights for name in ("default", "value")]
            found.append([tensor.flatten() for tensor in (output, given.grad, *gradients)])
    for wide, flat in zip(*found, strict=True):
        assert torch.equal(wide, flat)


def test_a_role_that_a_loss_leaves_out_gets_no_gradient(two_roles):
    """Rows meet in the base's matrices only: the value's loss is nothing to the policy."""
    roles, packed = two_roles(), pack()
    hidden = dict(roles.hidden_by_role(("policy", "reference", "value"), packed.input_ids, packed.attention_mask))
    hidden["value"].sum().backward()
    assert all((parameter.grad == 0).all() for parameter in roles.parameters("policy"))
    assert any((parameter.grad != 0).any() for parameter in roles.parameters("value")[:-2])


def test_a_mixed_pass_with_gradients_is_refused_under_checkpointing(two_roles):
    """Recomputed after the pass, all rows would get one adapter and both roles wrong gradients."""
    roles, packed = two_roles(), pack()
    roles.causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    roles.model.enable_input_require_grads()
    with pytest.raises(RoleError, match="policy and value in one pass"):
        dict(roles.hidden_by_role(("policy", "value"), packed.input_ids, packed.attention_mask))
    with torch.no_grad():
        assert len(dict(roles.hidden_by_role(("policy", "value"), packed.input_ids, packed.attention_mask))) == 2
    assert roles.mixed == ()


# ------------------------------------------------------------------------------------ one adapter folded in


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 2e-2), ("int8", 2e-2), ("nf4", 2e-2)])
def test_sampling_and_scoring_are_one_distribution(precision, tolerance, make_roles):
    """Merged weights against base and adapter apart, for an adapter not at zero: mean total variation a token."""
    roles = make_roles(precision, noise=0.05)

    @torch.no_grad()
    def distributions():
        return torch.softmax(logits_of(roles, completion_hidden(roles, pack())), -1)

    apart = distributions()
    with merged(roles.backbone):
        together = distributions()
    assert 0.5 * (together - apart).abs().sum(1).mean() < tolerance
    with roles.use("reference"):
        base = distributions()
        with merged(roles.backbone):
            assert 0.5 * (distributions() - base).abs().sum(1).mean() < tolerance
    assert 0.5 * (base - apart).abs().sum(1).mean() > 5 * tolerance


def test_merging_is_undone_even_after_an_error(make_roles):
    """The layers' own forward is back, bit for bit."""
    roles = make_roles("nf4", noise=0.05)
    before = logps_as(roles, "policy", pack())
    with pytest.raises(ZeroDivisionError), merged(roles.backbone):
        raise ZeroDivisionError
    assert torch.equal(logps_as(roles, "policy", pack()), before)
    assert not any("forward" in module.__dict__ for module in roles.backbone.modules() if hasattr(module, "lora_A"))
