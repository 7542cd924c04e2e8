"""One answer for every prompt."""

import json

import pandas as pd
import pytest

from bakeoff.pricing import incompatible
from bakeoff.spec import EvaluationSpec, PluginSpec


@pytest.mark.parametrize(
    ("text", "expected", "reward"),
    [("", ("", 1, True), 0.0), ("eel", ("eel", 4, True), 2 / 3), ("eeeeeeeeeeee", ("eeeeeeee", 8, False), 1.0)],
)
def test_it_answers_the_same_to_all(text, expected, reward, toy_cell, run_cell):
    """Eight tokens at most, EOS among them where it fits; no model is asked and no KL is claimed."""
    twice = EvaluationSpec(prompts=8, samples=2, probes=0)
    folder = run_cell(toy_cell("null-answer", {"text": text}, evaluation=twice))
    samples = pd.read_parquet(folder / "samples.parquet")
    assert len(samples) == 16 and not samples.duplicated(["prompt_id", "sample"]).any()
    found = samples[["completion", "n_tokens", "ended_eos"]].itertuples(index=False, name=None)
    assert set(found) == {expected} and (samples["truncated"] != samples["ended_eos"]).all()
    scores = pd.read_parquet(folder / "scores.parquet")
    assert set(scores["metric"]) == {"gold_reward", "train_reward"}
    assert scores["value"].unique() == pytest.approx([reward])
    assert json.loads((folder / "ledger.json").read_text())["spent"]["flops"] == 0


def test_evaluators_that_need_the_policy_cannot_measure_it(toy_cell):
    """With nothing but the KL to measure, the cell is incompatible and says what would measure it."""
    only_kl = toy_cell("null-answer", evaluators=(PluginSpec(name="kl", label="kl"),))
    assert "such as reward or health" in str(incompatible(only_kl))
    assert incompatible(toy_cell("null-answer")) is None
