"""Whole cells on plain text, on a toy: every algorithm, encoders that are not sampled, chains of warm-start stages."""

import json
import random

import pandas as pd
import pytest
from safetensors.torch import load_file

from bakeoff import worker
from bakeoff.spec import BudgetSpec, EvaluationSpec, PluginSpec, WarmStartSpec
from bakeoff.stageids import planned_stages

WORDS = ["the", "film", "was", "good", "bad", "seen", "three", "we", "were", "here"]
ON_TEXT = {name: {"learning_rate": 5e-3, "batch": 4} for name in ("pretrain", "mntp", "denoise", "simcse")}
ENCODERS = {"mntp", "simcse"}
EVALUATORS = tuple(
    PluginSpec(name=name, label=name) for name in ("kl", "health", "perplexity", "masked_accuracy", "retrieval")
)


@pytest.fixture
def texts(tmp_path):
    """A folder of sixty texts of words that the toy has seen, most of them longer than a sequence in training."""
    folder, draws = tmp_path / "texts", random.Random(0)
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:02}.txt").write_text(" ".join(draws.choices(WORDS, k=6 + number % 12)))
    settings = {"train": str(folder), "prompt_words": 2, "max_prompt_tokens": 20, "max_new_tokens": 20}
    return PluginSpec(name="file", label="texts", settings=settings | {"test_fraction": 0.2})


@pytest.fixture
def cell_of(toy_cell, texts):
    """``cell_of("mntp", **fields)``: three steps of an algorithm on the texts."""

    def make(name, **fields):
        settings = ON_TEXT.get(name, {} if name == "base" else {"learning_rate": 5e-3, "batch": 4})
        return toy_cell(name, settings, task=texts, **{"budget": {"steps": 3}, "evaluators": EVALUATORS} | fields)

    return make


def read(folder, name):
    return json.loads((folder / name).read_text())


def adapter(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize("name", ["base", "sft", *ON_TEXT])
def test_a_cell_on_text(name, cell_of, run_cell):
    """Scored at a probe and at the end; an encoder is not sampled, so it has no metric of samples and no perplexity."""
    folder = run_cell(cell_of(name, evaluation=EvaluationSpec(prompts=8, probes=1, probe_prompts=4)))
    scores = pd.read_parquet(folder / "scores.parquet")
    of_encoders = {"masked_accuracy", "retrieval", "retrieval_mrr"}
    if name in ENCODERS:
        assert set(scores["metric"]) == of_encoders
        assert len(pd.read_parquet(folder / "samples.parquet")) == 0
    else:
        assert set(scores["metric"]) > of_encoders | {"perplexity", "nll", "kl", "length_tokens"}
        assert len(pd.read_parquet(folder / "samples.parquet")) == (8 if name == "base" else 12)
    assert read(folder, "cell.json")["is_sampled"] == (name not in ENCODERS)
    ledger = read(folder, "ledger.json")
    assert ledger["shared"] == []
    assert ledger["spent"]["prompts"] == (0 if name == "base" else 12)
    if name != "base":
        assert ledger["spent"]["tokens_trained"] > 0
        assert sorted(scores["fraction"].unique())[-1] == 1.0
        assert scores["fraction"].nunique() == 2


def test_held_out_text_becomes_likelier(cell_of, run_cell):
    """Forty steps of pre-training on words of one kind: the perplexity of others of the kind falls by a tenth."""
    before, after = (
        pd.read_parquet(run_cell(cell_of(name, budget={"steps": 40}), name=name) / "scores.parquet")
        .query("metric == 'perplexity'")["value"]
        .mean()
        for name in ("base", "pretrain")
    )
    assert after < 0.9 * before


@pytest.mark.parametrize("name", ON_TEXT)
def test_a_cell_that_crashed_goes_on_as_if_it_had_not(name, cell_of, run_cell):
    """What is hidden, and dropout too, is drawn again as it was: crash in step 4 of 6, and the weights are the same."""

    class Crash(BaseException):
        pass

    def progress(phase, fraction, note):
        if phase == "train" and fraction > 0.6:
            raise Crash

    cell = cell_of(name, budget={"steps": 6}, checkpoint_s=0)
    whole = run_cell(cell, run="whole")
    with pytest.raises(Crash):
        run_cell(cell, run="broken", progress=progress)
    resumed = run_cell(cell, run="broken")
    assert all((adapter(whole)[key] == adapter(resumed)[key]).all() for key in adapter(whole))
    pd.testing.assert_frame_equal(*(pd.read_parquet(run / "scores.parquet") for run in (whole, resumed)))


def test_an_encoder_that_nothing_could_measure_is_incompatible(cell_of):
    """Every evaluator of the matrix needs samples: the plan says so before anything trains."""
    alone = cell_of("mntp", evaluators=EVALUATORS[:2])
    assert "attends to both sides" in worker.incompatible(alone)
    assert worker.incompatible(cell_of("mntp")) is None
    assert worker.incompatible(cell_of("sft", evaluators=EVALUATORS[:2])) is None


def test_a_task_without_text_is_incompatible(toy_cell):
    """The letters task has prompts and a reward."""
    assert "pretrain trains on text, which task 'letters' neither has nor yields" in worker.incompatible(
        toy_cell("pretrain")
    )


# ------------------------------------------------------------------------------------------------- chains


def test_a_chain_is_trained_stage_by_stage(cell_of, run_cell):
    """pretrain, then sft, then the algorithm: each starts from the one before, and the last is the reference."""
    still = PluginSpec(name="sft", label="sft", settings={"learning_rate": 1e-30})
    chain = cell_of("sft", warm_start=["pretrain", "sft"], budget={"steps": 1})
    folder = run_cell(chain.model_copy(update={"algorithm": still}))
    scores = pd.read_parquet(folder / "scores.parquet")
    assert (scores.query("metric == 'kl'")["value"] == 0).all()
    shared = read(folder, "ledger.json")["shared"]
    assert [stage["label"] for stage in shared] == ["warm start: pretrain", "warm start: sft"]
    assert all(stage["steps"] == 3 and stage["flops"] > 0 for stage in shared)
    stages = folder.parents[1] / "stages"
    first, second = (load_file(stages / stage["stage"] / "policy.safetensors") for stage in shared)
    assert any((first[key] != second[key]).any() for key in first)
    inputs = read(stages / shared[1]["stage"], "stage.json")["inputs"]
    assert inputs["warm_start"] == shared[0]["stage"]


def test_a_chains_first_stage_is_shared_with_a_shorter_chain(cell_of, run_cell):
    """The same stage by content, computed once and charged to both; the second stage is the longer chain's alone."""
    short = run_cell(cell_of("sft", warm_start=["pretrain"]), name="short")
    long = run_cell(cell_of("sft", warm_start=["pretrain", "sft"]), name="long")
    ledgers = [read(folder, "ledger.json")["shared"] for folder in (short, long)]
    assert ledgers[0] == ledgers[1][:1]
    assert len(ledgers[1]) == 2


def test_an_encoder_may_be_warmed_up_by_an_encoder(cell_of, run_cell):
    """LLM2Vec's order: masked prediction, then contrastive learning. Attention is to the left again in between."""
    folder = run_cell(cell_of("simcse", warm_start=["pretrain", "mntp"]))
    assert len(read(folder, "ledger.json")["shared"]) == 2


@pytest.mark.parametrize("name", ["base", "sft"])
@pytest.mark.parametrize("chain", [["mntp"], ["pretrain", "mntp", "pretrain"]])
def test_what_is_sampled_does_not_start_at_an_encoder(name, chain, cell_of):
    """The plan says so, of the base too; what attends to both sides itself may."""
    told = worker.incompatible(cell_of(name, warm_start=chain))
    assert told.startswith("it starts at mntp, which attends to both sides and is no policy to sample from: take mntp")
    assert worker.incompatible(cell_of("simcse", warm_start=chain)) is None
    assert worker.incompatible(cell_of(name, warm_start=["pretrain"])) is None


def test_a_stage_may_prefer_its_own_start(toy_cell, run_cell):
    """A DPO stage after an SFT stage draws its pairs from the SFT stage's policy: a second stage of samples."""
    folder = run_cell(toy_cell("sft", {"learning_rate": 5e-3, "batch": 4}, warm_start=["sft", "dpo"]))
    shared = read(folder, "ledger.json")["shared"]
    assert [stage["kind"] for stage in shared] == ["samples", "warm-start", "samples", "warm-start", "samples"]
    assert len({stage["stage"] for stage in shared}) == 5


def test_a_critic_of_a_stage_does_not_outlive_it(toy_cell, run_cell):
    """PPO after PPO, by the cell that trains the stage and by one that loads it: both begin with a new critic."""
    settings = {"prompts_per_rollout": 8, "epochs": 1, "learning_rate": 5e-3}
    stage = WarmStartSpec(
        algorithm=PluginSpec(name="ppo", label="ppo", settings=settings), budget=BudgetSpec(name="w", steps=2)
    )
    cell = toy_cell("ppo", settings, budget={"steps": 2}).model_copy(update={"warm_start": (stage,)})
    first, second = (adapter(run_cell(cell, name=name)) for name in ("first", "second"))
    assert all((first[key] == second[key]).all() for key in first)


@pytest.mark.parametrize(
    ("name", "chain"), [("grpo", ()), ("sft", ()), ("dpo", ("sft",)), ("sft", ("dpo",)), ("grpo", ("sft", "dpo"))]
)
def test_the_plan_knows_the_stages(name, chain, toy_cell, run_cell):
    """Their ids and order, without loading a model, are those that the cell then uses."""
    settings = {"grpo": {"prompts_per_rollout": 2, "group": 4}}.get(name, {"batch": 4})
    cell = toy_cell(name, settings, warm_start=list(chain), budget={"steps": 1})
    planned = planned_stages(cell)
    folder = run_cell(cell)
    assert [key.id for key in planned if key.charged] == [
        stage["stage"] for stage in read(folder, "ledger.json")["shared"]
    ]
    assert {key.id for key in planned} == {path.name for path in (folder.parents[1] / "stages").iterdir()}
