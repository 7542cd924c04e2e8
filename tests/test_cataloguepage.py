"""The page of plugins, and that ``docs/algorithms.md`` is the one of today's."""

from importlib.metadata import distribution
from pathlib import Path

from bakeoff.catalogue import PluginInfo, PresetInfo, describe
from bakeoff.cataloguepage import page

PAGE = Path(__file__).parent.parent / "docs" / "algorithms.md"


def test_the_page_of_algorithms_is_todays():
    """Of those that bakeoff brings, whatever else is installed."""
    ours = sorted(each.name for each in distribution("bakeoff").entry_points if each.group == "bakeoff.algorithms")
    written = page("algorithm", [describe("algorithm", name) for name in ours])
    assert PAGE.read_text(encoding="utf-8") == written, (
        "make it again: bakeoff plugins list algorithm --markdown > docs/algorithms.md"
    )


def test_a_plugin_has_a_line_and_each_preset_one():
    """Names, titles, facts, settings as in a matrix, papers as links; what Markdown would act on is escaped."""
    preset = PresetInfo("b", "Title <b>", "Ann 2020, arXiv:2001.00001", {"loss": {"x": 1.0}, "n": None}, "a | b")
    info = PluginInfo("a", "algorithm", "lab", "1", "lab:A", title="Title of a_b", facts={"trains on": "text"})
    lines = page(
        "algorithm", [info, PluginInfo("c", "algorithm", "lab", "1", "lab:C", error="it is gone")]
    ).splitlines()
    assert "| `a` | Title of a\\_b | text |" in lines
    assert "| `c` | broken: it is gone |  |" in lines
    assert not any("Presets" in line for line in lines)
    given = PluginInfo("a", "algorithm", "lab", "1", "lab:A", title="A", paper="Bo 2021", presets=(preset,))
    *_, last = page("algorithm", [given]).splitlines()
    link = "[arXiv:2001.00001](https://arxiv.org/abs/2001.00001)"
    assert last == f"| `a:b` | Title &lt;b> | `loss: {{x: 1.0}}, n: null` | a \\| b | Ann 2020, {link} |"
