"""Whole cells on a toy model: what a cell writes, its warm start, and going on after a crash."""

import errno
import json
import math

import pandas as pd
import pytest
from peft import PeftModel
from safetensors.torch import load_file

from bakeoff import models, worker
from bakeoff.errors import PluginError, PluginFailure
from bakeoff.setup import guarded
from bakeoff.spec import EvaluationSpec, PluginSpec

SMALL = {
    "sft": {"learning_rate": 5e-3, "batch": 4},
    "dpo": {"learning_rate": 5e-3, "batch": 4},
    # An adaptive beta, which a checkpoint has to hold.
    "ppo": {"learning_rate": 5e-3, "prompts_per_rollout": 8, "epochs": 2, "kl_target": 0.1, "kl_horizon": 8},
    "grpo": {"learning_rate": 5e-3, "prompts_per_rollout": 2, "group": 4, "epochs": 2},
    "trl-grpo": {"learning_rate": 5e-3, "prompts_per_rollout": 2, "group": 4},
}


class Crash(BaseException):
    """Not an ``Exception``: nothing between here and the process may turn it into a result."""


def crash_at(step):
    """A progress callback that ends the cell once ``step`` optimizer steps are through, as a killed process would."""
    seen = []

    def progress(phase, fraction, note):
        if phase == "train" and fraction > 0:
            seen.append(fraction)
            if len(seen) == step:
                raise Crash

    return progress


def adapter(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def scores(folder):
    return pd.read_parquet(folder / "scores.parquet")


def training(folder):
    """Lines of the training log without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.mark.parametrize(("algorithm", "precision"), [*((name, "nf4") for name in SMALL), ("ppo", "bf16")])
def test_a_cell_that_crashed_goes_on_as_if_it_had_not(algorithm, precision, toy_cell, run_cell):
    """Crash in step 4 of 6, with a rollout half used, run again: weights, log and scores equal the unbroken run's."""
    cell = toy_cell(algorithm, SMALL[algorithm], precision=precision, budget={"steps": 6}, checkpoint_s=0)
    whole = run_cell(cell, run="whole")
    with pytest.raises(Crash):
        run_cell(cell, run="broken", progress=crash_at(4))
    checkpoints = list((whole.parents[2] / "broken/cells/cell.partial/checkpoints").glob("*/bakeoff.json"))
    assert checkpoints
    resumed = run_cell(cell, run="broken")
    expected, found = adapter(whole), adapter(resumed)
    assert all((expected[name] == found[name]).all() for name in expected)
    pd.testing.assert_frame_equal(scores(whole), scores(resumed))
    assert training(whole) == training(resumed)


@pytest.mark.parametrize("checkpoint_s", [0, 1e9])
def test_a_cell_that_crashed_while_it_was_measured_goes_on(checkpoint_s, toy_cell, run_cell, monkeypatch):
    """After the last sample and before any result is on disk: run again, scores and probes are there once."""
    evaluation = EvaluationSpec(prompts=4, probes=1, probe_prompts=2)
    cell = toy_cell("sft", SMALL["sft"], budget={"steps": 4}, evaluation=evaluation, checkpoint_s=checkpoint_s)
    whole = run_cell(cell, run="whole")
    with monkeypatch.context() as patch:
        patch.setattr(worker.CellRun, "_write_results", lambda self: crash_at(1)("train", 1.0, ""))
        with pytest.raises(Crash):
            run_cell(cell, run="broken")
    resumed = run_cell(cell, run="broken")
    pd.testing.assert_frame_equal(scores(whole), scores(resumed))
    assert training(whole) == training(resumed)
    ledgers = [json.loads((folder / "ledger.json").read_text()) for folder in (whole, resumed)]
    assert ledgers[0]["spent"]["flops"] == ledgers[1]["spent"]["flops"]


def test_the_kl_of_tokens_is_kept_at_the_end(toy_cell, run_cell):
    """A number a token, which sum to the completion's KL; of probes along training the sums alone are kept."""
    evaluation = EvaluationSpec(prompts=4, probes=1, probe_prompts=2)
    folder = run_cell(toy_cell("sft", SMALL["sft"], budget={"steps": 4}, evaluation=evaluation))
    stored = pd.read_parquet(folder / "samples.parquet")
    probed, final = stored[stored["fraction"] < 1], stored[stored["fraction"] == 1]
    assert len(probed)
    assert probed["token_kl"].isna().all()
    assert [len(tokens) for tokens in final["token_kl"]] == final["n_tokens"].tolist()
    assert [tokens.sum() for tokens in final["token_kl"]] == pytest.approx(final["kl"].tolist(), rel=1e-5, abs=1e-6)
    assert final["kl"].max() > 0


@pytest.mark.parametrize("algorithm", SMALL)
def test_the_reference_is_the_warm_start(algorithm, toy_cell, run_cell):
    """Training that cannot move leaves the policy at the warm start: its KL to the reference is exactly 0."""
    frozen = SMALL[algorithm] | {"learning_rate": 1e-30}
    folder = run_cell(toy_cell(algorithm, frozen, precision="nf4", budget={"steps": 2}, warm_start="sft"))
    assert any(weight.abs().max() > 0 for name, weight in adapter(folder).items() if "lora_B" in name)
    assert (scores(folder).query("metric == 'kl'")["value"] == 0).all()
    first = training(folder)[0]
    assert first.get("kl", 0.0) == 0
    assert first.get("kl_k1", 0.0) == 0
    if algorithm == "dpo":
        assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("algorithm", ["dpo", "trl-grpo"])
def test_a_trainers_own_adapters_do_not_outlive_it(algorithm, toy_cell, run_cell):
    """TRL adds a frozen copy to the model and fails where one is there: warm-start by TRL, then train by TRL."""
    folder = run_cell(toy_cell(algorithm, SMALL[algorithm], warm_start="dpo"))
    assert (scores(folder).query("metric == 'kl'")["value"] > 0).all()
    assert [path.name for path in (folder / "adapter").iterdir() if path.is_dir()] == []


def test_a_warm_start_is_computed_once(toy_cell, run_cell, monkeypatch):
    """Another cell of the run loads it, and gets what the cell that computed it got."""
    cell = toy_cell("sft", SMALL["sft"], warm_start="sft", precision="bf16")
    first = run_cell(cell, name="first")
    stages = sorted(path.name for path in (first.parents[1] / "stages").iterdir())
    second = run_cell(cell, name="second")
    assert sorted(path.name for path in (first.parents[1] / "stages").iterdir()) == stages
    assert all((adapter(first)[name] == adapter(second)[name]).all() for name in adapter(first))
    pd.testing.assert_frame_equal(scores(first), scores(second))


def test_a_warm_start_goes_on_from_its_checkpoint(toy_cell, run_cell):
    """Crash in step 2 of 3 of a warm start, run again: two steps are left, and the weights are the unbroken run's."""

    def steps(seen, *, crash=None):
        def progress(phase, fraction, note):
            if note == "warm start" and fraction > 0:
                seen.append(fraction)
                if len(seen) == crash:
                    raise Crash

        return progress

    cell = toy_cell("sft", SMALL["sft"], warm_start="sft", checkpoint_s=0)
    whole = run_cell(cell, run="whole")
    with pytest.raises(Crash):
        run_cell(cell, run="broken", progress=steps([], crash=2))
    left = []
    resumed = run_cell(cell, run="broken", progress=steps(left))
    assert left == pytest.approx([2 / 3, 1.0])
    assert all((adapter(whole)[name] == adapter(resumed)[name]).all() for name in adapter(whole))
    stage = next((resumed.parents[1] / "stages").glob("warm-start-*"))
    assert sorted(path.name for path in stage.iterdir()) == ["policy.safetensors", "stage.json"]
    shared = [json.loads((folder / "ledger.json").read_text())["shared"] for folder in (whole, resumed)]
    costs = [next(stage for stage in stages if stage["kind"] == "warm-start") for stages in shared]
    assert costs[0]["steps"] == costs[1]["steps"] == 3
    assert costs[0]["flops"] == costs[1]["flops"]


def test_a_cell_that_crashed_while_it_wrote_goes_on(toy_cell, run_cell, monkeypatch):
    """Its checkpoint counts on the probes before it, which outlive the attempt: the scores are the unbroken run's."""
    spec = EvaluationSpec(prompts=4, probes=1, probe_prompts=4)
    cell = toy_cell("sft", SMALL["sft"], evaluation=spec, checkpoint_s=0)
    whole = run_cell(cell, run="whole")

    def crash(run):
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(worker, "ledger", crash)
        with pytest.raises(Crash):
            run_cell(cell, run="broken")
    pd.testing.assert_frame_equal(scores(whole), scores(run_cell(cell, run="broken")))


def test_a_broken_last_line_of_the_log_is_written_again(tmp_path):
    """A process that is killed can leave half a line; a resumed run drops it and the steps past the checkpoint."""
    log = tmp_path / "training.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    assert worker._kept_lines(log, 2) == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize(
    ("algorithm", "precision"), [("sft", "int8"), ("grpo", "int8"), ("sft", "fp32"), ("grpo", "bf16"), ("grpo", "nf4")]
)
def test_a_cell_in_every_precision(algorithm, precision, toy_cell, run_cell):
    """Trained, measured and written: the policy moved, within the budget, and its adapter loads as standard PEFT."""
    cell = toy_cell(algorithm, SMALL[algorithm], precision=precision, budget={"steps": 3})
    folder = run_cell(cell)
    assert (scores(folder).query("metric == 'kl'")["value"] > 0).all()
    assert json.loads((folder / "ledger.json").read_text())["overshoot"] == {"steps": 0.0}
    base = models.load_base(cell.model.model_copy(update={"precision": "fp32"}))
    loaded = PeftModel.from_pretrained(base, folder / "adapter")
    weights = dict(loaded.named_parameters())
    for name, value in adapter(folder).items():
        assert (weights[name.replace(".weight", ".default.weight")].float() == value.float()).all()


def test_the_ledger_is_what_the_meter_counted(toy_cell, run_cell):
    """Spent by role, shared work apart, and a line for each evaluation; measuring costs nothing."""
    spec = EvaluationSpec(prompts=8, probes=2, probe_prompts=4)
    probed = run_cell(toy_cell("grpo", SMALL["grpo"], evaluation=spec, budget={"steps": 6}), run="probed")
    plain = run_cell(toy_cell("grpo", SMALL["grpo"], budget={"steps": 6}), run="plain")
    ledgers = [json.loads((folder / "ledger.json").read_text()) for folder in (probed, plain)]
    assert [probe["fraction"] for probe in ledgers[0]["probes"]] == [0.3333, 0.6667, 1.0]
    assert [probe["steps"] for probe in ledgers[0]["probes"]] == [2, 4, 6]
    spent = [{key: value for key, value in ledger["spent"].items() if key != "seconds"} for ledger in ledgers]
    assert spent[0] == spent[1]
    assert spent[0]["steps"] == 6
    assert spent[0]["prompts"] == 3 * 2
    assert spent[0]["flops"] == sum(role["flops"] for role in ledgers[0]["roles"].values())
    assert set(ledgers[0]["roles"]) == {"policy", "reference"}
    assert ledgers[0]["trainable"]["auxiliary"] == 0
    counts = scores(probed).query("metric == 'kl'").groupby("fraction").size().to_dict()
    assert counts == {0.3333: 4, 0.6667: 4, 1.0: 8}


def test_probing_changes_no_result(toy_cell, run_cell):
    """Evaluations along the way draw from randomness of their own: TRL's sampling, from the global one, goes on."""
    spec = EvaluationSpec(prompts=8, probes=2, probe_prompts=4)
    probed = run_cell(toy_cell("trl-grpo", SMALL["trl-grpo"], evaluation=spec), run="probed")
    plain = run_cell(toy_cell("trl-grpo", SMALL["trl-grpo"]), run="plain")
    assert all((adapter(probed)[name] == adapter(plain)[name]).all() for name in adapter(plain))


def test_a_plugin_that_fails_is_named(toy_cell, run_cell, monkeypatch):
    """The one whose code failed, and not the algorithm that called it."""
    monkeypatch.setattr("toy_lab.Letters.reward", lambda self, rows, completions: [1.0])
    with pytest.raises(PluginFailure, match=r"^the task's reward gave 1 numbers for 128 completions"):
        run_cell(toy_cell("grpo", SMALL["grpo"]))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "was called without `id`"),
        ({"id": []}, "was given 0 ids for 1 completions"),
        ({"id": ["nobody's"]}, 'was given the id "nobody\'s"'),
    ],
)
def test_a_reward_without_its_rows_says_what_to_pass(given, told, toy_cell, run_cell, monkeypatch):
    """What happened, and the `id` that a completion's row is found by."""
    seen = {}

    def train(self, context):
        row = context.prompts[0]
        seen["right"] = context.reward(prompts=[row["prompt"]], completions=["e"], id=[row["id"]])
        context.reward(prompts=[row["prompt"]], completions=["e"], **given)

    monkeypatch.setattr("bakeoff.on_policy.OnPolicyAlgorithm.train", train)
    with pytest.raises(PluginFailure) as caught:
        run_cell(toy_cell("grpo", SMALL["grpo"]))
    cause = caught.value.__cause__
    assert told in str(cause.args[0])
    assert 'id=[row["id"] for row in rows]' in cause.fix
    assert len(seen["right"]) == 1


@pytest.mark.parametrize("given", [None, pd.DataFrame({"prompt_id": ["a"], "score": [1.0]})])
def test_an_evaluator_that_gives_no_scores_is_named(given, toy_cell, run_cell, monkeypatch):
    """Anything but the columns it owes is its failure, not the machine's."""
    monkeypatch.setattr("bakeoff.evaluators.reward.Reward.score", lambda self, context: given)
    with pytest.raises(PluginFailure, match="evaluator Reward failed"):
        run_cell(toy_cell("base"))


def test_an_algorithm_is_not_blamed_for_an_evaluator(toy_cell, run_cell, monkeypatch):
    """An evaluator that gives NaN in a probe is named with its metric."""
    from bakeoff.evaluators.reward import Reward

    real = Reward.score
    monkeypatch.setattr(Reward, "score", lambda self, context: real(self, context).assign(value=math.nan))
    spec = EvaluationSpec(prompts=8, probes=1, probe_prompts=4)
    with pytest.raises(PluginFailure, match=r"^evaluator Reward gave \d+ numbers that are not finite \(.*train_reward"):
        run_cell(toy_cell("sft", SMALL["sft"], evaluation=spec))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_is_nobodys_failure(number):
    """The disk's errors stay what they are, so that the cell keeps its checkpoints; others are the plugin's."""
    with pytest.raises(OSError, match="disk"), worker._blaming("sft"):
        raise OSError(number, "disk")
    with pytest.raises(PluginFailure, match="sft failed"), worker._blaming("sft"):
        raise FileNotFoundError(errno.ENOENT, "its own file")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_that_is_not_finite_is_the_tasks_failure(value):
    """It is counted, and neither trains a policy nor looks like divergence."""
    with pytest.raises(PluginFailure, match="1 of 2 numbers that are not finite"):
        guarded(lambda rows, completions: [0.5, value])([{}, {}], ["a", "b"])


def test_a_plugin_that_cannot_be_made_is_named(toy_cell, run_cell, monkeypatch):
    """An exception in its ``__init__`` is its failure."""
    monkeypatch.setattr("bakeoff.evaluators.reward.Reward.__init__", lambda self, settings: 1 / 0)
    with pytest.raises(PluginFailure, match="evaluator reward could not be made") as caught:
        run_cell(toy_cell("base"))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("method", ["__init__", "load"])
def test_a_task_that_cannot_be_loaded_is_named(method, toy_cell, monkeypatch):
    """Whatever its code raises, a plan says which task and why."""

    def fail(self, *settings):
        raise KeyError("label")

    task = PluginSpec(name="letters", label="letters", settings={"max_new_tokens": 5})
    monkeypatch.setattr(f"toy_lab.Letters.{method}", fail)
    with pytest.raises(PluginError, match=r"task 'letters' could not be loaded: KeyError: 'label'") as caught:
        worker.fingerprints(toy_cell("sft", task=task))
    assert "--debug" in caught.value.fix
