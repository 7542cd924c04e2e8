"""What cells share: derived demonstrations and pairs, the reward model, and each stage computed once."""

import json

import pandas as pd
import pytest
import torch

from bakeoff import setup as setups
from bakeoff.errors import Incompatible
from bakeoff.spec import EvaluationSpec, PluginSpec, PreparationSpec, RewardModelSpec
from bakeoff.stageids import planned_stages
from bakeoff.stages import Stages
from bakeoff.store import Store

WORDS = ["the", "film", "was", "good", "bad", "seen", "three", "we", "were", "here"]


@pytest.fixture
def stages_of(tmp_path):
    """``stages_of(cell)``: the cell, loaded, with its stages in one run's store."""

    def make(cell):
        return Stages(setups.load(cell), Store(tmp_path / "run"), lambda phase, fraction, note: None)

    return make


@pytest.fixture
def pairs_task(tmp_path):
    """A file of preference pairs without a reward: the chosen word has an "e", the rejected one has none."""
    path = tmp_path / "pairs.jsonl"
    with_e, without = ["three", "were", "here", "seen"], ["bad", "was", "film", "good"]
    rows = [
        {"prompt": f"{word} {n} ", "chosen": with_e[n % 4], "rejected": without[(n + i) % 4]}
        for n in range(12)
        for i, word in enumerate(WORDS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PluginSpec(name="file", label="pairs", settings={"train": str(path), "max_new_tokens": 8})


# ----------------------------------------------------------------------------------------- derived rows


def test_demonstrations_are_the_best_samples(toy_cell, stages_of):
    """One a prompt, the completion with the highest reward, labelled after the prompt only."""
    stages = stages_of(toy_cell("sft"))
    rows = stages.demonstrations()
    samples = stages.samples()
    assert len(samples) == 16 * 4
    assert len(rows) == 16
    for row in rows:
        own = samples[samples["prompt_id"] == row["id"]]
        best = own.loc[own["reward"].idxmax()]
        assert row["input_ids"] == [*best["prompt_ids"], *best["completion_ids"]]
        assert row["labels"] == [-100] * len(best["prompt_ids"]) + list(best["completion_ids"])
    assert "of 4 samples" in stages.derived["demonstrations"]


def test_prompts_have_the_columns_that_arrow_holds(toy_cell, stages_of, tmp_path):
    """Integers over 64 bits and mixed types stay in the rows that rewards get, and stop no cell."""
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"the film {n}", "kept": n, "huge": 2**70, "mixed": [n] if n % 2 else "n"} for n in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"train": str(path), "reward": "sentiment", "max_new_tokens": 8}
    stages = stages_of(toy_cell("grpo", task=PluginSpec(name="file", label="rows", settings=settings)))
    prompts = stages.prompts()
    assert set(prompts.column_names) == {"id", "prompt", "prompt_ids", "kept"}
    assert prompts[0]["kept"] == rows[0]["kept"]
    assert stages.setup.rows.train[0].row["huge"] == 2**70


def test_the_reference_pool_is_scored_and_shared_by_all_seeds(toy_cell, stages_of):
    """Five samples of the start for each of two held-out prompts, each with its reward; the same for another seed."""
    evaluation = EvaluationSpec(prompts=2, reference_samples=5)
    stages = stages_of(toy_cell("grpo", evaluation=evaluation))
    name = stages.reference_pool()
    pool = pd.read_parquet(stages.store.stage(name) / "samples.parquet")
    assert pool.groupby("prompt_id")["sample"].nunique().tolist() == [5, 5]
    assert pool["gold_reward"].tolist() == [text.count("e") / max(1, len(text)) for text in pool["completion"]]
    assert (pool["gold_reward"] == pool["train_reward"]).all()
    assert stages.shared == []
    assert stages_of(toy_cell("sft", seed=1, evaluation=evaluation)).reference_pool() == name
    assert stages_of(toy_cell("sft", evaluation=EvaluationSpec(reference_samples=0))).reference_pool() is None


def test_pairs_are_the_best_and_the_worst_samples(toy_cell, stages_of):
    """Only where their rewards differ."""
    stages = stages_of(toy_cell("dpo"))
    rows, samples = stages.preferences(), stages.samples()
    for row in rows:
        own = samples[samples["prompt_id"] == row["id"]].set_index("reward")["completion_ids"]
        assert row["chosen_ids"] in [list(ids) for ids in own[own.index == own.index.max()]]
        assert row["rejected_ids"] in [list(ids) for ids in own[own.index == own.index.min()]]
        assert own.index.max() > own.index.min()
    assert f"{len(rows)} pairs" in stages.derived["preferences"]


def test_samples_that_are_all_alike_make_no_pair(toy_cell, stages_of):
    """The cell is incompatible, and the message says what to raise."""
    task = PluginSpec(name="letters", label="letters", settings={"constant": True})
    with pytest.raises(Incompatible, match=r"(?s)equal rewards.*preparation\.samples"):
        stages_of(toy_cell("dpo", task=task)).preferences()


def test_no_sample_that_is_good_enough(toy_cell, stages_of):
    """A threshold that nothing reaches."""
    preparation = PreparationSpec(prompts=4, samples=2, min_reward=2.0)
    with pytest.raises(Incompatible, match=r"(?s)good enough.*min_reward"):
        stages_of(toy_cell("sft", preparation=preparation)).demonstrations()


def test_a_tasks_own_rows_come_first(toy_cell, stages_of, pairs_task):
    """Pairs of the file train DPO; their chosen halves train SFT; nothing is sampled."""
    stages = stages_of(toy_cell("dpo", task=pairs_task))
    rows = {row.row["id"]: row for row in stages.setup.rows.train}
    assert all(row["chosen_ids"] == rows[row["id"]].completions["chosen"] for row in stages.preferences())
    assert len(stages.demonstrations()) == len(rows)
    assert stages.derived == {}
    assert stages.shared == []


def test_a_stage_is_computed_once_and_charged_to_each_user(toy_cell, stages_of, monkeypatch):
    """The second cell reads the first one's samples; both ledgers show what they cost."""
    first, second = stages_of(toy_cell("sft")), stages_of(toy_cell("dpo"))
    samples = first.samples()
    monkeypatch.setattr("bakeoff.evaluation.draw_samples", None)
    pd.testing.assert_frame_equal(samples, second.samples())
    assert first.shared == second.shared
    assert first.shared[0]["kind"] == "samples"
    assert first.shared[0]["tokens_generated"] == samples["n_tokens"].sum()


@pytest.mark.parametrize(
    "change", [{"precision": "bf16"}, {"warm_start": "sft"}, {"preparation": PreparationSpec(prompts=8)}]
)
def test_another_start_or_another_size_is_another_stage(change, toy_cell, stages_of):
    """What determines the samples is in the stage's id."""
    ids = set()
    for cell in (toy_cell("sft"), toy_cell("dpo"), toy_cell("sft", **change)):
        stages = stages_of(cell)
        for number in range(len(cell.warm_start)):
            stages.warm_start(number, lambda folder, meter: None)
        stages.samples()
        ids.add(stages.shared[-1]["stage"])
    assert len(ids) == 2


# ---------------------------------------------------------------------------------------- reward model


def test_a_reward_model_learns_the_pairs_and_survives_the_disk(toy_cell, stages_of, pairs_task):
    """High, recorded accuracy on held-out pairs; normalised rewards; saved and loaded, the same to the last bit."""
    cell = toy_cell("grpo", task=pairs_task, precision="nf4")
    first, second = stages_of(cell), stages_of(cell)
    for stages in (first, second):
        stages.reward_model()
    assert [key.id for key in planned_stages(cell) if key.charged] == [stage["stage"] for stage in first.shared]
    assert "accuracy" in first.derived["reward"]
    rows = [row.row for row in first.setup.rows.test]
    texts = ["three", "bad", "here", "good"]
    scores = [stages.setup.train_reward(rows[:4], texts) for stages in (first, second)]
    assert scores[0] == scores[1]
    assert min(scores[0][0], scores[0][2]) > max(scores[0][1], scores[0][3])
    accuracy = float(first.derived["reward"].split("accuracy ")[1].split(" ")[0])
    assert accuracy > 0.9
    train = [row.row for row in first.setup.rows.train]
    both = [first.setup.train_reward(train, [row[kind] for row in train]) for kind in ("chosen", "rejected")]
    assert abs(torch.tensor(both).mean()) < 0.2
    assert torch.tensor(both).std() == pytest.approx(1.0, abs=0.2)


def test_a_reward_model_goes_on_from_its_checkpoint(toy_cell, stages_of, pairs_task, tmp_path):
    """Killed in its third of four steps, it has two to do, and gives the rewards and the bill of an unbroken one."""
    preparation = PreparationSpec(reward_model=RewardModelSpec(steps=4))
    cell = toy_cell("grpo", task=pairs_task, precision="nf4", preparation=preparation, checkpoint_s=0)
    whole, left = stages_of(cell), []
    whole.reward_model()
    (folder,) = (whole.store.folder / "stages").glob("reward-model-*")
    folder.rename(tmp_path / "whole")

    def kill(phase, fraction, note):
        if fraction == 0.5:
            raise KeyboardInterrupt

    broken, resumed = stages_of(cell), stages_of(cell)
    broken.progress, resumed.progress = kill, lambda phase, fraction, note: left.append(fraction)
    with pytest.raises(KeyboardInterrupt):
        broken.reward_model()
    resumed.reward_model()
    assert left == [0.0, 0.5, 0.75]
    rows = [row.row for row in whole.setup.rows.test][:4]
    texts = ["three", "bad", "here", "good"]
    assert whole.setup.train_reward(rows, texts) == resumed.setup.train_reward(rows, texts)
    bills = [stages.shared[-1] for stages in (whole, resumed)]
    assert bills[0]["steps"] == bills[1]["steps"] == 4
    assert bills[0]["flops"] == bills[1]["flops"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )


def test_training_a_reward_model_leaves_the_policy_alone(toy_cell, stages_of, pairs_task):
    """Its adapter and head move; policy and base do not, and it requires no gradient afterwards."""
    stages = stages_of(toy_cell("grpo", task=pairs_task))
    roles = stages.setup.roles
    before = [p.detach().clone() for p in roles.model.parameters()]
    stages.reward_model()
    kept = [p for name, p in roles.model.named_parameters() if ".reward." not in name]
    assert all(torch.equal(a, b) for a, b in zip(before, kept, strict=True))
    assert all((p != 0).any() for p in roles.parameters("reward")[:-1])
    assert {id(p) for p in roles.model.parameters() if p.requires_grad} == {id(p) for p in roles.parameters("policy")}
    assert not any(p.requires_grad for p in roles.heads.parameters())


def noisy(toy_cell, algorithm="ppo", **settings):
    """A cell on "letters" whose reward is a model of ranked samples."""
    spec = RewardModelSpec(**{"steps": 10, "batch": 8, "learning_rate": 5e-3, **settings})
    preparation = PreparationSpec(prompts=24, samples=2, reward="model", reward_model=spec)
    small = {"prompts_per_rollout": 8, "epochs": 1} if algorithm == "ppo" else {}
    return toy_cell(algorithm, small, preparation=preparation, budget={"steps": 1})


def test_a_reward_model_can_be_asked_for(toy_cell, stages_of):
    """Where the task has a reward too: samples are ranked by the gold one, some labels flipped, and all of it told."""
    stages = stages_of(noisy(toy_cell, comparisons=12, label_noise=0.25))
    own = stages.setup.train_reward
    stages.reward_model()
    assert stages.setup.train_reward is not own
    assert [stage["kind"] for stage in stages.shared] == ["samples", "reward-model"]
    assert "of 12 comparisons, 25% of them turned round" in stages.derived["reward"]
    assert "2 samples of the start by gold reward" in stages.derived["rankings"]
    # Demonstrations and pairs stay what an annotator would choose, not what the model prefers.
    preferences = stages.preferences()
    share = [[text.rstrip().count("e") for text in preferences[side]] for side in ("chosen", "rejected")]
    assert sum(share[0]) > sum(share[1])


def test_a_larger_reward_model_is_another_stage_of_the_same_samples(toy_cell, stages_of):
    """Any of its settings is in the stage's id; the samples are shared."""
    first, second = (stages_of(noisy(toy_cell, comparisons=count)) for count in (6, 12))
    for stages in (first, second):
        stages.reward_model()
    assert first.shared[0]["stage"] == second.shared[0]["stage"]
    assert first.shared[1]["stage"] != second.shared[1]["stage"]
    for stages, comparisons in ((first, 6), (second, 12)):
        planned = planned_stages(noisy(toy_cell, "ppo", comparisons=comparisons))
        assert [key.id for key in planned if key.charged] == [stage["stage"] for stage in stages.shared]


@pytest.mark.parametrize(
    ("algorithm", "paid"), [("base", []), ("dpo", ["samples"]), ("ppo", ["samples", "reward-model"])]
)
def test_only_who_trains_on_the_reward_pays_for_its_model(algorithm, paid, toy_cell, stages_of):
    """Others are measured by it; DPO pays for the samples that its own pairs are made of."""
    cell = noisy(toy_cell, algorithm, comparisons=6)
    stages = stages_of(cell)
    stages.reward_model()
    if algorithm == "dpo":
        stages.preferences()
    assert [stage["kind"] for stage in stages.shared] == paid
    planned = planned_stages(cell)
    assert [key.kind for key in planned if key.charged] == paid
    assert {"samples", "reward-model"} <= {key.kind for key in planned}


def test_held_out_pairs_are_samples_that_nobody_pays_for(toy_cell, stages_of):
    """Of the held-out prompts, from the start, by the gold reward; the labels are right whatever the training's are."""
    stages = stages_of(noisy(toy_cell, label_noise=0.5))
    rows = stages.held_out_rankings()
    assert {row["id"] for row in rows} <= {row.row["id"] for row in stages.setup.evaluation_rows}
    assert stages.shared == []
    gold = stages.setup.gold
    texts = [stages.setup.tokenizer.decode(ids, skip_special_tokens=True) for ids in rows[0]["completion_ids"]]
    assert rows[0]["scores"] == gold([{}, {}], texts)


def test_a_policy_row_shows_its_reward_model(toy_cell, run_cell):
    """Proxy and gold since the start, and the reward model on held-out pairs, at the end of a whole cell."""
    evaluators = tuple(PluginSpec(name=name, label=name) for name in ("reward", "over_optimisation", "pair_accuracy"))
    cell = noisy(toy_cell, comparisons=12).model_copy(update={"evaluators": evaluators})
    scores = pd.read_parquet(run_cell(cell) / "scores.parquet")
    assert {"train_reward", "proxy_gain", "gold_gain", "pair_accuracy"} <= set(scores["metric"])


def test_ppo_starts_its_value_from_the_reward_model(toy_cell, run_cell, pairs_task, monkeypatch):
    """A whole cell on pairs alone: the value's first numbers are the reward model's, and the derived reward is told."""
    from bakeoff import on_policy_trainer

    seen = []
    roll_out = on_policy_trainer.OnPolicyTrainer.roll_out

    def recorded(self):
        if not seen:
            value, reward = self.roles.parameters("value"), self.roles.parameters("reward")
            seen.append(all(torch.equal(a, b) for a, b in zip(value, reward, strict=True)))
        return roll_out(self)

    monkeypatch.setattr(on_policy_trainer.OnPolicyTrainer, "roll_out", recorded)
    folder = run_cell(toy_cell("ppo", {"prompts_per_rollout": 8, "epochs": 1}, task=pairs_task, budget={"steps": 2}))
    assert seen == [True]
    cell, ledger = json.loads((folder / "cell.json").read_text()), json.loads((folder / "ledger.json").read_text())
    assert "bradley-terry, of 114 comparisons" in cell["data"]["derived"]["reward"]
    assert [stage["kind"] for stage in ledger["shared"]] == ["reward-model"]
    assert set(ledger["roles"]) == {"policy", "reference", "value", "reward"}
    assert ledger["trainable"]["auxiliary"] > ledger["trainable"]["policy"]
