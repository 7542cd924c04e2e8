"""SFT on the toy."""

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset

from bakeoff import registry
from bakeoff.cellprocess import classify, one_line
from bakeoff.errors import Incompatible, PluginFailure


def demonstrations(context, reply):
    """Each prompt with the same reply and EOS."""
    ids = [*context.tokenizer(reply)["input_ids"], 0]
    return Dataset.from_list(
        [
            {"id": row["id"], "input_ids": row["prompt_ids"] + ids, "labels": [-100] * len(row["prompt_ids"]) + ids}
            for row in context.prompts
        ]
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_the_demonstrations(seed, make_roles, make_context, learn):
    """Fifteen steps on "eeeee": from a fifth or less of "e" to most letters."""
    context = make_context(make_roles(r=8), budget={"steps": 15}, seed=seed)
    context.demonstrations = demonstrations(context, "eeeee")
    before, after = learn("sft", {"learning_rate": 1e-2, "batch": 8}, context=context)
    assert before < 0.35
    assert after > 0.7


def test_the_first_loss_is_the_mean_over_completion_tokens(make_roles, make_context):
    """Prompts and padding do not count, the EOS that pads does where it ends a completion."""
    roles = make_roles(noise=0.05)
    context = make_context(roles)
    losses = []
    for row in context.demonstrations:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
        with torch.no_grad():
            logits = roles.model(input_ids=ids).logits[0, :-1]
        losses.append(F.cross_entropy(logits, labels[1:], reduction="none")[labels[1:] != -100])
    expected = torch.cat(losses).mean().item()
    sft = registry.load("algorithm", "sft")
    sft(sft.Settings(batch=8)).train(context)
    assert context.lines[0]["loss"] == pytest.approx(expected, abs=1e-5)


def train(context, **settings):
    """One run of SFT; what it logged."""
    sft = registry.load("algorithm", "sft")
    sft(sft.Settings(**{"batch": 8, "learning_rate": 1e-2} | settings)).train(context)
    return context.lines


def by_layer(roles):
    """The policy's adapter, layer by layer, as copies."""
    found = {}
    for layer, parameter in roles.layered_parameters("policy"):
        found.setdefault(layer, []).append(parameter.detach().clone())
    return found


def moved(before, after):
    """The layers of which something moved, and by how much at most."""
    changes = {
        layer: max((a - b).abs().max().item() for a, b in zip(before[layer], after[layer], strict=True))
        for layer in before
    }
    return {layer: change for layer, change in changes.items() if change > 0}


@pytest.mark.parametrize(("layers", "expected"), [(None, {0, 1}), (1, {1}), ([0], {0}), ([-1], {1}), (2, {0, 1})])
def test_only_the_chosen_layers_learn(layers, expected, make_roles, make_context):
    """The others are bit-identical afterwards, probes in between or not, and every layer may learn again."""
    context = make_context(make_roles(noise=0.05), budget={"steps": 2})
    roles = context.roles

    def probe():
        with roles.use("reference"):
            pass

    context.callbacks[0].after_step = probe
    before = by_layer(roles)
    train(context, train_layers=layers)
    assert set(moved(before, by_layer(roles))) == expected
    assert all(parameter.requires_grad for parameter in roles.parameters("policy"))


@pytest.mark.parametrize("layers", [0, 3, [2], [-3], []])
def test_a_layer_that_there_is_not_is_refused(layers, make_roles, make_context):
    """The toy has two."""
    with pytest.raises(Incompatible, match="has 2 layers"):
        train(make_context(make_roles()), train_layers=layers)


def test_a_cell_with_a_layer_that_there_is_not_is_incompatible(toy_cell, run_cell):
    """It is no failure of the plugin, whose name is told once."""
    with pytest.raises(PluginFailure) as caught:
        run_cell(toy_cell("sft", {"train_layers": 99}))
    assert classify(caught.value) == "incompatible"
    assert one_line(caught.value) == "sft failed: train_layers is 99, but the model has 2 layers."


def test_each_layer_learns_more_slowly_than_the_one_above(make_roles, make_context):
    """Adam's first step is the learning rate for every parameter with a gradient: 1e-2 on top, a fifth of it below."""
    context = make_context(make_roles(noise=0.05))
    before = by_layer(context.roles)
    lines = train(context, layer_decay=0.2)
    changes = moved(before, by_layer(context.roles))
    assert changes == pytest.approx({1: 1e-2, 0: 2e-3}, rel=1e-3)
    assert lines[0]["learning_rate"] == 1e-2


def token_logps(roles, row):
    """Log-probability of each of a row's tokens after the first, and their labels."""
    ids = torch.tensor([row["input_ids"]])
    with torch.no_grad():
        logps = roles.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return logps.gather(1, ids[0, 1:, None])[:, 0], torch.tensor(row["labels"])[1:]


def test_dft_weighs_each_token_by_its_probability(make_roles, make_context):
    """-p log p, mean over completion tokens: worth less than nll, where a token is unlikely above all."""
    context = make_context(make_roles(noise=0.05))
    logps = torch.cat([found[labels != -100] for found, labels in
                       (token_logps(context.roles, row) for row in context.demonstrations)])  # fmt: skip
    assert train(context, loss="dft")[0]["loss"] == pytest.approx(-(logps.exp() * logps).mean().item(), abs=1e-5)


def test_the_gradient_of_dft_leaves_the_weight_alone(make_roles, make_context):
    """One token: DFT's gradient is p times that of nll, and not the derivative of -p log p."""
    row = {"id": "0", "input_ids": [3, 4, 5], "labels": [-100, -100, 5]}
    gradients = {}
    for loss in ("nll", "dft"):
        context = make_context(make_roles(noise=0.05))
        context.demonstrations = Dataset.from_list([row])
        probability = token_logps(context.roles, row)[0][-1].exp()
        gradients[loss] = gradients_of(context, loss=loss, batch=1)
    for nll, dft in zip(gradients["nll"], gradients["dft"], strict=True):
        assert torch.allclose(dft, probability * nll, atol=1e-7)


def gradients_of(context, **settings):
    """The policy's gradients of the first step, before they are clipped."""
    kept = []

    def keep(args, state, control, **kwargs):
        kept.extend(p.grad.clone() for p in context.roles.parameters("policy"))

    context.callbacks[0].on_pre_optimizer_step = keep
    arguments = context.trainer_arguments
    context.trainer_arguments = lambda **overrides: arguments(**overrides) | {"max_grad_norm": 1e9}
    train(context, **settings)
    return kept


def test_the_loss_may_be_on_the_prompt_too(make_roles, make_context):
    """Mean over all tokens but the first, which nothing predicts."""
    context = make_context(make_roles(noise=0.05))
    logps = torch.cat([token_logps(context.roles, row)[0] for row in context.demonstrations])
    assert train(context, loss_on="sequence")[0]["loss"] == pytest.approx(-logps.mean().item(), abs=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packing_changes_no_gradient(attention, make_roles, make_context):
    """Eight rows in packs of at most 32 tokens, each attending to itself only: the gradient of eight padded rows."""
    found = {}
    for packing in (False, True):
        context = make_context(make_roles(noise=0.05))
        context.roles.causal_lm.set_attn_implementation(attention)
        found[packing] = gradients_of(context, packing=packing)
        assert context.meter.prompts == 8
        tokens = sum(len(row["input_ids"]) for row in context.demonstrations)
        assert context.meter.spent()["tokens_trained"] == tokens
    assert any(gradient.abs().max() > 1e-3 for gradient in found[False])
    for plain, packed in zip(found[False], found[True], strict=True):
        assert torch.allclose(plain, packed, atol=1e-6)


def test_neftune_adds_noise_of_its_size_and_leaves_none(make_roles, make_context):
    """Uniform within alpha / sqrt(T x width) of the embedding in training; nothing in a probe or afterwards."""
    context = make_context(make_roles())
    table = context.roles.causal_lm.get_input_embeddings().weight
    seen, ids = [], []
    backbone = context.roles.causal_lm.base_model
    backbone.register_forward_pre_hook(lambda module, args, kwargs: ids.append(kwargs["input_ids"]), with_kwargs=True)
    backbone.layers[0].register_forward_pre_hook(lambda module, args: seen.append((args[0] - table[ids[-1]]).detach()))
    train(context, neftune_alpha=5.0)
    noise = seen[0]
    bound = 5.0 / (noise.shape[1] * 64) ** 0.5
    assert 0.9 * bound < noise.abs().max() <= bound
    assert abs(noise.mean()) < 0.05 * bound
    with torch.no_grad():
        context.roles.model.train()(input_ids=torch.tensor([[3, 4, 5]]))
    assert seen[-1].abs().max() == 0
