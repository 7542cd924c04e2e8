"""The KL of tokens out of a cell's samples: sums by prompt and position."""

import numpy as np
import pandas as pd
from bakeoff.reports.records.tokens import token_kl


def test_completions_of_any_length_are_summed_by_prompt_and_position(run):
    """Two samples of one prompt, of two tokens and of one, and an empty one of another; probes count for nothing."""
    rows = [("b", 0, 1.0, [1.0, 2.0]), ("a", 0, 1.0, []), ("b", 1, 1.0, [0.5]), ("b", 0, 0.5, None)]
    frame = pd.DataFrame(rows, columns=["prompt_id", "sample", "fraction", "token_kl"])
    frame.to_parquet(run.path("sft") / "samples.parquet")
    found = token_kl(run.results(), run.path("sft").name)
    assert list(found.prompts) == ["a", "b"]
    assert found.kl.tolist() == [[0, 0], [1.5, 2]]
    assert found.tokens.tolist() == [[0, 0], [2, 1]]


def test_a_run_that_kept_sums_alone_has_none(run):
    """Without the column, with nothing in it, and without the file."""
    path = run.path("sft") / "samples.parquet"
    frame = pd.read_parquet(path)
    frame.assign(token_kl=None).to_parquet(path)
    assert token_kl(run.results(), run.path("sft").name) is None
    frame.drop(columns="token_kl").to_parquet(path)
    assert token_kl(run.results(), run.path("sft").name) is None
    path.unlink()
    assert token_kl(run.results(), run.path("sft").name) is None


def test_tokens_add_up_to_the_kl_of_completions(results, run):
    """What the synthetic run's tokens sum to is the sum that is stored beside them."""
    path = run.path("dpo") / "samples.parquet"
    stored = pd.read_parquet(path).query("fraction == 1.0")["kl"]
    found = token_kl(run.results(), run.path("dpo").name)
    assert np.isclose(found.kl.sum(), stored.sum(), rtol=1e-6)
