"""Best-of-n, by hand and in a cell."""

import json
import math

import pandas as pd
import pytest

from bakeoff import registry
from bakeoff.contracts import CompletionContext


def best_of(n):
    plugin = registry.load("algorithm", "best-of-n")
    return plugin(plugin.Settings(n=n))


def test_the_bound_on_its_kl():
    """log 4 - 3/4 nats for four samples, 0 for one; it is no measured KL."""
    assert best_of(4).kl_bound() == pytest.approx(1.386294 - 0.75)
    assert best_of(1).kl_bound() == 0
    assert not {"logprobs", "model"} & best_of(4).measured_by()


def test_each_completion_is_the_best_of_candidates_of_its_own():
    """Two completions of two: sample 0 of draws 0 and 2, sample 1 of draws 1 and 3; of equals, the first."""
    draws = [("p", 0, "a"), ("q", 0, "bb"), ("p", 1, "c"), ("q", 1, "d"),
             ("p", 2, "eee"), ("q", 2, "ff"), ("p", 3, "g"), ("q", 3, "hhhh")]  # fmt: skip
    asked = []

    def sample(count):
        asked.append(count)
        return pd.DataFrame(draws, columns=["prompt_id", "sample", "completion"])

    def reward(rows, completions):
        assert [row["id"] for row in rows] == ["p", "q"] * 4
        return [float(len(text)) for text in completions]

    rows = [{"id": "p"}, {"id": "q"}]
    chosen = best_of(2).complete(CompletionContext(rows, 2, sample, lambda texts: None, reward))
    assert asked == [4]
    assert list(chosen.columns) == ["prompt_id", "sample", "completion"]
    assert chosen.values.tolist() == [["p", 0, "eee"], ["q", 0, "bb"], ["p", 1, "c"], ["q", 1, "hhhh"]]


def test_a_cell_pays_for_its_samples_and_has_no_kl(toy_cell, run_cell):
    """Best of one is the base, text for text; the best of four scores higher, draws four times as many, and moves no
    weight. Both have rewards and neither a KL."""
    folders = {name: run_cell(toy_cell(*made), run=name) for name, made in {
        "base": ("base",), "one": ("best-of-n", {"n": 1}), "four": ("best-of-n", {"n": 4}),
    }.items()}  # fmt: skip
    texts = {name: pd.read_parquet(folder / "samples.parquet")["completion"] for name, folder in folders.items()}
    assert list(texts["one"]) == list(texts["base"]) != list(texts["four"])
    scores = {name: pd.read_parquet(folder / "scores.parquet") for name, folder in folders.items()}
    rewards = {name: frame.query("metric == 'gold_reward'")["value"].to_numpy() for name, frame in scores.items()}
    assert (rewards["four"] >= rewards["base"]).all() and (rewards["four"] > rewards["base"]).any()
    assert "kl" in set(scores["base"]["metric"])
    assert set(scores["four"]["metric"]) == {"gold_reward", "train_reward"}
    ledgers = {name: json.loads((folder / "ledger.json").read_text()) for name, folder in folders.items()}
    assert ledgers["base"]["spent"]["flops"] == 0
    drawn = {name: ledger["spent"]["tokens_generated"] for name, ledger in ledgers.items()}
    assert 2 * drawn["one"] < drawn["four"] < 6 * drawn["one"]
    assert ledgers["four"]["overshoot"] == {"steps": 0.0}
    cell = json.loads((folders["four"] / "cell.json").read_text())
    assert cell["is_control"] and cell["kl_bound"] == pytest.approx(math.log(4) - 0.75)
    assert not (folders["four"] / "adapter").exists()
