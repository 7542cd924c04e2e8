"""The provenance card: what a run recorded, and nothing that it did not."""

import shutil

from bakeoff.reports.page.card import card


def entries(results):
    return {group.title: {entry.name: entry.value for entry in group.entries} for group in card(results)}


def test_card_tells_the_plan_the_equal_the_settings_and_the_machine(results):
    """Each group from its own file: plan, parity, settings, data, environment."""
    told = entries(results)
    assert told["Question and plan"]["decided by"] == "gold reward, margin of equivalence ±0.04"
    assert told["Question and plan"]["p adjusted over"] == "against base"
    assert told["Question and plan"]["design"] == "3 seeds × 48 prompts × 1 samples, last checkpoint"
    assert told["Question and plan"]["declared"].startswith(results.declaration["hash"])
    assert told["Question and plan"]["budget"] == "6tf: 6.00 T FLOPs"
    assert told["Held equal"] == {
        "parity": "cells of one comparison agree in everything recorded",
        "weights": "aa11", "device": "cpu", "LoRA": "r 16", "training rows": "bb22",
    }  # fmt: skip
    assert told["Algorithms and their settings"]["dpo"] == "Direct Preference Optimization: learning_rate 0.0003"
    assert told["Data"]["source"] == "synthetic films"
    assert told["Where it ran"]["commit"] == "0123456789abcdef"


def test_an_empty_run_has_a_card(run):
    """Before anything ran the plan is told, and that the environment is not known."""
    shutil.rmtree(run.folder / "cells")
    (run.folder / "environment.json").unlink()
    told = entries(run.results())
    assert "Data" not in told
    assert told["Where it ran"] == {"missing": "environment.json is missing"}
