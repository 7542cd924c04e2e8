"""The tables that question a result: over-optimisation, slices, health, controls."""

import json

import pandas as pd
import pytest
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.tables import checks


def rows(table):
    return table.frame.to_dict("records")


def test_slices_are_thirds_and_a_turned_sign_is_said(run):
    """When sft loses on the easy third alone, its overall gain hides it and the slice says so."""
    (section,) = sections(run.results())
    assert section.results.reference_pool(section.cells["id"]) is not None
    easy = [row["prompts"] for row in rows(checks.slices(section))]
    assert set(easy) == {16}
    pool = pd.read_parquet(next(run.folder.glob("stages/*/samples.parquet")))
    third = pool.groupby("prompt_id")["gold_reward"].mean().nlargest(16).index
    for seed in range(3):
        file = run.path("sft", seed) / "scores.parquet"
        scores = pd.read_parquet(file)
        hurt = scores["prompt_id"].isin(third) & (scores["metric"] == "gold_reward") & (scores["fraction"] == 1.0)
        scores.loc[hurt, "value"] -= 0.45
        scores.to_parquet(file)
    (section,) = sections(run.results())
    assert section.effects["sft"].difference.mean > 0
    found = {row["slice"]: row for row in rows(checks.slices(section)) if row["algorithm"] == "sft"}
    assert found["difficulty: low"]["note"] == "against the overall gain"
    assert found["difficulty: low"]["difference"] < 0 < found["difficulty: high"]["difference"]


def test_slices_by_the_length_of_the_prompt(run):
    """Prompts of 48 lengths fall into three parts of 16."""
    for file in run.folder.glob("cells/*/samples.parquet"):
        samples = pd.read_parquet(file)
        samples["prompt"] = ["x" * int(name[1:]) for name in samples["prompt_id"]]
        samples.to_parquet(file)
    (section,) = sections(run.results())
    found = [row for row in rows(checks.slices(section)) if row["slice"].startswith("prompt length")]
    assert [row["slice"] for row in found[::4]] == [f"prompt length: {part}" for part in checks.THIRDS]


def test_health_shows_what_trainers_logged_at_the_end(run):
    """The last tenth of training: grad norms of 5 there and 1 before are 5."""
    for seed in range(3):
        log = [{"step": i, "fraction": i / 20, "seconds": i, "grad_norm": 5.0 if i >= 18 else 1.0} for i in range(20)]
        (run.path("sft", seed) / "training.jsonl").write_text("\n".join(map(json.dumps, log)))
    table = checks.health(sections(run.results())[0])
    frame = table.frame.set_index("algorithm")
    assert frame.loc["sft", "grad_norm"] == 5.0
    assert pd.isna(frame.loc["dpo", "grad_norm"])
    assert "KL floor: the untrained policy measures 0 nats" in table.caption


def test_controls_need_no_training(results):
    """Base, best of 2 to 16, and the constant answer, each with what it costs."""
    table = checks.controls(sections(results)[0])
    names = [row["control"] for row in rows(table)]
    assert names == ["base", "best of 2", "best of 4", "best of 8", "best of 16", "best constant answer 'good'"]
    best = next(row for row in rows(table) if row["control"] == "best of 16")
    assert (best["cost"], best["kl"]) == (16, pytest.approx(1.835, abs=1e-3))


def test_overoptimisation_table_ends_where_training_did(results):
    """Proxy, gold and KL of the last evaluation, and nothing lost where gold still rises."""
    (section,) = sections(results)
    row = next(row for row in rows(checks.over_optimisation(section)) if row["algorithm"] == "sft")
    assert row["kl"] == pytest.approx(section.curve("sft", "kl")[-1].estimate.mean)
    assert row["drop"] == 0.0
    assert row["proxy"] > row["gold"]
