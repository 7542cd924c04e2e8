"""The gate: each of its five exits, and which of them counts where several hold."""

import json
import shutil

import pandas as pd
import pytest
from bakeoff.reports.frame import Results
from bakeoff.reports.gate import Code, gate


@pytest.fixture
def old(run):
    """The run that passed: every cell ended well."""
    run._ok(run._cell("sentiment", "ppo", 2))
    return run


@pytest.fixture
def new(old, tmp_path):
    """A copy of it, to be made worse."""
    shutil.copytree(old.folder, tmp_path / "new")
    return tmp_path / "new"


def cell(folder, algorithm, seed):
    return folder / "cells" / f"sent-{algorithm}-{seed}"


def shift(folder, algorithm, by, metric="gold_reward"):
    for seed in range(3):
        path = cell(folder, algorithm, seed) / "scores.parquet"
        scores = pd.read_parquet(path)
        scores.loc[scores["metric"] == metric, "value"] += by
        scores.to_parquet(path)


def fail(folder, algorithm, seed, status):
    path = cell(folder, algorithm, seed) / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": status, "reason": "said so"}))


def held(new, old=None, **options):
    return gate(Results.read(new), old and old.results(), **options)


def test_same_run_passes(old, new):
    """Against itself, and against its base."""
    made = held(new, old)
    assert made.code == Code.OK == 0
    assert len(made.findings) == 5
    assert held(new).code == Code.OK


def test_loss_is_a_regression_unless_it_is_within_the_margin(old, new):
    """A tenth less on every prompt; better numbers and a loss that was allowed pass."""
    shift(new, "dpo", -0.1)
    assert held(new, old).code == Code.REGRESSION == 1
    assert next(text for code, text in held(new, old).findings if code == Code.REGRESSION).count("dpo") == 1
    assert held(new, old, margin=0.2).code == Code.OK
    shift(new, "dpo", 0.3)
    assert held(new, old).code == Code.OK


def test_metric_where_less_is_better(old, new):
    """More of it is the regression."""
    for folder in (old.folder, new):
        for path in folder.glob("cells/*/cell.json"):
            record = json.loads(path.read_text())
            kl = [m | {"direction": "lower"} if m["name"] == "kl" else m for m in record["metrics"]]
            path.write_text(json.dumps(record | {"metrics": kl}))
    shift(new, "dpo", 1.0, metric="kl")
    assert held(new, old, metric="kl").code == Code.REGRESSION
    shift(new, "dpo", -2.0, metric="kl")
    assert held(new, old, metric="kl").code == Code.OK


def test_algorithm_under_its_base_is_a_regression(new):
    """Without another run, the untrained policy is the bar."""
    shift(new, "sft", -0.9)
    made = held(new)
    assert made.code == Code.REGRESSION
    assert "sft against base" in next(text for code, text in made.findings if code == Code.REGRESSION)


def test_noise_is_no_regression(old, new):
    """A loss on half of the prompts and a gain on the others is none."""
    path = cell(new, "dpo", 0) / "scores.parquet"
    scores = pd.read_parquet(path)
    gold = scores["metric"] == "gold_reward"
    scores.loc[gold, "value"] += [0.1 if n % 2 else -0.1 for n in range(gold.sum())]
    scores.to_parquet(path)
    assert held(new, old).code == Code.OK


@pytest.mark.parametrize("status", ["plugin_error", "diverged"])
def test_algorithm_that_no_longer_trains_is_a_regression(status, old, new):
    """Unless it did not train before either."""
    fail(new, "ppo", 1, status)
    assert held(new, old).code == Code.REGRESSION
    fail(old.folder, "ppo", 1, status)
    assert held(new, old).code == Code.OK


@pytest.mark.parametrize("status", ["oom", "timeout", "infra_error"])
def test_failure_of_the_machine_is_told_apart(status, old, new):
    """It says nothing of the algorithm, and the rest is well; a regression beside it counts more."""
    fail(new, "ppo", 1, status)
    assert held(new, old).code == Code.INFRASTRUCTURE == 3
    shift(new, "dpo", -0.5)
    assert held(new, old).code == Code.REGRESSION


def test_nothing_measured(old, new):
    """No cell was run; with the machine to blame it is the machine."""
    shutil.rmtree(new / "cells")
    (new / "cells").mkdir()
    assert held(new, old).code == Code.NOTHING_MEASURED == 2
    assert held(new).code == Code.NOTHING_MEASURED
    shutil.rmtree(new / "cells")
    shutil.copytree(old.folder / "cells", new / "cells")
    for path in new.glob("cells/*"):
        path.joinpath("status.json").write_text(json.dumps({"schema_version": 1, "status": "oom", "reason": ""}))
    assert held(new, old).code == Code.INFRASTRUCTURE


def test_other_rows_or_model_are_not_comparable(old, new):
    """Unless told to mix; a regression does not count over what is not comparable."""
    shift(new, "dpo", -0.5)
    for path in new.glob("cells/*/cell.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"parity": record["parity"] | {"model_sha": "other"}}))
    made = held(new, old)
    assert made.code == Code.NOT_COMPARABLE == 4
    assert any("model_sha was aa11 and is other" in text for _, text in made.findings)
    assert gate(Results.read(new, mixed=True), old.results()).code == Code.REGRESSION


def test_other_budget_task_or_seeds_are_not_comparable(old, new, tmp_path):
    """What was spent, what was asked and which draws were made have to be the same."""
    plan = json.loads((new / "plan.json").read_text())
    budget = plan["matrix"]["budgets"][0] | {"flops": 5e12}
    (new / "plan.json").write_text(json.dumps(plan | {"matrix": {"budgets": [budget]}}))
    assert held(new, old).code == Code.NOT_COMPARABLE
    renamed = [entry | {"task": "another"} for entry in plan["cells"]]
    (new / "plan.json").write_text(json.dumps(plan | {"cells": renamed}))
    assert "share no task" in " ".join(text for _, text in held(new, old).findings)
    seeds = [entry | {"seed": entry["seed"] + 10} for entry in plan["cells"]]
    (new / "plan.json").write_text(json.dumps(plan | {"cells": seeds}))
    made = held(new, old)
    assert made.code == Code.NOT_COMPARABLE
    assert any("shares no seed" in text for _, text in made.findings)


def test_red_flag_that_blocks_is_not_comparable(old, new):
    """A leaked test prompt makes any score worthless."""
    path = cell(new, "sft", 0) / "cell.json"
    record = json.loads(path.read_text())
    data = record["data"] | {"overlap": {"exact": 1, "near": 0, "examples": ["p001"]}}
    path.write_text(json.dumps(record | {"data": data}))
    made = held(new, old)
    assert made.code == Code.NOT_COMPARABLE
    assert any("leaked prompt" in text for _, text in made.findings)
