"""What a plan knows of reward models before anything is loaded: whether one can be had, and what it costs."""

import pytest

from bakeoff.pricing import estimate, incompatible
from bakeoff.spec import PluginSpec, PreparationSpec, RewardModelSpec


@pytest.fixture
def asking(toy_cell):
    """``asking(algorithm, comparisons=...)``: a cell that asks for a reward model of eight sampled prompts."""

    def make(algorithm="ppo", task=None, prompts=8, **settings):
        spec = PreparationSpec(prompts=prompts, samples=2, reward="model", reward_model=RewardModelSpec(**settings))
        return toy_cell(algorithm, preparation=spec, task=task)

    return make


def test_a_reward_yields_a_reward_model(asking):
    """Samples are ranked by it; as many comparisons as prompts can be had at most."""
    assert incompatible(asking()) is None
    assert incompatible(asking(comparisons=8)) is None
    assert "learn from 9 comparisons, but at most 8 prompts are ranked" in incompatible(asking(comparisons=9))
    assert "at most 32 prompts" in incompatible(asking(prompts=999, comparisons=33))


def test_a_task_without_anything_to_rank_by(asking, tmp_path):
    """Demonstrations alone say nothing about which of two completions is better."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"prompt": "{n}", "completion": "yes"}}\n' for n in range(20)))
    task = PluginSpec(name="file", label="rows", settings={"train": str(path)})
    assert "'rows' has nothing to rank completions by" in incompatible(asking("sft", task))


def test_a_reward_model_has_its_price(asking, toy_cell):
    """More steps and more samples cost more; a row that needs none pays nothing for it."""
    cheap, dear = estimate(asking(steps=10)).seconds, estimate(asking(steps=1000)).seconds
    assert dear > cheap > estimate(toy_cell("ppo")).seconds
    assert estimate(asking(prompts=32, steps=10)).seconds > cheap
