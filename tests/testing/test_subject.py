"""What checks of all kinds share: a plugin says what it is, in a title and a sentence."""

import importlib

import pytest

from bakeoff import registry
from bakeoff.testing import examine

PLUGINS = [("algorithm", "base"), ("task", "arithmetic"), ("evaluator", "health"), ("judge", "gold"), ("report", "csv")]


@pytest.mark.parametrize(("kind", "name"), PLUGINS, ids=[kind for kind, _ in PLUGINS])
def test_a_plugin_of_any_kind_has_a_title(kind, name):
    """An empty one is found out, whatever the kind."""
    nameless = type("Nameless", (honest := registry.load(kind, name),), {"title": "", "__module__": honest.__module__})
    (finding,) = examine(kind, nameless, only=["described"]).broken
    assert finding.name == "described"
    assert finding.found == "its `title` is empty."


def test_a_plugin_says_in_a_sentence_what_it_does(tmp_path, monkeypatch):
    """Its class does, or its module."""
    monkeypatch.syspath_prepend(tmp_path)
    source = "from bakeoff import registry\nclass Plugin(registry.load('judge', 'gold')):\n    title = 'Gold'\n"
    found = {}
    for name, docstring in {
        "judge_that_is_silent": "",
        "judge_that_speaks": '"""The higher gold reward wins."""\n',
    }.items():
        (tmp_path / f"{name}.py").write_text(docstring + source)
        plugin = importlib.import_module(name).Plugin
        found[name] = [finding.found for finding in examine("judge", plugin, only=["described"]).broken]
    assert found == {
        "judge_that_is_silent": ["neither the class nor its module has a docstring."],
        "judge_that_speaks": [],
    }
