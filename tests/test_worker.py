"""Whole cells on a toy model: what a cell writes, its warm start, and going on after a crash."""

import json, sys; sys.path.insert(0,"/tmp/lab"); import dbg

import pandas as pd
import pytest
from safetensors.torch import load_file

SMALL = {
    "sft": {"learning_rate": 5e-3, "batch": 4},
    "dpo": {"learning_rate": 5e-3, "batch": 4},
    "ppo": {"learning_rate": 5e-3, "prompts_per_rollout": 8, "epochs": 2, "minibatches": 1},
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


def training(folder, *names):
    """Lines of the training log without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.mark.parametrize("precision", ["nf4", "bf16"])
@pytest.mark.parametrize("algorithm", SMALL)
def test_a_cell_that_crashed_goes_on_as_if_it_had_not(algorithm, precision, toy_cell, run_cell):
    """Crash after step 4 of 6 with checkpoints behind it, run again: weights, log and scores equal the unbroken run's."""
    cell = toy_cell(algorithm, SMALL[algorithm], precision=precision, budget={"steps": 6}, checkpoint_s=0)
    whole = run_cell(cell, run="whole")
    with pytest.raises(Crash):
        run_cell(cell, run="broken", progress=crash_at(5))
    checkpoints = list((whole.parents[2] / "broken/cells/cell.partial/checkpoints").glob("*/bakeoff.json"))
    assert checkpoints
    resumed = run_cell(cell, run="broken")
    expected, found = adapter(whole), adapter(resumed)
    assert all((expected[name] == found[name]).all() for name in expected)
    pd.testing.assert_frame_equal(scores(whole), scores(resumed))
    assert training(whole) == training(resumed)
