"""What the algorithms on text share: blocks, the budget, the meter, and the same draws after a restart."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bakeoff import models, registry
from bakeoff.roles import RoleModel
from bakeoff.spec import LoraSpec
from bakeoff.testing import toy_model

NAMES = ["pretrain", "mntp", "denoise", "simcse"]


def train(name, context, **settings):
    plugin = registry.load("algorithm", name)
    plugin(plugin.Settings(**({"batch": 2, "learning_rate": 1e-2} | settings))).train(context)
    return context.lines


@pytest.mark.parametrize("name", NAMES)
def test_only_the_adapter_moves(name, make_roles, make_context):
    """Two steps: the base is bit-identical, the policy is not, and attention is to the left again."""
    context = make_context(make_roles(noise=0.05), budget={"steps": 2})
    before = {key: p.detach().clone() for key, p in context.policy.named_parameters()}
    lines = train(name, context)
    moved = {key for key, p in context.policy.named_parameters() if not torch.equal(p, before[key])}
    assert moved
    assert all("lora_" in key for key in moved)
    assert context.roles.causal_lm.config.is_causal
    assert len(lines) == 2
    assert all(line["loss"] > 0 for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides(name, make_roles, make_context):
    """The same seed gives the same losses, another one others: what is random is drawn from it."""
    losses = []
    for seed in (0, 0, 1):
        context = make_context(make_roles(noise=0.05), budget={"steps": 3}, seed=seed)
        losses.append([line["loss"] for line in train(name, context)])
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


@pytest.mark.parametrize("name", NAMES)
def test_the_meter_counts_what_is_computed(name, make_context):
    """FLOPs of a step within 5 % of torch's own count, and every position that was attended to, in each pass."""
    model = toy_model(layers=6, hidden=128)
    model.resize_token_embeddings(2048, mean_resizing=False)
    model.set_attn_implementation("eager")
    model.requires_grad_(False)
    roles = RoleModel(models.add_lora(model, LoraSpec(r=8, alpha=16), seed=0, dtype=torch.float32))
    context = make_context(roles)
    with FlopCounterMode(display=False) as counter:
        train(name, context, batch=4)
    assert context.meter.spent()["flops"] == pytest.approx(counter.get_total_flops(), rel=0.05)
    assert set(context.meter.roles) == {"policy"}
    text = [row["input_ids"] for row in context.text]
    total = sum(map(len, text))
    assert context.meter.prompts == {"simcse": 4}.get(name, min(4, total // 32))
    if name == "pretrain":
        assert context.meter.spent()["tokens_trained"] == total // 32 * 32
    if name == "simcse":
        by_length = sorted(map(len, text))
        trained = context.meter.spent()["tokens_trained"]
        assert 2 * sum(by_length[:4]) <= trained <= 2 * sum(by_length[-4:])


@pytest.mark.parametrize("name", NAMES)
def test_no_sequence_is_longer_than_allowed(name, make_roles, make_context):
    """Blanks, gaps and ends included."""
    context = make_context(make_roles())
    widths = []
    context.roles.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    train(name, context)
    longest = max(len(row["input_ids"]) for row in context.text)
    assert 32 - 6 <= widths[0] <= 32 if name != "simcse" else widths[0] <= longest
