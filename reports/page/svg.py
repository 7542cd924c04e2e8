"""Charts made fit for a page with a strict policy and two colour schemes, and small marks for its tables."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from markupsafe import Markup

from ..charts.chart import Chart, Mark
from ..charts.style import INK, PAPER, Look
from ..files import visible

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
ALLOWED = frozenset({"svg", "g", "defs", "path", "rect", "use", "clipPath", "text", "tspan", "title"})
"""Elements that our charts consist of. Any other is dropped: no script, no link, no foreign object."""
PRECISION = re.compile(r"(\d+\.\d{2})\d+")
"""Coordinates are cut to a hundredth of a point: nobody sees more, and it halves a chart."""
COMMAND = re.compile(r"\s*([A-Za-z])\s*")
"""A path's command, with the white space that it needs not."""
DEFAULTS = {"stroke-dasharray": "", "stroke-dashoffset": "0", "text-anchor": "start"}
"""What matplotlib states and SVG takes for granted."""


def inline(chart: Chart) -> Markup:
    """The chart as an ``<svg>`` element to stand in HTML.

    Style attributes become presentation attributes, which a policy without 'unsafe-inline' allows; ids get the
    chart's name in front, so that two charts on a page do not share one; the white ground goes, so that the page
    shows through. What a reader can point at says so to a screen reader too. Labels come from the matrix file, so
    elements are kept by a list, not trusted.
    """
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(chart.svg)
    _clean(root, chart)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "group", "aria-label": visible(chart.alt), "aria-roledescription": "chart"}
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt"}
    text = ElementTree.tostring(root, encoding="unicode").replace(f' xmlns="{SVG}"', "")
    return Markup(text)


def _clean(element: ElementTree.Element, chart: Chart) -> None:
    for child in list(element):
        name = child.tag.removeprefix(f"{{{SVG}}}")
        is_empty = name == "g" and not len(child) and child.get("id") not in chart.marks
        if name not in ALLOWED or child.get("id") == "background" or is_empty:
            element.remove(child)
        else:
            _clean(child, chart)
            child.tail = _said(child.tail)
    for declaration in element.attrib.pop("style", "").split(";"):
        name, _, value = declaration.partition(":")
        if name.strip() == "font":
            element.attrib |= _font(value)
        elif value and name.strip() != "font-family":
            element.set(name.strip(), value.strip())
    for name in ("d", "x", "y", "transform"):
        if name in element.attrib:
            element.set(name, PRECISION.sub(r"\1", element.attrib[name]))
    if "d" in element.attrib:
        element.set("d", COMMAND.sub(r"\1", element.attrib["d"]))
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    for name in [name for name, usual in DEFAULTS.items() if element.get(name) == usual]:
        del element.attrib[name]
    element.text = _said(element.text)
    _name(element, chart)
    for name in [name for name in element.attrib if name.lower().startswith("on")]:
        del element.attrib[name]


def _said(text: str | None) -> str | None:
    """Text that is not indentation alone."""
    return text if text and text.strip() else None


def _name(element: ElementTree.Element, chart: Chart) -> None:
    """Ids and what refers to them, the chart's own; a mark says what it stands for instead."""
    target = element.attrib.pop(f"{{{XLINK}}}href", None)
    if target is not None:
        element.set("href", f"#{chart.name}-{target.removeprefix('#')}")
    if "clip-path" in element.attrib:
        element.set("clip-path", element.attrib["clip-path"].replace("url(#", f"url(#{chart.name}-"))
    if (found := element.attrib.pop("id", None)) is not None:
        if mark := chart.marks.get(found):
            element.attrib |= _marked(mark)
        elif element.tag.removeprefix(f"{{{SVG}}}") != "g":  # groups are matplotlib's; nothing refers to them
            element.set("id", f"{chart.name}-{found}")


def _marked(mark: Mark) -> dict[str, str]:
    """The attributes by which the page knows what an element stands for."""
    told = {"data-algorithm": visible(mark.algorithm)}
    if mark.tip:
        told |= {"role": "img", "aria-label": visible(mark.tip), "tabindex": "-1"}
        told |= {"data-seed": str(mark.seed)} if mark.seed is not None else {}
        told |= {"data-prompt": visible(mark.prompt)} if mark.prompt else {}
    return told


def _font(shorthand: str) -> dict[str, str]:
    """Size and weight of a CSS font shorthand; the family is the page's."""
    size = re.search(r"([\d.]+)px", shorthand)
    weight = re.search(r"\b(bold|[5-9]00)\b", shorthand)
    return ({"font-size": size[1]} if size else {}) | ({"font-weight": "bold"} if weight else {})


# ------------------------------------------------------------------------------- marks in tables

SHAPES = {
    "o": "M8 3a5 5 0 1 0 .01 0z",
    "s": "M3.5 3.5h9v9h-9z",
    "^": "M8 2.6 13.4 12.6H2.6z",
    "v": "M8 13.4 2.6 3.4h10.8z",
    "D": "M8 1.9 14.1 8 8 14.1 1.9 8z",
    "P": "M6 2.5h4V6h3.5v4H10v3.5H6V10H2.5V6H6z",
    "X": "M5 2.5 8 5.5 11 2.5 13.5 5 10.5 8l3 3L11 13.5l-3-3-3 3L2.5 11l3-3-3-3z",
    "p": "M8 2.3 13.7 6.5 11.5 13.2H4.5L2.3 6.5z",
}
"""The markers of ``style.MARKERS``, 16 by 16."""


def glyph(look: Look) -> Markup:
    """An algorithm's marker in its colour, for a table or a button; says nothing to a screen reader."""
    return Markup('<svg class="glyph" viewBox="0 0 16 16" aria-hidden="true"><path d="{}" fill="{}"/></svg>').format(
        SHAPES[look.marker], look.colour
    )


def strip(mean: float, low: float, high: float, within: tuple[float, float], look: Look) -> Markup:
    """A dot with its interval on a line from ``within[0]`` to ``within[1]``, and a mark at 0, 120 by 16."""
    start, end = within
    scale = 112 / (end - start or 1.0)

    def at(value: float) -> str:
        return f"{4 + (value - start) * scale:.1f}"

    zero = at(0.0) if start <= 0 <= end else "4"
    return Markup(
        '<svg class="strip" viewBox="0 0 120 16" aria-hidden="true">'
        '<path d="M{zero} 1V15" stroke="{ink}" stroke-opacity=".35"/>'
        '<path d="M{low} 8H{high}" stroke="{colour}" stroke-width="2.6" stroke-linecap="round"/>'
        '<g transform="translate({x} 1.2) scale(.85)"><path d="{shape}" fill="{colour}" stroke="{paper}"/></g></svg>'
    ).format(
        zero=zero, ink=INK, paper=PAPER, low=at(low), high=at(high), colour=look.colour, shape=SHAPES[look.marker],
        x=f"{float(at(mean)) - 6.8:.1f}",
    )  # fmt: skip
