"""Reading a run folder: what every frame holds, and what is refused."""

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from bakeoff.reports.frame import IDENTITY, SCORE_COLUMNS, Results

from bakeoff.errors import StoreError


def test_every_planned_cell_has_a_row(results):
    """Finished and failed cells are rows in the plan's order, with status, reason and costs."""
    cells = results.cells
    assert list(cells["id"]) == [cell["id"] for cell in results.plan["cells"]]
    failed = cells[cells["status"] != "ok"].iloc[0]
    assert (failed["algorithm"], failed["seed"], failed["status"]) == ("ppo", 2, "oom")
    assert failed["reason"].startswith("out of memory")
    assert pd.isna(failed["spent_flops"])
    sft = cells[(cells["algorithm"] == "sft") & (cells["seed"] == 0)].iloc[0]
    assert sft["spent_flops"] == pytest.approx(6.06e12)
    assert (sft["trainable_policy"], sft["peak_bytes"], sft["wall_s"]) == (4_884_480, 1.3e9, 51.0)
    assert json.loads(sft["settings"]) == {"learning_rate": 3e-4}


def test_shared_stages_are_charged_alone_and_split(results):
    """A stage that six cells used costs each of them all of it, or a sixth."""
    sft = results.cells[results.cells["algorithm"] == "sft"].iloc[0]
    assert sft["shared_flops"] == pytest.approx(1.1e12)
    assert sft["amortised_flops"] == pytest.approx(1.1e12 / 6)
    assert (sft["shared_seconds"], sft["amortised_seconds"]) == (12.0, 2.0)


def test_frame_is_long_and_tidy(results):
    """One row a (cell, prompt, sample, fraction, metric), each with the cell's identity, and nobody's copy."""
    frame = results.frame()
    assert list(frame.columns) == [*IDENTITY, *SCORE_COLUMNS]
    assert not frame.duplicated(["id", *SCORE_COLUMNS[:-1]]).any()
    assert frame.groupby("id")["fraction"].max().eq(1.0).all()
    frame["value"] = 0.0
    assert results.frame()["value"].abs().sum() > 0


def test_samples_probes_and_training_carry_the_cell(results):
    """Texts, ledgers along training and trainer logs are frames with the cell's identity in front."""
    final = results.samples(["sent-sft-0"])
    assert len(final) == 48
    assert set(final["fraction"]) == {1.0}
    assert len(results.samples(["sent-sft-0"], final=False)) == 48 + 2 * 32
    probes = results.probes()
    last = probes[(probes["id"] == "sent-dpo-1") & (probes["fraction"] == 1.0)].iloc[0]
    assert last["flops"] == pytest.approx(6.06e12)
    training = results.training()
    assert {"loss", "step", "algorithm"} <= set(training.columns)
    assert "base" not in set(training["algorithm"])


def test_samples_without_log_probabilities_are_read(run):
    """Where no evaluator needed log-probabilities the file lacks them, and the frame has NaN."""
    file = run.path("sft") / "samples.parquet"
    pd.read_parquet(file).drop(columns=["logp", "reference_logp", "kl"]).to_parquet(file)
    samples = run.results().samples()
    assert samples.loc[samples["id"] == "sent-sft-0", "kl"].isna().all()
    assert samples.loc[samples["id"] == "sent-sft-1", "kl"].notna().all()


def test_metrics_and_references_come_from_the_cells(results):
    """Metrics are as declared, and references are by task."""
    assert results.metrics["gold_reward"].unit == "VADER compound"
    assert results.references == {"sentiment": {"best constant answer 'good'": 0.44}}


def test_primary_is_the_plans_or_a_named_stand_in(run):
    """Without a gold reward the training reward decides, called a proxy; without both, the first with a direction."""
    results = run.results()
    assert results.primary_of(["kl", "gold_reward"]) == ("gold_reward", "")
    assert results.primary_of(["kl", "train_reward"]) == ("train_reward", "proxy: this task has no gold reward")
    name, note = results.primary_of(["kl", "distinct_2"])
    assert name == "distinct_2"
    assert note.startswith("stand-in")


def test_cells_without_a_folder_say_why(run):
    """Not started, running with its progress, and incompatible with its reason are statuses like any other."""
    shutil.rmtree(run.path("sft", 0))
    run.path("sft", 1).rename(run.path("sft", 1).with_name("sent-sft-1.partial"))
    progress = {"phase": "train", "fraction": 0.42}
    (run.folder / "cells" / "sent-sft-1.partial" / "progress.json").write_text(json.dumps(progress))
    shutil.rmtree(run.path("sft", 2))
    plan = json.loads((run.folder / "plan.json").read_text())
    next(cell for cell in plan["cells"] if cell["id"] == "sent-sft-2")["incompatible"] = "needs preferences"
    (run.folder / "plan.json").write_text(json.dumps(plan))
    cells = run.results().cells.set_index("id")
    assert tuple(cells.loc["sent-sft-0", ["status", "reason"]]) == ("not_run", "not started")
    assert tuple(cells.loc["sent-sft-1", ["status", "reason"]]) == ("running", "train, 42% of the budget spent")
    assert tuple(cells.loc["sent-sft-2", ["status", "reason"]]) == ("incompatible", "needs preferences")


def test_parity_names_the_field_and_who_differs(run):
    """A cell measured on another device is found out; a field that was not recorded is not compared."""
    assert run.results().parity() == []
    parity = {"model_sha": "aa11", "device": "cuda", "lora": {"r": 16}, "train_rows_sha": None}
    run.edit(run.path("dpo", 1) / "cell.json", parity=parity)
    assert run.results().parity() == []  # the odd one is locked out
    ((field, values),) = Results.read(run.folder, mixed=True).parity()
    assert field == "device"
    assert values["cuda"] == ["sent-dpo-1"]
    assert len(values["cpu"]) == 13


def test_tasks_are_not_compared_with_each_other(tmp_path, run):
    """Rows differ between tasks by nature: that is no parity problem."""
    two = type(run)(tmp_path / "two", tasks=("sentiment", "arithmetic"), seeds=(0,)).write()
    for file in two.folder.glob("cells/arit-*/cell.json"):
        two.edit(file, parity={"train_rows_sha": "other"})
    assert two.results().parity() == []


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_schema_version_is_refused(run, version):
    """A file of another version is an error that names the file and the fix, never read on hope."""
    run.edit(run.folder / "plan.json", schema_version=version)
    with pytest.raises(StoreError, match=r"plan\.json has schema version") as caught:
        run.results()
    assert caught.value.fix


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    """An empty folder is not a run, and the error says what would be."""
    with pytest.raises(StoreError, match="is not a run"):
        Results.read(tmp_path)


@pytest.mark.parametrize("file", ["cell.json", "ledger.json", "status.json"])
def test_broken_json_is_named(run, file):
    """Half a JSON file is an error with its path."""
    (run.path("sft") / file).write_text('{"schema_version": 1,')
    with pytest.raises(StoreError, match=rf"sent-sft-0/{file} is not JSON"):
        _ = run.results().cells


def test_an_ok_cell_without_scores_is_refused(run):
    """A cell that says ok must have what it says."""
    (run.path("sft") / "scores.parquet").unlink()
    with pytest.raises(StoreError, match=r"no scores\.parquet"):
        _ = run.results().cells


def test_broken_scores_are_refused(run):
    """A Parquet file that is none, lacks a column, or scores a sample twice is an error with its path."""
    file = run.path("sft") / "scores.parquet"
    scores = pd.read_parquet(file)
    pd.concat([scores, scores.head(1)]).to_parquet(file)
    with pytest.raises(StoreError, match="twice"):
        run.results().frame()
    scores.drop(columns="value").to_parquet(file)
    with pytest.raises(StoreError, match="no column value"):
        run.results().frame()
    file.write_bytes(b"not parquet")
    with pytest.raises(StoreError, match="not a Parquet file"):
        run.results().frame()


def test_a_broken_training_log_is_named_by_line(run):
    """A torn line is an error with file and line."""
    with (run.path("sft") / "training.jsonl").open("a") as file:
        file.write("\n{torn")
    with pytest.raises(StoreError, match=r"training\.jsonl:21 is not JSON"):
        run.results().training()


def test_reading_is_lazy(run):
    """Opening a run reads the plan only: a broken cell hurts when it is asked for."""
    (run.path("sft") / "cell.json").write_text("broken")
    assert run.results().plan["name"] == "synthetic"


def test_reports_import_no_torch():
    """A report can be made where torch is not installed."""
    modules = ["frame", "analysis", "tables", "charts", "html", "markdown", "csv", "latex", "terminal"]
    code = f"import sys, importlib; [importlib.import_module(f'bakeoff.reports.{{m}}') for m in {modules}]; "
    code += "assert not {'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
