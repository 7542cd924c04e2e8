"""A reward model on random labels: what is dealt, and that nothing is left to learn."""

from collections import Counter

import pandas as pd
from bakeoff.algorithms.random_labels import dealt_anew

from bakeoff import registry
from bakeoff.spec import EvaluationSpec, PluginSpec, PreparationSpec

PAIR = {"id": "p", "prompt_ids": [3], "completion_ids": [[4], [5]], "scores": [1.0, 0.0]}


def test_scores_are_dealt_anew_and_follow_the_seed():
    """Of 400 pairs about half keep their label, four completions have their own scores, and the seed says which."""
    dealt = dealt_anew([PAIR] * 400, seed=3)
    kept = Counter(tuple(row["scores"]) for row in dealt)
    assert set(kept) == {(1.0, 0.0), (0.0, 1.0)} and 160 < kept[1.0, 0.0] < 240
    assert all(row["completion_ids"] == [[4], [5]] for row in dealt)
    (four,) = dealt_anew([{**PAIR, "scores": [0.1, 0.4, 0.2, 0.4]}], seed=3)
    assert sorted(four["scores"]) == [0.1, 0.2, 0.4, 0.4]
    assert dealt == dealt_anew([PAIR] * 400, seed=3) != dealt_anew([PAIR] * 400, seed=4)


def test_it_is_a_control_that_differs_in_its_labels_alone():
    """The same settings and data as ``reward-model``, and no presets of its own."""
    plugin, row = registry.load("algorithm", "random-labels"), registry.load("algorithm", "reward-model")
    assert plugin.is_control and not row.is_control
    assert plugin.Settings is row.Settings and plugin.consumes == row.consumes and plugin.role == "reward"
    assert not plugin.presets


def test_it_learns_nothing_that_a_reward_model_learns(toy_cell, run_cell):
    """On held-out pairs of the task "letters" the labels are worth more than a tenth of the pairs."""
    accuracy = {}
    for name in ("reward-model", "random-labels"):
        cell = toy_cell(
            name,
            {"learning_rate": 5e-3, "batch": 8},
            budget={"steps": 20},
            evaluators=(PluginSpec(name="pair_accuracy", label="pair_accuracy"),),
            preparation=PreparationSpec(prompts=32, samples=4),
            evaluation=EvaluationSpec(prompts=16, probes=0),
        )
        scores = pd.read_parquet(run_cell(cell, run=name) / "scores.parquet")
        accuracy[name] = scores.loc[scores["metric"] == "pair_accuracy", "value"].mean()
    assert accuracy["reward-model"] > accuracy["random-labels"] + 0.1
