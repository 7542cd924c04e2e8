"""Stored samples, scored again: nothing that was measured changes, and only what is missing is done."""

import json
import shutil

import pandas as pd
import pytest

from bakeoff import matrix, scoring
from bakeoff.contracts import Evaluator, Judge, Metric
from bakeoff.errors import MatrixError, PluginError, StoreError
from bakeoff.judging import Outcome, ask
from bakeoff.setup import task_and_data
from bakeoff.spec import CellSpec, EvaluationSpec, ModelSpec, PluginSpec
from bakeoff.store import Store

STORED = ["prompt_id", "sample", "fraction", "prompt", "completion", "n_tokens", "ended_eos", "truncated"]
TEXTS = {"base": ["eee", "x"], "sft": ["ee", "ex"], "dpo": ["xxxx", "e"]}
"""Completions of the first two test prompts. Letter e over length: base 1, 0; sft 1, 1/2; dpo 0, 1."""


class Length(Evaluator):
    """An evaluator that the run did not know; ``value`` breaks it on demand."""

    title = "Characters"
    metrics = (
        Metric("characters", "characters", "none", "length of the completion"),
        Metric("gold_reward", "characters", "none", "a name that the run has already"),
    )
    broken = None

    def score(self, context):
        values = context.samples["completion"].str.len().astype(float)
        keys = context.samples[["prompt_id", "sample"]]
        frames = [keys.assign(metric=name, value=self.broken or values) for name in ("characters", "gold_reward")]
        return pd.concat(frames)


class Longer(Judge):
    """Prefers the longer text. ``mute`` texts get no verdict; ``asked`` counts questions of all instances."""

    title = "The longer text wins"
    free = True
    asked = 0
    mute = frozenset()

    @property
    def facts(self):
        return {"asked": self.asked}

    def compare(self, context, rows, a, b):
        type(self).asked += len(rows)
        return [
            "invalid" if {left, right} & self.mute else "tie" if len(left) == len(right)
            else "a" if len(left) > len(right) else "b"
            for left, right in zip(a, b, strict=True)
        ]  # fmt: skip


@pytest.fixture
def plugins(monkeypatch, toy_lab):
    """Makes ``length`` and ``longer`` known by name."""
    from bakeoff import registry

    load = registry.load
    known = {("evaluator", "length"): Length, ("judge", "longer"): Longer}
    monkeypatch.setattr(registry, "load", lambda kind, name: known.get((kind, name)) or load(kind, name))
    monkeypatch.setattr(registry, "source_hash", lambda plugin: plugin.__name__)
    monkeypatch.setattr(Longer, "asked", 0)


def plugin(name, label="", **settings):
    return PluginSpec(name=name, label=label or name, settings=settings)


class Run:
    """A run of three algorithms and two seeds on two prompts, as a worker would have left it."""

    def __init__(self, folder, judge="gold"):
        self.store, self.judge = Store(folder), judge
        task = plugin("letters")
        self.data = task_and_data(task)[1]
        self.prompts = [row["id"] for row in self.data.test[:2]]
        self.cells = {(name, seed): self._write(name, seed, task) for seed in (0, 1) for name in TEXTS}
        self.plan()

    def plan(self):
        entries = [
            {"id": cell, "model": "m", "task": "letters", "budget": "b", "algorithm": name, "seed": seed}
            for (name, seed), cell in self.cells.items()
        ]
        self.store.write_json(self.store.plan_path, {"cells": entries, "name": "run"})

    def _write(self, name, seed, task):
        cell = f"{name}-{seed}"
        spec = CellSpec(
            model=ModelSpec(label="m", folder="nowhere"), task=task, seed=seed, judge=plugin(self.judge),
            budget={"name": "b", "steps": 1}, algorithm=plugin(name), evaluation=EvaluationSpec(prompts=2),
        )  # fmt: skip
        folder = self.store.cell(cell)
        record = {
            "spec": spec.model_dump(mode="json"), "metrics": [{"name": "gold_reward"}, {"name": "win_rate"}],
            "data": {"fingerprint": self.data.fingerprint}, "reference_samples": f"reference-samples-{seed}",
        }  # fmt: skip
        self.store.write_json(folder / "cell.json", record)
        self.store.write_json(folder / "status.json", {"status": "ok", "reason": ""})
        if name != "base":
            (folder / "adapter").mkdir()
        self.store.write_frame(folder / "samples.parquet", self.samples(TEXTS[name]))
        self.store.write_frame(
            self.store.stage(f"reference-samples-{seed}") / "samples.parquet", self.samples(["start", "e"])
        )
        return cell

    def samples(self, texts, fraction=1.0):
        rows = [
            (name, 0, fraction, "", text, len(text), True, False)
            for name, text in zip(self.prompts, texts, strict=True)
        ]
        return pd.DataFrame(rows, columns=STORED)

    def scored(self, name):
        folder = self.store.folder / "scored" / name
        frames = {path.stem: pd.read_parquet(path) for path in folder.glob("*.parquet")}
        return json.loads((folder / "scored.json").read_text()), frames

    def files(self):
        return {path: path.read_bytes() for path in (self.store.folder / "cells").rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path, plugins):
    return Run(tmp_path / "run")


def test_new_evaluator_scores_what_was_stored(run):
    """Each sample gets its value, a name that the run has stays the run's, and no file of a cell changes."""
    before = run.files()
    run.store.write_frame(
        run.store.cell("sft-0") / "samples.parquet",
        pd.concat([run.samples(["e", "e"], fraction=0.5), run.samples(TEXTS["sft"])]),
    )
    before = run.files()
    done = scoring.score(run.store, "evaluator", plugin("length"))
    record, frames = run.scored("evaluator-length")
    assert run.files() == before
    assert done.cells == 6
    scores = frames["scores"].set_index(["id", "metric", "fraction", "prompt_id"])["value"]
    first, second = run.prompts
    assert scores["base-0", "characters", 1.0, first] == 3
    assert scores["sft-0", "characters", 0.5, second] == 1
    assert scores["dpo-1", "gold_reward@length", 1.0, first] == 4
    assert {metric["name"] for metric in record["metrics"]} == {"characters", "gold_reward@length"}
    assert record["sessions"][0]["packages"]["bakeoff"]
    assert record["sessions"][0]["created"]


def test_only_what_is_missing_is_scored(run):
    """Again: nothing. A new cell and one with new samples: those two, and the session says so."""
    scoring.score(run.store, "evaluator", plugin("length"))
    assert scoring.score(run.store, "evaluator", plugin("length")).cells == 0
    run.cells["kto", 0] = "kto-0"
    shutil.copytree(run.store.cell("dpo-0"), run.store.cell("kto-0"))
    run.store.write_frame(run.store.cell("sft-0") / "samples.parquet", run.samples(["123456", "1"]))
    run.plan()
    assert scoring.score(run.store, "evaluator", plugin("length")).cells == 2
    record, frames = run.scored("evaluator-length")
    scores = frames["scores"].query("metric == 'characters'").groupby("id")["value"].sum()
    assert scores["sft-0"] == 7
    assert scores["kto-0"] == 5
    assert len(scores) == 7
    assert [session["cells"] for session in record["sessions"]] == [6, 2]


def test_judge_compares_all_pairs_of_a_seed_in_both_orders(run):
    """Three pairs a seed, and each with its start; the values are those of the longer text."""
    scoring.score(run.store, "judge", plugin("longer"))
    record, frames = run.scored("judge-longer")
    verdicts = frames["verdicts"].set_index(["a", "b", "prompt_id"])
    first, second = run.prompts
    assert len(verdicts) == 2 * (3 + 3) * 2
    assert verdicts.loc[("base-0", "sft-0", first), "value"] == 1.0  # eee against ee
    assert verdicts.loc[("base-0", "dpo-0", second), "value"] == 0.5  # x against e
    assert verdicts.loc[("base-0", "dpo-0", first), ["forward", "backward", "value"]].tolist() == ["b", "a", 0.0]
    assert verdicts.loc[("sft-1", "", second), "value"] == 1.0  # ex against e
    assert ("sft-0", "base-0") not in {(a, b) for a, b, _ in verdicts.index}
    assert not any(a[-1] != b[-1] for a, b, _ in verdicts.index if b)
    scores = frames["scores"].set_index(["id", "prompt_id"])
    assert set(scores["metric"]) == {"win_rate@longer"}
    assert scores.loc[("sft-1", second), "value"] == 1.0
    assert record["metrics"][0]["name"] == "win_rate@longer"


def test_canaries_are_asked_once_a_section_against_trained_policies(run):
    """A judge of length falls for padding, and against no answer of the untrained base."""
    scoring.score(run.store, "judge", plugin("longer"))
    scoring.score(run.store, "judge", plugin("longer"))
    canaries = run.scored("judge-longer")[1]["canaries"]
    assert canaries.groupby("canary")["value"].mean().to_dict() == {
        "identical": 0.5, "null": 1.0, "padded": 1.0, "injection": 1.0,
    }  # fmt: skip
    assert len(canaries) == 4 * 2


def test_own_judge_of_a_run_is_not_asked_about_the_start_again(run):
    """That is what the cells' win rates are."""
    scoring.score_by_free_judge(run.store, plugin("gold"))
    record, frames = run.scored("judge-gold")
    assert set(frames["verdicts"]["b"]) == {"sft-0", "dpo-0", "sft-1", "dpo-1"}
    assert record["metrics"] == []
    values = frames["verdicts"].query("seed == 0").set_index(["a", "b", "prompt_id"])["value"]
    assert values["base-0", "sft-0", run.prompts[0]] == 0.5  # all letters are e in both
    assert values["sft-0", "dpo-0", run.prompts[1]] == 0.0


def test_judge_that_costs_is_not_asked_by_itself(run, monkeypatch):
    """Only the command asks it."""
    monkeypatch.setattr(Longer, "free", False)
    assert scoring.score_by_free_judge(run.store, plugin("longer")) is None
    assert Longer.asked == 0


def test_question_without_a_verdict_is_asked_again(run, monkeypatch):
    """What is known is kept; invalid verdicts are missing values, and never a tie."""
    monkeypatch.setattr(Longer, "mute", frozenset({"xxxx"}))
    done = scoring.score(run.store, "judge", plugin("longer"))
    assert done.invalid == 2 * 3
    assert run.scored("judge-longer")[1]["verdicts"]["value"].isna().sum() == 6
    monkeypatch.setattr(Longer, "mute", frozenset())
    done = scoring.score(run.store, "judge", plugin("longer"))
    assert (done.comparisons, done.invalid) == (6, 0)
    assert len(run.scored("judge-longer")[1]["verdicts"]) == 24


def test_judge_without_any_verdict_writes_nothing(run, monkeypatch):
    """An endpoint that is down is an error with its facts, not an empty table."""
    monkeypatch.setattr(Longer, "mute", frozenset(text for texts in TEXTS.values() for text in texts) | {"start"})
    with pytest.raises(PluginError, match=r"no valid verdict \(asked: \d+\)"):
        scoring.score(run.store, "judge", plugin("longer"))
    assert not (run.store.folder / "scored").exists()


def test_label_belongs_to_one_plugin_and_its_settings(run):
    """Other settings need another label; both are then kept."""
    scoring.score(run.store, "judge", plugin("gold", "mine"))
    with pytest.raises(StoreError, match="other settings") as caught:
        scoring.score(run.store, "judge", plugin("gold", "mine", epsilon=0.5))
    assert "label: mine-2" in caught.value.fix
    scoring.score(run.store, "judge", plugin("gold", "mine-2", epsilon=0.5))
    assert len(list((run.store.folder / "scored").glob("judge-*"))) == 2


def test_failure_of_the_plugin_leaves_the_earlier_scores(run, monkeypatch):
    """An exception and a number that is not finite are told; what was there stays as it was."""
    scoring.score(run.store, "evaluator", plugin("length"))
    before = run.scored("evaluator-length")[0]
    run.store.write_frame(run.store.cell("sft-0") / "samples.parquet", run.samples(["changed", "1"]))
    for broken, told in ((float("nan"), "not finite"), (float("inf"), "not finite")):
        monkeypatch.setattr(Length, "broken", broken)
        with pytest.raises(PluginError, match=told):
            scoring.score(run.store, "evaluator", plugin("length"))
    monkeypatch.setattr(Length, "score", lambda self, context: {}["x"])
    with pytest.raises(PluginError, match="Length failed: KeyError"):
        scoring.score(run.store, "evaluator", plugin("length"))
    assert run.scored("evaluator-length")[0] == before


def test_what_cannot_be_had_from_stored_samples_is_refused(run):
    """Log-probabilities of tokens are not stored; changed data and lost start samples are no ground to score on."""
    with pytest.raises(PluginError, match="needs logprobs"):
        scoring.score(run.store, "evaluator", plugin("kl"))
    shutil.rmtree(run.store.stage("reference-samples-1"))
    with pytest.raises(StoreError, match="where it started"):
        scoring.score(run.store, "judge", plugin("longer"))
    path = run.store.cell("base-0") / "cell.json"
    path.write_text(path.read_text().replace("letters-1", "letters-2"))
    with pytest.raises(StoreError, match="have changed"):
        scoring.score(run.store, "evaluator", plugin("length"))


def test_run_without_a_finished_cell_has_nothing_to_score(run):
    """And says what to do."""
    shutil.rmtree(run.store.folder / "cells")
    with pytest.raises(StoreError, match="no finished cell"):
        scoring.score(run.store, "judge", plugin("longer"))


def test_plugin_is_named_as_in_a_matrix(run):
    """By name, or in YAML with settings and a label; what is wrong is told with the option's name."""
    assert matrix.plugin("judge", "gold") == plugin("gold", epsilon=1e-9)
    asked = matrix.plugin("judge", "{name: gold, label: loose, epsilon: 0.1}")
    assert asked == plugin("gold", "loose", epsilon=0.1)
    for text, told in (("glod", "Did you mean 'gold'"), ("{name: gold, eps: 1}", "eps"), ("{name: gold", "not valid")):
        with pytest.raises(MatrixError, match=told) as caught:
            matrix.plugin("judge", text)
        assert "--judge" in str(caught.value)


def test_same_question_is_asked_once_and_a_text_against_itself_never(run):
    """Outcomes come back in the order of the questions."""
    rows = [{"id": "1"}, {"id": "1"}, {"id": "2"}, {"id": "1"}]
    found = ask(Longer(), None, rows, ["ab", "ab", "ab", "x"], ["c", "c", "c", "x"])
    assert found == [Outcome("a", "b")] * 3 + [Outcome("tie", "tie")]
    assert Longer.asked == 2 * 2


@pytest.mark.parametrize("verdicts", [["a"], ["a", "a", "yes"], ["a", "a", None]])
def test_judge_that_breaks_its_contract_is_an_error(verdicts):
    """Too few verdicts, or one that is none."""

    class Broken(Longer):
        def compare(self, context, rows, a, b):
            return verdicts

    with pytest.raises(ValueError, match="Broken gave"):
        ask(Broken(), None, [{"id": str(n)} for n in range(3)], ["x", "y", "z"], ["1", "2", "3"])


def test_what_a_worker_leaves_can_be_scored_again(toy_cell, run_cell, tmp_path):
    """Two real cells of a toy: the judge compares them, and its verdicts on the start are the win rates of the run."""
    store = Store(tmp_path / "run")
    evaluators = (plugin("reward"), plugin("win_rate"))
    entries = []
    for name in ("base", "sft"):
        cell = toy_cell(name, budget={"steps": 3}, evaluators=evaluators)
        run_cell(cell, name=name)
        store.finish_cell(name, {"status": "ok", "reason": "", "wall_s": 1.0})
        entries.append({"id": name, "model": "toy", "task": "letters", "budget": "b", "algorithm": name, "seed": 0})
    store.write_json(store.plan_path, {"cells": entries})
    assert scoring.score_by_free_judge(store, plugin("gold")) is not None
    verdicts = pd.read_parquet(store.scoring("judge-gold") / "verdicts.parquet").set_index("prompt_id")["value"]
    scores = pd.read_parquet(store.cell("sft") / "scores.parquet")
    won = scores[scores["metric"] == "win_rate"].set_index("prompt_id")["value"]
    # The base is where SFT started: what it wins against the base it wins against its start, and the reverse.
    assert (1 - verdicts).to_dict() == won.to_dict()
    assert scoring.score(store, "evaluator", plugin("health")).cells == 2
    overlap = json.loads((store.cell("sft") / "cell.json").read_text())["data"]["overlap"]
    assert overlap == {"exact": 0, "near": 0, "examples": []}
