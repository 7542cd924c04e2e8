"""REINFORCE as the documentation shows it."""

import re
import runpy
from pathlib import Path

from bakeoff import registry
from bakeoff.on_policy import OnPolicySettings

ROOT = Path(__file__).parents[2]


def example(page):
    """The page's on-policy algorithm."""
    return re.search(r"```python\n(from bakeoff.on_policy import.*?)```", (ROOT / page).read_text(), re.DOTALL)[1]


def test_the_example_is_short_and_learns(learn, monkeypatch, tmp_path):
    """The same under 40 lines in README and guide; twenty steps raise the share of "e"."""
    text = example("README.md")
    assert text == example("docs/add-an-algorithm.md")
    assert len(text.splitlines()) < 40
    (tmp_path / "example.py").write_text(text)
    plugin = runpy.run_path(str(tmp_path / "example.py"))["Reinforce"]
    assert plugin.Settings is OnPolicySettings
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda kind, name: plugin if name == "reinforce" else load(kind, name))
    settings = {"learning_rate": 1e-2, "prompts_per_rollout": 16, "group": 4, "beta": 0.0}
    before, after = learn("reinforce", settings, steps=20)
    assert before < 0.35
    assert after > 0.5
