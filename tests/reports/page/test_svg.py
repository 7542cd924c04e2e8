"""Charts made fit for the page: only drawing, no ids shared, marks that say what they are."""

from dataclasses import replace
from xml.etree import ElementTree

import pandas as pd
import pytest
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.charts import effects as charts_effects
from bakeoff.reports.charts import style
from bakeoff.reports.charts.chart import Chart, Mark
from bakeoff.reports.page.svg import glyph, inline, strip
from matplotlib.figure import Figure


def chart_of(svg: str, **marks: Mark) -> Chart:
    made = Chart("a", "title", "what it shows", "caption", pd.DataFrame(), marks, Figure(), "title", "")
    made.__dict__["svg"] = f'<svg xmlns="http://www.w3.org/2000/svg">{svg}</svg>'
    return made


def test_only_drawing_is_kept():
    """Scripts, links, foreign objects and handlers go; style attributes become presentation attributes."""
    hostile = "<script>alert(1)</script><a><rect/></a><foreignObject/>"
    hostile += '<path onclick="alert(1)" style="fill: #fff; stroke: red"/>'
    root = ElementTree.fromstring(inline(chart_of(hostile)))
    assert [child.tag for child in root] == ["path"]
    assert root[0].attrib == {"fill": "#fff", "stroke": "red"}
    assert root.attrib["aria-label"] == "what it shows"


def test_marks_are_named_for_readers_and_screen_readers():
    """A mark tells whose it is, its words, its seed and its prompt; hidden characters are written out."""
    mark = Mark("sft", "sft, seed 1: 0.3\u202e", 1, "p001")
    groups = '<g id="m0"/><g id="m1"/><g id="axes"/><g id="xtick"><path/></g>'
    root = ElementTree.fromstring(inline(chart_of(groups, m0=mark, m1=Mark("dpo"))))
    assert root[0].attrib == {
        "data-algorithm": "sft", "role": "img", "aria-label": "sft, seed 1: 0.3\\u202e", "tabindex": "-1",
        "data-seed": "1", "data-prompt": "p001",
    }  # fmt: skip
    assert root[1].attrib == {"data-algorithm": "dpo"}
    assert len(root) == 3  # an empty group that marks nothing is left out
    assert root[2].attrib == {}


def test_numbers_are_cut_to_hundredths():
    """A coordinate keeps two decimals; integers stay; white space that a path needs not goes."""
    root = ElementTree.fromstring(inline(chart_of('<path d="M 1.23456 7 L 0.005 2.5"/>')))
    assert root[0].get("d") == "M1.23 7L0.00 2.5"


def test_two_charts_share_no_id(results):
    """Ids carry the chart's name, and what refers to them does too."""
    (section,) = sections(results)
    chart = charts_effects.forest(section)
    first, second = (inline(each) for each in (chart, replace(chart, name="other")))
    ids = [{e.get("id") for e in ElementTree.fromstring(text).iter() if e.get("id")} for text in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]


@pytest.mark.parametrize("marker", style.MARKERS)
def test_every_marker_has_a_glyph(marker):
    """A table shows an algorithm by the marker and the colour that it has in charts."""
    look = style.Look("#123456", marker, style.DASHES[0])
    root = ElementTree.fromstring(glyph(look))
    assert root[0].get("fill") == "#123456"
    assert root.get("aria-hidden") == "true"


def test_strip_is_to_scale():
    """On a line from -1 to 3 the interval 0 to 2 lies from a quarter to three quarters, the dot in its middle."""
    root = ElementTree.fromstring(strip(1.0, 0.0, 2.0, (-1.0, 3.0), style.Look("#123456", "o", style.DASHES[0])))
    zero, bar, dot = root
    assert zero.get("d") == "M32.0 1V15"
    assert bar.get("d") == "M32.0 8H88.0"
    assert dot.get("transform").startswith("translate(53.2 ")
