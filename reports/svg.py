"""A chart's SVG made fit for a page with a strict content security policy and two colour schemes."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from markupsafe import Markup

from .charts import Chart

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
ALLOWED = frozenset({"svg", "g", "defs", "path", "rect", "use", "clipPath", "text", "tspan", "title"})
"""Elements that our charts consist of. Any other is dropped: no script, no link, no foreign object."""


def inline(chart: Chart) -> Markup:
    """The chart as an ``<svg>`` element to stand in HTML.

    Style attributes become presentation attributes, which a policy without 'unsafe-inline' allows; ids get the
    chart's name in front, so that two charts on a page do not share one; the white ground goes, so that the page
    shows through. Labels come from the matrix file, so elements are kept by a list, not trusted.
    """
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(chart.svg)
    _clean(root, chart.name)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-label": chart.alt, "stroke-linejoin": "round", "stroke-linecap": "butt"}
    text = ElementTree.tostring(root, encoding="unicode").replace(f' xmlns="{SVG}"', "")
    return Markup(text)


def _clean(element: ElementTree.Element, prefix: str) -> None:
    for child in list(element):
        if child.tag.removeprefix(f"{{{SVG}}}") not in ALLOWED or child.get("id") == "background":
            element.remove(child)
        else:
            _clean(child, prefix)
    for declaration in element.attrib.pop("style", "").split(";"):
        name, _, value = declaration.partition(":")
        if name.strip() == "font":
            element.attrib |= _font(value)
        elif value and name.strip() != "font-family":
            element.set(name.strip(), value.strip())
    target = element.attrib.pop(f"{{{XLINK}}}href", None)
    if target is not None:
        element.set("href", f"#{prefix}-{target.removeprefix('#')}")
    if "clip-path" in element.attrib:
        element.set("clip-path", element.attrib["clip-path"].replace("url(#", f"url(#{prefix}-"))
    if "id" in element.attrib:
        element.set("id", f"{prefix}-{element.attrib['id']}")
    for name in [name for name in element.attrib if name.lower().startswith("on")]:
        del element.attrib[name]


def _font(shorthand: str) -> dict[str, str]:
    """Size and weight of a CSS font shorthand; the family is the page's."""
    size = re.search(r"([\d.]+)px", shorthand)
    weight = re.search(r"\b(bold|[5-9]00)\b", shorthand)
    return ({"font-size": size[1]} if size else {}) | ({"font-weight": "bold"} if weight else {})
