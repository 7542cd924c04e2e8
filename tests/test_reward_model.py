"""The reward model as a role: what it scores, what it learns, and that head and adapter survive the disk."""

import json
import subprocess
import sys

import pytest
import torch

from bakeoff import models
from bakeoff.errors import RoleError, StoreError
from bakeoff.reward_model import RewardModel, _passes
from bakeoff.roles import RoleModel
from bakeoff.spec import LoraSpec, ModelSpec, RewardModelSettings

LOSSES = RewardModelSettings.model_fields["loss"].annotation.__args__
WITH_E, WITHOUT = ["three", "were", "here", "seen"], ["bad", "was", "film", "good"]


@pytest.fixture
def make_model(make_roles, tokenizer):
    """``make_model(precision)``: an untrained reward model on a toy."""

    def make(precision="fp32", **kwargs):
        return RewardModel(make_roles(precision, **kwargs), tokenizer, max_new_tokens=8)

    return make


def rankings(tokenizer, count=24):
    """Rankings of four words: the more letters "e" the better, so that two of the four tie now and then."""
    rows = []
    for number in range(count):
        words = [WITH_E[number % 4], WITHOUT[number % 4], WITH_E[(number + 1) % 4], "ever eel "[: 3 + number % 6]]
        rows.append(
            {
                "id": str(number),
                "prompt_ids": tokenizer(f"the {number} ")["input_ids"],
                "completion_ids": [[*tokenizer(word)["input_ids"], 0] for word in words],
                "scores": [word.count("e") / 3 for word in words],
            }
        )
    return rows


def fit(model, rows, *, steps=25, **settings):
    chosen = RewardModelSettings(learning_rate=5e-3, batch=8, **settings)
    model.fit(rows, chosen, steps=lambda optimizer: range(steps), decay=lambda step: 1 - step / steps, seed=0)
    model.normalise(rows)
    return model


# ------------------------------------------------------------------------------------------- rewards


def test_rewards_do_not_depend_on_padding(make_model, make_roles):
    """A row alone and beside a much longer one: the same number."""
    model = make_model()
    make_roles.perturb(model.roles, "reward", 0.1)
    alone = model.rewards([[3, 4]], [[5, 0]])
    beside = model.rewards([[3, 4], [6] * 40], [[5, 0], [7] * 9])
    assert beside[0] == pytest.approx(alone[0], abs=1e-5)
    assert beside[1] != pytest.approx(alone[0], abs=1e-3)


def test_passes_are_of_like_length_and_bounded(make_model, monkeypatch):
    """Longest first, as many as the padded tokens allow; one that is too long alone is a pass of its own."""
    assert list(_passes([(2, 10), (2, 90), (2, 12), (2, 11), (2, 300)], 100)) == [[4], [1], [2, 3, 0]]
    assert not list(_passes([], 100))
    model, seen = make_model(), []
    scored = model._raw
    monkeypatch.setattr(
        model, "_raw", lambda prompts, ids: seen.append(list(map(len, prompts))) or scored(prompts, ids)
    )
    monkeypatch.setattr("bakeoff.reward_model.PASS_TOKENS", 84)
    model.roles.trained.add("reward")
    model.rewards([[3] * length for length in (40, 2, 30, 3)], [[5, 0]] * 4)
    assert seen == [[40, 30], [3, 2]]


def test_the_second_scoring_is_beside_others(make_model, monkeypatch):
    """Also of short texts that fit into one pass, and of long ones that are a pass each."""
    for length in (4, 40):
        model, seen = make_model(), []
        scored = model._raw
        monkeypatch.setattr(model, "_raw", lambda *ids: seen.append(len(ids[0])) or scored(*ids))  # noqa: B023
        monkeypatch.setattr("bakeoff.reward_model.PASS_TOKENS", 50)
        model.roles.trained.add("reward")
        row = {"id": "a", "prompt_ids": [3] * length, "completion_ids": [[5, 0], [6, 0]], "scores": [0.0, 1.0]}
        model.pairs([row | {"id": str(number)} for number in range(4)])
        first, again = ([8], [3, 3, 2]) if length == 4 else ([1] * 8, [3, 3, 2])
        assert seen == [*first, *again]


def test_a_step_in_several_passes_is_the_same_step(make_model, make_roles, tokenizer, monkeypatch):
    """The gradient of a batch does not depend on how many passes it takes."""
    found = []
    for tokens in (10_000, 1):
        monkeypatch.setattr("bakeoff.reward_model.PASS_TOKENS", tokens)
        model = make_model()
        make_roles.perturb(model.roles, "reward", 0.1)
        fit(model, rankings(tokenizer), steps=3)
        found.append([parameter.detach().clone() for parameter in model.roles.parameters("reward")])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-5)


def test_the_end_of_a_completion_is_scored(make_model, make_roles):
    """The reward is read at the last token, EOS where it came, though that is the pad token too."""
    model = make_model()
    roles = model.roles
    make_roles.perturb(roles, "reward", 0.1)
    ended, cut = model.rewards([[3, 4]] * 2, [[5, 6, 0], [5, 6]])
    with torch.no_grad(), roles.use("reward"):
        ids = torch.tensor([[3, 4, 5, 6, 0]])
        every_position = roles.head_output("reward", roles.hidden(ids, torch.ones_like(ids)))[0]
    assert [cut, ended] == pytest.approx(every_position[-2:].tolist(), abs=1e-5)
    assert abs(ended - cut) > 1e-3


def test_a_new_head_is_refused_unless_it_is_trained(make_model):
    """Its rewards would mean nothing; an optimizer that holds it may look at them all the same."""
    model = make_model()
    with pytest.raises(RoleError, match=r"(?s)newly initialised.*Load a reward model"):
        model.rewards([[3, 4]], [[5, 0]])
    model.roles.trained.add("reward")
    assert model.rewards([[3, 4]], [[5, 0]]) == [0.0]


def test_pairs_of_rankings(make_model, make_roles, monkeypatch):
    """Each pair whose scores differ, numbered within its prompt, in rewards, tokens and log-odds before normalising."""
    model = make_model()
    rewards = {5: 1.0, 6: 3.0, 7: 2.0, 8: -1.0, 9: 0.5}
    monkeypatch.setattr(model, "rewards", lambda prompts, completions, **how: [rewards[ids[0]] for ids in completions])
    model.facts["raw_std"] = 2.0
    rows = [
        {"id": "a", "prompt_ids": [1], "completion_ids": [[5], [6, 0], [7]], "scores": [0.0, 1.0, 0.0]},
        {"id": "b", "prompt_ids": [1], "completion_ids": [[8], [9, 9, 0]], "scores": [1.0, 0.0]},
    ]
    pairs = model.pairs(rows)
    assert pairs["prompt_id"].tolist() == ["a", "a", "b"]
    assert pairs["sample"].tolist() == [0, 1, 0]
    assert pairs["chosen_reward"].tolist() == [3.0, 3.0, -1.0]
    assert pairs["rejected_reward"].tolist() == [1.0, 2.0, 0.5]
    assert pairs["chosen_tokens"].tolist() == [2, 2, 1]
    assert pairs["rejected_tokens"].tolist() == [1, 1, 3]
    assert pairs["logit"].tolist() == [4.0, 2.0, -3.0]
    assert pairs["logit_again"].tolist() == [4.0, 2.0, -3.0]


# ------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns(loss, make_model, tokenizer):
    """Rankings of four with ties: the pairs come out right, and the policy stays as it was."""
    rows = rankings(tokenizer)
    model = make_model()
    before = [p.detach().clone() for p in model.roles.parameters("policy")]
    fit(model, rows, loss=loss)
    right = (model.pairs(rows)["logit"] > 0).mean()
    assert right > 0.85
    assert model.facts["comparisons"] == 24
    assert all(torch.equal(a, b) for a, b in zip(before, model.roles.parameters("policy"), strict=True))
    assert model.roles.trained == {"policy"}


def test_rewards_are_normalised_and_say_how(make_model, tokenizer):
    """Mean 0 and standard deviation 1 over the training completions; the raw ones come back from the facts."""
    rows = rankings(tokenizer)
    model = fit(make_model(), rows, loss="pointwise", steps=60)
    flat = [(row["prompt_ids"], ids) for row in rows for ids in row["completion_ids"]]
    rewards = torch.tensor(model.rewards(*map(list, zip(*flat, strict=True))))
    assert rewards.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert rewards.std().item() == pytest.approx(1.0, abs=1e-4)
    assert model.facts["normalised_on"] == len(flat)
    # Fitted to the scores by regression, so that the raw rewards are near them.
    scores = torch.tensor([score for row in rows for score in row["scores"]])
    raw = rewards * model.facts["raw_std"] + model.facts["raw_mean"]
    assert (raw - scores).abs().mean() < 0.15


def test_centring_holds_the_constant(make_model, tokenizer):
    """Without it nothing says where zero is; with it a prompt's raw rewards balance."""
    rows = rankings(tokenizer)
    free, held = (fit(make_model(), rows, steps=40, centring=weight) for weight in (0.0, 1.0))
    assert abs(held.facts["raw_mean"]) < 0.1
    assert abs(held.facts["raw_mean"]) < abs(free.facts["raw_mean"])


def test_a_loss_that_is_not_finite_stops(make_model, tokenizer):
    """It names the step, as divergence of any algorithm does."""
    model = make_model()
    rows = [{**row, "scores": [float("inf"), 0.0, 0.0, 0.0]} for row in rankings(tokenizer, 8)]
    with pytest.raises(FloatingPointError, match="at step 0"):
        fit(model, rows, loss="pointwise")


# ---------------------------------------------------------------------------------------------- disk

SCRIPT = """
import json, sys
from pathlib import Path
from bakeoff import models
from bakeoff.reward_model import RewardModel, _passes
from bakeoff.roles import RoleModel
from bakeoff.spec import LoraSpec, ModelSpec

toy, folder, precision, rows = sys.argv[1:]
spec = ModelSpec(label="toy", folder=Path(toy), precision=precision)
base = models.add_lora(models.load_base(spec), LoraSpec(r=4, alpha=8), seed=9, dtype=models.compute_dtype(spec))
model = RewardModel(RoleModel(base), models.load_tokenizer(spec), max_new_tokens=8)
model.restore(Path(folder))
print(json.dumps([model.rewards(*json.loads(rows)), model.facts]))
"""


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_a_saved_reward_model_is_the_same_in_a_fresh_process(precision, make_model, tokenizer, toy, tmp_path):
    """Identical rewards to the last bit, on a base and a policy adapter that know nothing of the training."""
    rows = rankings(tokenizer)
    model = fit(make_model(precision), rows, steps=6)
    model.save(tmp_path)
    inputs = [[row["prompt_ids"] for row in rows], [row["completion_ids"][0] for row in rows]]
    command = [sys.executable, "-c", SCRIPT, str(toy), str(tmp_path), precision, json.dumps(inputs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rewards, facts = json.loads(done.stdout.splitlines()[-1])
    assert len(set(rewards)) > 1
    assert rewards == model.rewards(*inputs)
    assert facts == model.facts


def test_the_adapter_is_a_standard_one(make_model, tokenizer, toy, tmp_path):
    """peft itself reads what was saved; the head lies beside it in fp32."""
    from peft import PeftModel
    from safetensors.torch import load_file

    model = fit(make_model("bf16"), rankings(tokenizer), steps=2)
    model.save(tmp_path)
    base = models.load_base(ModelSpec(label="toy", folder=toy, precision="bf16"))
    loaded = dict(PeftModel.from_pretrained(base, tmp_path / "reward").named_parameters())
    saved = load_file(tmp_path / "reward" / "adapter_model.safetensors")
    assert any(value.abs().max() > 0 for name, value in saved.items() if "lora_B" in name)
    assert all((loaded[name.replace(".weight", ".default.weight")] == value).all() for name, value in saved.items())
    assert {str(value.dtype) for value in load_file(tmp_path / "head.safetensors").values()} == {"torch.float32"}


@pytest.mark.parametrize("broken", ["head", "lora", "empty"])
def test_a_reward_model_that_does_not_fit_is_refused(broken, make_model, tokenizer, toy, tmp_path):
    """A missing head, another LoRA rank, an empty folder: an error, never a head of zeros or half an adapter."""
    model = fit(make_model(), rankings(tokenizer), steps=2)
    if broken != "empty":
        model.save(tmp_path)
    if broken == "head":
        (tmp_path / "head.safetensors").unlink()
    spec = ModelSpec(label="toy", folder=toy, precision="fp32")
    rank = 8 if broken == "lora" else 4
    base = models.add_lora(models.load_base(spec), LoraSpec(r=rank, alpha=8), seed=0, dtype=torch.float32)
    other = RewardModel(RoleModel(base), tokenizer, max_new_tokens=8)
    with pytest.raises(StoreError, match="does not fit" if broken == "lora" else "holds no reward model"):
        other.restore(tmp_path)
    with pytest.raises(RoleError, match="newly initialised"):
        other.rewards([[3]], [[4]])
