"""What a plan knows of reward models before anything is loaded: whether one can be had, and what stages cost."""

import pytest

from bakeoff import registry
from bakeoff.contracts import Algorithm
from bakeoff.pricing import _Pace, _training_s, estimate, incompatible
from bakeoff.spec import BudgetSpec, EvaluationSpec, PluginSpec, PreparationSpec, RewardModelSpec, WarmStartSpec
from bakeoff.stageids import planned_stages


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


@pytest.mark.parametrize("raised", [ValueError("no\nline"), SystemExit("no line")], ids=repr)
def test_a_question_that_raises_makes_one_cell_incompatible(raised, toy_cell):
    """The plan of the others is made all the same."""

    class Odd(Algorithm):
        title = "Odd"

        @classmethod
        def unavailable(cls):
            raise raised

        def train(self, context):
            raise NotImplementedError

    told = f"odd cannot run here: its unavailable() raised {type(raised).__name__}: no line; mend"
    with registry.lend("algorithm", "odd", Odd):
        assert incompatible(toy_cell("odd")).startswith(told)
        assert incompatible(toy_cell("sft")) is None


def test_training_ends_with_the_first_limit():
    """Ten weights, three tokens, 100 FLOPs/s: a sequence takes 1.8 s at 6 FLOPs a weight and token, 2.4 s at 8."""
    pace = _Pace(weights=10, tokens=3, rate=100)
    assert _training_s("sft", {"batch": 4}, {"steps": 5}, pace) == pytest.approx(4 * 5 * 1.8)
    assert _training_s("sft", {"batch": 4}, {"steps": 5, "seconds": 10}, pace) == 10
    assert _training_s("dpo", {"batch": 4}, {"prompts": 5}, pace) == pytest.approx(5 * 2 * 1.8)
    rollout = {"prompts_per_rollout": 8, "group": 2, "minibatches": 4}
    assert _training_s("ppo", rollout, {"steps": 5}, pace) == pytest.approx(5 * 4 * 2.4)
    assert _training_s("ppo", rollout, {"flops": 500}, pace) == 5
    assert _training_s("sft", {"batch": "as many as fit"}, {"steps": 5}, pace) == pytest.approx(16 * 5 * 1.8)
    assert _training_s("base", {}, {"steps": 5}, pace) == 0


@pytest.mark.parametrize(
    ("kind", "change", "dearer"),
    [
        ("reward-model", {"steps": 10}, {"steps": 1000}),
        ("samples", {"prompts": 8}, {"prompts": 32}),
        ("reference-pool", {"pool": 4}, {"pool": 16}),
        ("warm-start", {"warm": 1}, {"warm": 5}),
    ],
)
def test_a_stage_has_its_price(kind, change, dearer, asking):
    """The cell that is the first to need it pays, and pays more for more."""

    def price(pool=0, warm=1, **settings):
        stage = {"algorithm": PluginSpec(name="sft", label="sft"), "budget": BudgetSpec(name="w", steps=warm)}
        cell = asking(**settings).model_copy(
            update={
                "evaluation": EvaluationSpec(prompts=8, reference_samples=pool),
                "warm_start": (WarmStartSpec(**stage),),
            }
        )
        keys = [key for key in planned_stages(cell) if key.kind == kind]
        return estimate(cell, keys).seconds - estimate(cell).seconds

    assert price(**dearer) > price(**change) > 0
