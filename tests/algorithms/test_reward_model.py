"""A reward model as a row of a matrix: trained within a budget, measured on pairs, asked for no samples."""

import json

import pandas as pd
import pytest
import torch

from bakeoff import registry, worker
from bakeoff.reward_model import RewardModel
from bakeoff.roles import RoleModel
from bakeoff.setup import load
from bakeoff.spec import EvaluationSpec, PluginSpec, PreparationSpec, RewardModelSettings

EVALUATORS = tuple(PluginSpec(name=name, label=name) for name in ("reward", "kl", "pair_accuracy"))
SETTINGS = {"learning_rate": 5e-3, "batch": 8}


@pytest.fixture
def row(toy_cell):
    """``row(settings, budget=..., **fields)``: a cell of ``reward-model`` on the task "letters"."""

    def make(settings=None, **fields):
        preparation = PreparationSpec(prompts=32, samples=4)
        spec = EvaluationSpec(prompts=16, probes=1, probe_prompts=8)
        shared = {"evaluators": EVALUATORS, "preparation": preparation, "evaluation": spec}
        return toy_cell("reward-model", SETTINGS | (settings or {}), **{"budget": {"steps": 20}, **shared, **fields})

    return make


def test_a_row_is_measured_on_held_out_pairs(row, run_cell):
    """It learns to rank samples it never saw; no evaluator of samples was asked, and the cost is on the ledger."""
    cell = row()
    folder = run_cell(cell)
    scores = pd.read_parquet(folder / "scores.parquet")
    assert {"pair_accuracy", "calibration_error", "swap_consistency"} <= set(scores["metric"])
    assert not {"gold_reward", "train_reward", "kl"} & set(scores["metric"])
    assert pd.read_parquet(folder / "samples.parquet").empty
    by_time = scores[scores["metric"] == "pair_accuracy"].groupby("fraction")["value"]
    assert sorted(by_time.groups) == [0.5, 1.0]
    assert by_time.mean()[1.0] > 0.6
    held_out = {row.row["id"] for row in load(cell).rows.test}
    assert set(scores["prompt_id"]) <= held_out
    ledger = json.loads((folder / "ledger.json").read_text())
    assert set(ledger["roles"]) == {"reward"} | ({"policy"} & set(ledger["roles"]))
    assert ledger["roles"]["reward"]["tokens_trained"] == ledger["spent"]["tokens_trained"] > 0
    assert ledger["spent"]["prompts"] == 20 * 8
    assert [stage["kind"] for stage in ledger["shared"]] == ["samples"]


def test_what_a_row_leaves_scores_in_another_cell(row, run_cell, tokenizer):
    """Its folder holds a reward model that loads onto a fresh base, normalised."""
    cell = row()
    folder = run_cell(cell)
    setup = load(cell)
    model = RewardModel(setup.roles, setup.tokenizer, max_new_tokens=8)
    model.restore(folder / "adapter")
    rewards = model.rewards([[3, 4]] * 2, [tokenizer("eeee")["input_ids"], tokenizer("zzzz")["input_ids"]])
    assert rewards[0] > rewards[1]
    assert model.facts["raw_std"] > 0


def test_trained_tokens_are_a_budget(row, run_cell):
    """The budget counts the role that is trained, so it ends, within a step."""
    ledger = json.loads((run_cell(row(budget={"tokens_trained": 4000})) / "ledger.json").read_text())
    assert 4000 <= ledger["spent"]["tokens_trained"] < 6000


def test_noise_hurts(row, run_cell):
    """A coin's labels teach nothing: the clean ones do better by far."""
    accuracy = {}
    for noise in (0.0, 0.5):
        scores = pd.read_parquet(run_cell(row({"label_noise": noise}), run=f"noise{noise}") / "scores.parquet")
        accuracy[noise] = scores.query("metric == 'pair_accuracy' and fraction == 1.0")["value"].mean()
    assert accuracy[0.0] > accuracy[0.5] + 0.1


def test_a_row_that_nothing_measures_is_incompatible(row):
    """A plan says so, before anything is trained."""
    told = worker.incompatible(row(evaluators=EVALUATORS[:2]))
    assert "reward-model trains a reward model, which none of the evaluators measures (reward, kl)" in told
    assert worker.incompatible(row()) is None


def test_every_loss_is_a_preset():
    """Each with its own title, and settings that differ in the loss alone."""
    plugin = registry.load("algorithm", "reward-model")
    losses = RewardModelSettings.model_fields["loss"].annotation.__args__
    assert set(plugin.presets) == set(losses)
    assert all(preset.settings == {"loss": loss} for loss, preset in plugin.presets.items())
    assert len({preset.title for preset in plugin.presets.values()}) == len(losses)


def test_the_policy_stays(row, run_cell, monkeypatch):
    """Not a weight of the policy's adapter moves."""
    seen = []

    class Watched(RoleModel):
        def __init__(self, model):
            super().__init__(model)
            seen.append((self, [p.detach().clone() for p in self.parameters("policy")]))

    monkeypatch.setattr("bakeoff.roles.RoleModel", Watched)
    run_cell(row())
    roles, before = seen[0]
    assert all(torch.equal(a, b) for a, b in zip(before, roles.parameters("policy"), strict=True))
