"""Every plugin that bakeoff brings keeps its promises, each of them found by its entry point."""

import json
from importlib.metadata import distribution

import pytest

from bakeoff.testing import examine

OURS = sorted(
    (point.group.removeprefix("bakeoff.").removesuffix("s"), point.name)
    for point in distribution("bakeoff").entry_points
    if point.group.startswith("bakeoff.")
)


@pytest.fixture
def settings(tmp_path):
    """Settings of the plugins that have no defaults for all of them."""
    rows = [{"prompt": f"say {number}", "chosen": "e", "rejected": "x"} for number in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return {"file": {"train": str(tmp_path / "rows.jsonl"), "test_fraction": 0.3}}


@pytest.mark.parametrize(("kind", "name"), OURS, ids=[f"{kind}-{name}" for kind, name in OURS])
def test_a_built_in_keeps_its_promises(kind, name, settings):
    """As a stranger's plugin has to, in under a minute of its own time."""
    conformance = examine(kind, name, settings.get(name))
    conformance.raise_if_broken()
    assert any(finding.verdict == "kept" for finding in conformance.findings)
