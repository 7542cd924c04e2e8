"""Every plugin that bakeoff brings keeps its promises, each of them found by its entry point."""

import json
import re
from importlib.metadata import distribution
from pathlib import Path

import pytest

from bakeoff import catalogue, registry
from bakeoff.testing import examine

OURS = sorted(
    (point.group.removeprefix("bakeoff.").removesuffix("s"), point.name)
    for point in distribution("bakeoff").entry_points
    if point.group.startswith("bakeoff.")
)


ELSEWHERE = {"judge-openai": "test_openai_chat.py", "judge-reward_model": "test_reward_model.py"}
"""Those that need a server or a model have their test where these are made."""
SMALL = {"prompts_per_rollout": 4, "group": 4, "batch": 4, "offline_pairs": 2}


@pytest.fixture
def settings(tmp_path):
    """Settings of the plugins that have no defaults for all of them."""
    rows = [{"prompt": f"say {number}", "chosen": "e", "rejected": "x"} for number in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return {"file": {"train": str(tmp_path / "rows.jsonl"), "test_fraction": 0.3}}


HERE = [(kind, name) for kind, name in OURS if f"{kind}-{name}" not in ELSEWHERE]


SOURCE = re.compile(
    r"""arXiv:\d{4}\.\d{4,5} | \bpapers?\b | \bTRL\b | \bHF's | \b[Tt]his\ project's\ choice | \bOpenAI's
    | \b[A-Z]\w+:\ \d                       # (LLM2Vec: 128)
    | \bunless\ given | \bNo\ default\b | \b[01]\ is\ off\b  # what it is without
    """,
    re.VERBOSE,
)
"""What tells where a default comes from: a paper, a library, this project; or that without a value there is nothing."""


@pytest.mark.parametrize(("kind", "name"), [each for each in OURS if each[0] in ("algorithm", "evaluator", "judge")])
def test_every_default_has_a_source(kind, name):
    """The description of each setting says where its default comes from, as `plugins show` promises."""
    settings = catalogue.describe(kind, name).settings
    bare = {
        each.name: each.description for each in settings if not each.required and not SOURCE.search(each.description)
    }
    assert bare == {}


def test_a_bare_description_names_no_source():
    """The rule is one that a description can fail."""
    for bare in ("Completions a prompt.", "Pairs an optimizer step. 4 to 64.", "Peak; follows the matrix's schedule."):
        assert not SOURCE.search(bare)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), HERE, ids=[f"{kind}-{name}" for kind, name in HERE])
def test_a_built_in_keeps_its_promises(kind, name, settings):
    """As a stranger's plugin has to, in under a minute of its own time."""
    known = registry.load(kind, name).Settings.model_fields if kind == "algorithm" else {}
    small = {key: value for key, value in SMALL.items() if key in known}
    conformance = examine(kind, name, {**small, **settings.get(name, {})})
    conformance.raise_if_broken()
    assert any(finding.verdict == "kept" for finding in conformance.findings)


@pytest.mark.parametrize("file", ELSEWHERE.values())
def test_the_others_are_held_to_theirs(file):
    """Where their server or model is."""
    assert "examine(" in (Path(__file__).parents[1] / "evaluators" / file).read_text()
