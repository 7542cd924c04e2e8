"""Two runs side by side: which verdicts changed, and why as far as it is on record."""

import json
import shutil

import pandas as pd
import pytest
from bakeoff.reports.compare import ABSENT, CHANCE, changes, differences
from bakeoff.reports.frame import Results


@pytest.fixture
def pair(run, tmp_path):
    """Two copies of one run; the second is there to be changed."""
    shutil.copytree(run.folder, tmp_path / "other")
    return run, tmp_path / "other"


def cells_of(folder, algorithm):
    for path in sorted((folder / "cells").glob("*/cell.json")):
        record = json.loads(path.read_text())
        if record["algorithm"] == algorithm:
            yield path, record


def shift(folder, algorithm, metric, by):
    for path, _ in cells_of(folder, algorithm):
        file = path.parent / "scores.parquet"
        scores = pd.read_parquet(file)
        scores.loc[scores["metric"] == metric, "value"] += by
        scores.to_parquet(file)


def found(pair):
    before, after = pair[0].results(), Results.read(pair[1])
    return changes(before, after), differences(before, after)


def test_equal_runs_differ_in_nothing(pair):
    """A copy has the same verdicts and the same surroundings."""
    assert found(pair) == ([], [])


def test_changed_verdict_names_the_setting(pair):
    """DPO at another learning rate fell under the base: its pairs change, and the setting is why."""
    run, other = pair
    for path, record in cells_of(other, "dpo"):
        run.edit(path, settings=record["settings"] | {"learning_rate": 1e-2})
    shift(other, "dpo", "gold_reward", -0.9)
    told, _ = found(pair)
    against_base = next(change for change in told if (change.a, change.b) == ("base", "dpo"))
    assert against_base.before == "descriptive: behind"  # three seeds do not decide
    assert against_base.after == "descriptive: ahead"
    assert against_base.difference_before < 0 < against_base.difference_after
    assert "dpo: algorithm.settings.learning_rate 0.0003 → 0.01" in against_base.why
    assert not any({"sft", "ppo"} >= {change.a, change.b} for change in told)
    assert all("dpo" in (change.a, change.b) for change in told)


def test_failed_seed_and_version_are_reasons(pair):
    """A seed that is gone and another torch are told; the version as a difference between the runs."""
    run, other = pair
    folder = next(cells_of(other, "grpo-lr3"))[0].parent
    run._fail({"id": folder.name}, "oom", "")
    shutil.copytree(run.folder / "cells" / folder.name, other / "cells" / folder.name, dirs_exist_ok=True)
    run._ok(run._cell("sentiment", "grpo-lr3", 0))
    where = json.loads((other / "environment.json").read_text())
    run.edit(other / "environment.json", packages=where["packages"] | {"torch": "9.9"})
    shift(other, "grpo-lr3", "gold_reward", -0.9)
    told, between = found(pair)
    (change,) = [change for change in told if (change.a, change.b) == ("base", "grpo-lr3")]
    assert "grpo-lr3: seeds that ended well 0, 1, 2 → 1, 2" in change.why
    assert "grpo-lr3: not well none → 1 oom" in change.why
    assert between == ["packages.torch 2.13.0 → 9.9"]


def test_change_without_a_recorded_reason_is_chance(pair):
    """Nothing is made up."""
    shift(pair[1], "sft", "gold_reward", -0.9)
    told, _ = found(pair)
    assert {change.why for change in told if "sft" in (change.a, change.b)} == {(CHANCE,)}


def test_algorithm_that_is_in_one_run_alone(pair):
    """Its pairs are absent from the other."""
    run, other = pair
    plan = json.loads((other / "plan.json").read_text())
    run.edit(other / "plan.json", cells=[cell for cell in plan["cells"] if cell["algorithm"] != "ppo"])
    told, _ = found(pair)
    gone = [change for change in told if "ppo" in (change.a, change.b)]
    assert len(gone) == 4
    assert {change.after for change in gone} == {ABSENT}
    assert all("ppo is in the first run alone" in change.why for change in gone)
