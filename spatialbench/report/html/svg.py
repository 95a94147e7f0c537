"""Matplotlib figures as inline SVG: the page's colours, text as text, the same bytes each time."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

COLOURS = ("ink", "soft", "rule", "panel", "accent", "good", "second", "third")
INK, SOFT, RULE, PANEL, ACCENT, GOOD, SECOND, THIRD = (f"#{k:06x}" for k in range(1, 9))
"""Stand for the colours of ``report.css``, which follow light and dark."""
VARIABLES = {f"#{k:06x}": f"var(--{name})" for k, name in enumerate(COLOURS, 1)}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "figure.dpi": 72,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    **{f"axes.spines.{side}": False for side in ("left", "right", "top", "bottom")},
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "text.color": INK,
    **dict.fromkeys(("axes.labelcolor", "xtick.color", "ytick.color"), SOFT),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
    "legend.frameon": False,
}
SPACE = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"


@contextmanager
def drawing(name: str, width: float, height: float) -> Iterator[tuple[Figure, Any]]:
    """Give a figure of ``width`` x ``height`` points in the style of the page.

    It must be drawn and written within the context; ``name`` keeps its ids apart from others.
    """
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        yield figure, figure.subplots()


def markup(figure: Figure, label: str) -> Markup:
    """Return a figure as an SVG element; ``label`` is what a screen reader says.

    The page's content security policy forbids style elements and attributes, so each property
    becomes an attribute of its own. Fonts are left to the style sheet.
    """
    stream = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", metadata=nothing)
    used = set(re.findall(rb"#([\w.-]+)", stream.getvalue()))
    root = ElementTree.fromstring(stream.getvalue())
    root.remove(next(child for child in root if child.find(f"{SPACE}style") is not None))
    for element in root.iter():
        element.tag = element.tag.removeprefix(SPACE)
        for part in element.attrib.pop("style", "").split(";"):
            name, _, value = (word.strip() for word in part.partition(":"))
            if name and (name in ("font-size", "font-weight") or not name.startswith("font")):
                element.set(name, VARIABLES.get(value, value))
        if LINK in element.attrib:
            element.set("href", element.attrib.pop(LINK))
        if element.get("id", "").encode() not in used:
            element.attrib.pop("id", None)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    return Markup(re.sub(r">\s+<", "><", ElementTree.tostring(root, encoding="unicode")))
