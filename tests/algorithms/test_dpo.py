"""DPO on the toy."""

import math

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset

from bakeoff import registry
from bakeoff.rollout import Sequences, logps_as


def pairs(context, chosen, rejected):
    """Each prompt with the same two replies, ended by EOS."""
    encode = context.tokenizer
    rows = []
    for row in context.prompts:
        ids = {name: [*encode(text)["input_ids"], 0] for name, text in (("chosen", chosen), ("rejected", rejected))}
        rows.append(
            {"id": row["id"], "prompt": row["prompt"], "chosen": chosen, "rejected": rejected}
            | {"prompt_ids": row["prompt_ids"], "chosen_ids": ids["chosen"], "rejected_ids": ids["rejected"]}
        )
    return Dataset.from_list(rows)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_the_preference(seed, make_roles, make_context, learn):
    """Thirty steps of "eeeeeee" over "a bad w": a fifth more "e" than before."""
    context = make_context(make_roles(r=8), budget={"steps": 30}, seed=seed)
    context.preferences = pairs(context, "eeeeeee", "a bad w")
    before, after = learn("dpo", {"learning_rate": 1e-2, "batch": 8, "beta": 0.05}, context=context)
    assert after > before + 0.2


@pytest.mark.parametrize("precision", ["fp32", "bf16", "nf4"])
def test_a_policy_that_is_its_reference_pays_log_two(precision, make_roles, make_context):
    """It cannot tell the pair apart."""
    context = make_context(make_roles(precision))
    dpo = registry.load("algorithm", "dpo")
    dpo(dpo.Settings(batch=8)).train(context)
    assert context.lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_the_loss_is_the_papers(make_roles, make_context):
    """-log sigmoid(beta (log-ratio of chosen - of rejected)) on the cell's own tokens, once the policy has moved."""
    roles = make_roles()
    context = make_context(roles, budget={"steps": 2})
    dpo = registry.load("algorithm", "dpo")
    seen = []

    def second_step():
        if len(seen) == 1:
            return
        rows = list(context.preferences)
        ratios = []
        for kind in ("chosen_ids", "rejected_ids"):
            packed = Sequences.pack(
                [row["prompt_ids"] for row in rows], [row[kind] for row in rows], pad=0, device="cpu"
            )
            policy = logps_as(roles, "policy", packed)
            with roles.use("reference"):
                ratios.append((policy - logps_as(roles, "reference", packed)).sum(1))
        seen.append(-F.logsigmoid(0.3 * (ratios[0] - ratios[1])).mean().item())

    context.callbacks[0].after_step = second_step
    dpo(dpo.Settings(batch=8, beta=0.3, learning_rate=1e-3)).train(context)
    assert context.lines[1]["loss"] == pytest.approx(seen[0], abs=1e-5)
    assert abs(seen[0] - math.log(2)) > 1e-3


def test_it_trains_on_the_cells_tokens(make_roles, make_context):
    """TRL would append EOS to a completion that was cut off: the rows' ids go in as they are."""
    context = make_context(make_roles())
    rows = [{**row, "chosen_ids": row["chosen_ids"][:-1]} for row in context.preferences]
    context.preferences = Dataset.from_list(rows)
    seen = []
    embedding = context.roles.causal_lm.get_input_embeddings()
    embedding.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    dpo = registry.load("algorithm", "dpo")
    dpo(dpo.Settings(batch=8)).train(context)
    expected = sorted(row["prompt_ids"] + row["chosen_ids"] for row in rows)
    widths = {tuple(ids) for batch in seen for ids in batch.tolist()}
    width = seen[0].shape[1]
    assert all(tuple(ids + [0] * (width - len(ids))) in widths for ids in expected)
    assert torch.is_tensor(seen[0])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"label_noise": 0.1}, "label_noise has no effect on sigmoid: the loss for wrong labels is cdpo or robust"),
        ({"loss": "ipo", "label_noise": 0.1}, "label_noise has no effect on ipo"),
        ({"loss": "exo_pair"}, "exo_pair needs a label_noise above 0"),
        ({"discopop_tau": 0.1}, "discopop_tau has no effect on sigmoid"),
        ({"loss": "aot", "weighting": True}, "aot sorts a batch's"),
        ({"loss": "hinge", "weighting": True}, "TRL cannot weigh hinge"),
        ({"loss": {"sigmoid": 1.0, "sft": 1.0}, "weighting": True}, "TRL cannot weigh sft"),
        ({"loss": "nca_pair", "divergence": "forward_kl"}, "nca_pair exists for the reverse KL only"),
        ({"loss": {}}, "at least 1 item"),
        ({"loss": "simpo"}, "Input should be"),
    ],
)
def test_a_setting_without_effect_is_refused(settings, told):
    """TRL passes over some of them in silence, and raises for others once the model is loaded."""
    with pytest.raises(ValueError, match=told):
        registry.load("algorithm", "dpo").Settings(**settings)


def test_conservative_dpo_smooths_the_label(make_roles, make_context):
    """Once the policy has moved: (1 - e) of the sigmoid loss and e of the flipped pair's, on the same margins."""
    dpo = registry.load("algorithm", "dpo")
    losses = {}
    for name, settings in {
        "right": {"loss": "sigmoid"},
        "smoothed": {"loss": "cdpo", "label_noise": 0.25},
        "alone": {"loss": {"cdpo": 1.0}, "label_noise": 0.25},
    }.items():
        context = make_context(make_roles(noise=0.05), budget={"steps": 1})
        context.roles.add("reference", copy_of="policy")
        begin = context.callbacks[0].on_train_begin

        def moved(args, state, control, begin=begin, roles=context.roles, **kwargs):
            begin(args, state, control, **kwargs)
            make_roles.perturb(roles, "policy", 0.2)

        context.callbacks[0].on_train_begin = moved
        dpo(dpo.Settings(batch=8, beta=0.5, **settings)).train(context)
        losses[name] = context.lines[0]["loss"]
        margin = context.lines[0]["rewards/margins"]
    # l(-u) = l(u) + u
    assert losses["smoothed"] == pytest.approx(losses["right"] + 0.25 * margin, abs=1e-4)
    assert losses["alone"] == losses["smoothed"]
    assert abs(margin) > 0.05
