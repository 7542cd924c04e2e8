"""A synthetic suite with planted defects: the report flags each one, and nothing where nothing is planted."""

import json
import shutil
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.charts import effects
from bakeoff.reports.flags import DETECTORS, blocking, flags
from bakeoff.reports.frame import Results
from bakeoff.reports.markdown import Markdown
from bakeoff.reports.records.lock import LOCKED_OUT
from bakeoff.reports.records.scored import samples_fingerprint

from bakeoff.declaration import digest

SECTION = ("SmolLM2-135M", "sentiment", "6tf")
CANARY = ["model", "task", "budget", "canary", "prompt_id", "forward", "backward", "value"]


@pytest.fixture
def clean(run):
    """A run in which every cell ended well and a sane judge compared all of them."""
    run._ok(run._cell("sentiment", "ppo", 2))
    write_judge(run, by_gold)
    return run


def read(path):
    return json.loads(path.read_text())


def by_gold(rows):
    """(forward, backward, value) of a judge that sees the gold reward."""
    a, b = rows["gold_a"].to_numpy(), rows["gold_b"].to_numpy()
    return np.where(a > b, "a", "b"), np.where(a > b, "b", "a"), np.where(a > b, 1.0, 0.0)


def write_judge(run, decide, *, tricks=None, label="llm"):
    """Leaves what ``bakeoff score`` would have: ``decide`` gives the verdicts, ``tricks`` the canaries' values."""
    cells = read(run.folder / "plan.json")["cells"]
    gold = {}
    for cell in cells:
        scores = pd.read_parquet(run.folder / "cells" / cell["id"] / "scores.parquet")
        final = scores[(scores["metric"] == "gold_reward") & (scores["fraction"] == 1.0)]
        gold[cell["id"]] = final.set_index("prompt_id")["value"]
    frames = []
    for a, b in combinations(cells, 2):
        if a["seed"] == b["seed"]:
            pair = pd.DataFrame({"gold_a": gold[a["id"]], "gold_b": gold[b["id"]]}).reset_index()
            frames.append(pair.assign(a=a["id"], b=b["id"], seed=a["seed"], sample=0))
    verdicts = pd.concat(frames, ignore_index=True)
    verdicts["forward"], verdicts["backward"], verdicts["value"] = decide(verdicts)
    verdicts[["model", "task", "budget"]] = SECTION
    values = {"identical": 0.5, "null": 0.0, "padded": 0.5, "injection": 0.0} | (tricks or {})
    canaries = pd.DataFrame(
        [(*SECTION, name, f"p{n:03d}", "?", "?", value) for name, value in values.items() for n in range(32)],
        columns=CANARY,
    )
    folder = run.folder / "scored" / f"judge-{label}"
    folder.mkdir(parents=True)
    verdicts.drop(columns=["gold_a", "gold_b"]).to_parquet(folder / "verdicts.parquet")
    canaries.to_parquet(folder / "canaries.parquet")
    session = {"created": "2026-11-25T10:00:00+00:00", "facts": {"models": {"judge-1": 9}}}
    record = {
        "schema_version": 1, "kind": "judge", "name": "openai", "label": label, "title": "", "settings": {},
        "identity": "0", "bakeoff": "0.1.0", "metrics": [], "sessions": [session],
        "cells": {c["id"]: samples_fingerprint(run.folder / "cells" / c["id"] / "samples.parquet") for c in cells},
    }  # fmt: skip
    (folder / "scored.json").write_text(json.dumps(record))


def edit_samples(run, algorithm, seed, change):
    """Rewrites a cell's samples; the judge is written anew, as it would be asked about the new ones."""
    path = run.path(algorithm, seed) / "samples.parquet"
    change(pd.read_parquet(path)).to_parquet(path)
    if (run.folder / "scored").exists():
        shutil.rmtree(run.folder / "scored")
        write_judge(run, by_gold)


def edit_scores(run, algorithm, metric, change):
    for seed in run.seeds:
        path = run.path(algorithm, seed) / "scores.parquet"
        scores = pd.read_parquet(path)
        chosen = scores["metric"] == metric
        scores.loc[chosen, "value"] = change(scores.loc[chosen, "value"])
        scores.to_parquet(path)


def edit_ledger(run, algorithm, factor):
    for seed in run.seeds:
        path = run.path(algorithm, seed) / "ledger.json"
        ledger = read(path)
        run.edit(path, spent={name: value * factor for name, value in ledger["spent"].items()})


# ------------------------------------------------------------------------------------ planted defects


def hacked_judge(run):
    """The judge lets a constant answer win."""
    shutil.rmtree(run.folder / "scored")
    write_judge(run, by_gold, tricks={"null": 1.0})
    return ["llm", "null"]


def silent_judge(run):
    """The judge's endpoint was down for a third of the comparisons."""

    def sometimes(rows):
        forward, backward, value = by_gold(rows)
        down = np.arange(len(rows)) % 3 == 0
        return np.where(down, "invalid", forward), backward, np.where(down, np.nan, value)

    shutil.rmtree(run.folder / "scored")
    write_judge(run, sometimes)
    return ["llm", "33%"]


def leaked_prompt(run):
    """Two test prompts stand in the training rows."""
    for seed in run.seeds:
        path = run.path("sft", seed) / "cell.json"
        run.edit(path, data=read(path)["data"] | {"overlap": {"exact": 2, "near": 0, "examples": ["p007", "p011"]}})
    return ["2 test prompts", "p007"]


def unequal_budget(run):
    """GRPO was stopped at two thirds of what the others spent."""
    edit_ledger(run, "grpo-lr3", 0.66)
    return ["grpo-lr3 spent 67%"]


def dead_seed(run):
    """A seed of DPO gives what the untrained policy gives."""
    base = pd.read_parquet(run.path("base", 1) / "samples.parquet").query("fraction == 1.0")
    texts = base.set_index("prompt_id")["completion"]
    edit_samples(run, "dpo", 1, lambda rows: rows.assign(completion=rows["prompt_id"].map(texts)))
    return ["dpo seed 1 learned nothing"]


def no_signal(run):
    """Nobody ever got an answer right."""
    for algorithm in ("base", "sft", "dpo", "ppo", "grpo-lr3"):
        edit_scores(run, algorithm, "gold_reward", lambda values: 0.0 * values)
    return ["scores 0 gold reward"]


def hidden_run(run):
    """A run that diverged was taken out of the plan."""
    folder = run.folder / "cells" / "sent-ppo-3"
    folder.mkdir()
    status = {"schema_version": 1, "status": "diverged", "reason": "loss is NaN"}
    (folder / "status.json").write_text(json.dumps(status))
    return ["sent-ppo-3", "diverged"]


def changed_plan(run):
    """The margin was raised after the results were there."""
    (declared,) = read(run.folder / "plan.json")["declarations"]
    later = declared | {"margin": 0.5, "declared": "2026-11-24T12:00:00Z", "results": 15}
    run.edit(run.folder / "plan.json", declarations=[declared, later | {"hash": digest(later)}])
    return ["margin", "0.5", "15 cells"]


def changed_matrix(run):
    """Two cells with another learning rate were run before."""
    plan = read(run.folder / "plan.json")
    old = [cell | {"id": f"old-{cell['id']}"} for cell in plan["cells"] if cell["algorithm"] == "sft"][:2]
    for cell in old:
        shutil.copytree(run.path("sft"), run.folder / "cells" / cell["id"])
    run.edit(run.folder / "plan.json", retired=old)
    return ["2 of sft"]


def mixed_precision(run):
    """One seed of PPO was trained in another precision."""
    _edit_parity(run, "ppo", 0, precision="fp32")
    return ["ppo seed 0 is left out", "fp32", "nf4"]


def mixed_setup(run):
    """One seed of SFT was trained on other rows."""
    _edit_parity(run, "sft", 2, train_rows_sha="cc33")
    return ["sft seed 2 is left out", "cc33"]


def _edit_parity(run, algorithm, seed, **changed):
    for cell in read(run.folder / "plan.json")["cells"]:
        path = run.folder / "cells" / cell["id"] / "cell.json"
        run.edit(path, parity=read(path)["parity"] | {"precision": "nf4"})
    path = run.path(algorithm, seed) / "cell.json"
    run.edit(path, parity=read(path)["parity"] | changed)


def over_optimised(run):
    """GRPO's training reward rose while its gold reward fell under that of the base."""
    edit_scores(run, "grpo-lr3", "gold_reward", lambda values: values - 0.9)
    shutil.rmtree(run.folder / "scored")
    write_judge(run, by_gold)
    return ["grpo-lr3 gained", "gold reward"]


def cut_off(run):
    """Nearly all of SFT's completions were cut."""
    for cell in read(run.folder / "plan.json")["cells"]:
        folder = run.folder / "cells" / cell["id"]
        scores = pd.read_parquet(folder / "scores.parquet")
        cut = scores[scores["metric"] == "ended_eos"].assign(
            metric="truncated", value=float(cell["algorithm"] == "sft")
        )
        pd.concat([scores, cut]).to_parquet(folder / "scores.parquet")
        metric = {"name": "truncated", "unit": "share", "direction": "none", "description": "cut", "low": 0, "high": 1}
        run.edit(folder / "cell.json", metrics=[*read(folder / "cell.json")["metrics"], metric])
    return ["100% of sft"]


def stale_scores(run):
    """A cell was trained again after the judge had seen it."""
    path = run.path("sft", 0) / "samples.parquet"
    pd.read_parquet(path).assign(n_tokens=7).to_parquet(path)
    return ["1 cell", "judge llm"]


PLANTED = (
    hacked_judge, silent_judge, leaked_prompt, unequal_budget, dead_seed, no_signal, hidden_run, changed_plan,
    changed_matrix, mixed_precision, mixed_setup, over_optimised, cut_off, stale_scores,
)  # fmt: skip


def test_every_detector_has_its_defect():
    """A flag that is removed, or added without a defect that shows it working, fails here."""
    assert {plant.__name__ for plant in PLANTED} == set(DETECTORS)


def test_clean_run_has_no_flag(clean):
    """Flags that are always there are read by nobody."""
    assert flags(clean.results()) == ()


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_planted_defect_is_flagged(plant, clean):
    """The defect, and only it, is flagged, with its numbers."""
    told = plant(clean)
    found = flags(clean.results())
    assert {flag.kind for flag in found} == {plant.__name__}
    assert all(words in " ".join(flag.text for flag in found) for words in told)


# ------------------------------------------------------------------------------------------ the rest


def test_where_nothing_can_be_told_apart_nothing_is_said_to_be_equal(clean):
    """Two that both score 0 on every prompt are not EQUIVALENT: the task asks too much; the headline says so."""
    no_signal(clean)
    (section,) = sections(clean.results())
    assert {pair.verdict.word for pair in section.pairs} == {"INCONCLUSIVE"}
    assert all("out of reach" in pair.verdict.reason for pair in section.pairs)
    assert effects.forest(section).alt == "No algorithm moved gold reward: every gain over base is 0."


def test_flag_blocks_what_it_is_about(clean):
    """A judge that is hacked decides no win rate of its own and leaves the gold reward alone; an unequal budget blocks
    its algorithm against all others."""
    hacked_judge(clean)
    unequal_budget(clean)
    results = clean.results()
    (section,) = sections(results)
    assert blocking(section, "sft", "dpo", "win_rate@llm").kind == "hacked_judge"
    assert blocking(section, "sft", "dpo", "gold_reward") is None
    assert blocking(section, "sft", "grpo-lr3", "gold_reward").kind == "unequal_budget"
    assert blocking(section, "base", "grpo-lr3", "gold_reward") is None  # it won over the base with less
    reasons = {(pair.a, pair.b): pair.verdict.reason for pair in section.pairs}
    assert "grpo-lr3 spent 67% of the budget" in reasons["grpo-lr3", "sft"]


@pytest.mark.parametrize(
    ("tricks", "told"),
    [
        ({"padded": 1.0}, "canary padded"),
        ({"injection": 1.0}, "canary injection"),
        ({"identical": 1.0}, "identical texts"),
        ({"null": 0.5}, None),
    ],
)
def test_each_canary_is_watched(tricks, told, clean):
    """Winning is a failure; a tie that says nothing is not."""
    shutil.rmtree(clean.folder / "scored")
    write_judge(clean, by_gold, tricks=tricks)
    found = [flag.text for flag in flags(clean.results())]
    assert [told in text for text in found] == ([True] if told else [])


def test_judge_that_contradicts_gold_is_flagged(clean):
    """It prefers the worse text throughout, and no canary notices."""
    shutil.rmtree(clean.folder / "scored")
    write_judge(clean, lambda rows: by_gold(rows.rename(columns={"gold_a": "gold_b", "gold_b": "gold_a"})))
    (flag,) = flags(clean.results())
    assert "less than a coin" in flag.text
    assert flag.blocks


def test_one_text_for_all_and_a_copied_seed_are_dead(clean):
    """A collapsed policy is to be minded; a seed that is counted twice blocks."""
    edit_samples(clean, "sft", 0, lambda rows: rows.assign(completion="good"))
    texts = pd.read_parquet(clean.path("dpo", 0) / "samples.parquet")
    edit_samples(clean, "dpo", 2, lambda rows: texts)
    found = {flag.text: flag.blocks for flag in flags(clean.results())}
    assert found == {
        "sft seed 0 gives one and the same text to every prompt.": False,
        "dpo seeds 0 and 2 gave the same samples: they are one seed, counted twice.": True,
    }


def test_failed_and_missing_seeds_are_told(run):
    """A mean over survivors says so, and so does an algorithm with fewer seeds than the others."""
    plan = read(run.folder / "plan.json")
    run.edit(run.folder / "plan.json", cells=[cell for cell in plan["cells"] if cell["id"] != "sent-sft-1"])
    shutil.rmtree(run.path("sft", 1))
    texts = [flag.text for flag in flags(run.results())]
    assert "1 of 3 seeds of ppo failed (seed 2 oom): its means are of the others." in texts
    assert "sft was not run with seeds that were declared or that others had: 1." in texts


def test_seeds_that_a_declared_rule_leaves_out_are_not_missing(run):
    """Of sft one seed of three was declared, and of dpo all: only what dpo lacks was hidden."""
    plan = read(run.folder / "plan.json")
    run.edit(run.folder / "plan.json", cells=[
        cell for cell in plan["cells"] if cell["algorithm"] not in ("sft", "dpo") or cell["seed"] == 0
    ])  # fmt: skip
    for algorithm, seed in product(("sft", "dpo"), (1, 2)):
        shutil.rmtree(run.path(algorithm, seed))
    declared = run.declaration(exclude=[{"algorithm": "sft", "seed": [1, 2]}])
    run.edit(run.folder / "plan.json", declarations=[declared])
    texts = [flag.text for flag in flags(run.results()) if flag.kind == "hidden_run"]
    assert [text for text in texts if "was not run" in text] == [
        "dpo was not run with seeds that were declared or that others had: 1, 2."
    ]


def test_lock_leaves_odd_cells_out_until_told_otherwise(clean):
    """Locked out, a cell is in the table of runs with its reason and in no mean; mixed, it counts, with a flag."""
    mixed_precision(clean)
    cells = clean.results().cells.set_index("id")
    assert cells.loc["sent-ppo-0", "status"] == LOCKED_OUT
    assert "precision is fp32, the others have nf4" in cells.loc["sent-ppo-0", "reason"]
    assert (cells["status"] == "ok").sum() == len(cells) - 1
    (section,) = sections(clean.results())
    assert sorted(section.grid("ppo", "gold_reward").index) == [1, 2]
    mixed = Results.read(clean.folder, mixed=True)
    (section,) = sections(mixed)
    assert sorted(section.grid("ppo", "gold_reward").index) == [0, 1, 2]
    (flag,) = flags(mixed)
    assert flag.kind == "mixed_precision"
    assert "precision: nf4 in base seed 0" in flag.text


def test_near_prompts_are_minded(clean):
    """Prompts made of training prompts' words block nothing and are told."""
    path = clean.path("sft") / "cell.json"
    clean.edit(path, data=read(path)["data"] | {"overlap": {"exact": 0, "near": 3, "examples": ["p001"]}})
    (flag,) = flags(clean.results())
    assert not flag.blocks
    assert "3 test prompts" in flag.text


def test_hostile_labels_are_text(clean):
    """A flag repeats labels and reasons; it stands in the Markdown report, and they stay text."""
    folder = clean.folder / "cells" / "evil"
    folder.mkdir()
    status = {"schema_version": 1, "status": "oom", "reason": "<script>alert(1)</script>"}
    (folder / "status.json").write_text(json.dumps(status))
    text = Markdown().render(clean.results())
    assert "Not a fair comparison (hidden run)" in text
    assert "<script>" not in text
