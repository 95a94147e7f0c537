"""Markup, made so that text cannot become markup by accident: what is no :class:`Html` is escaped."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

VOID = frozenset({"meta", "input", "img", "br", "wbr"})
"""Elements without an end."""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | int | None | Iterable["Child"]
"""What stands between two tags: markup as it is, other text escaped, nothing for None, and any of these in a row."""


def tag(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """One element.

    Args:
        children: see ``Child``.
        attributes: ``class_`` is ``class`` and ``data_x`` is ``data-x``; True stands without a value, None and False
            are left out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        word = key.rstrip("_").replace("_", "-")
        words.append(word if value is True else f'{word}="{escape(_plain(value))}"')
    start = f"<{' '.join(words)}>"
    return Html(start if name in VOID else f"{start}{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Markup one after the other."""
    return Html("".join(map(_markup, children)))


def breakable(name: str) -> Html:
    """A name of words joined by underscores, which may break behind each."""
    first, *others = name.split("_")
    return join(first, [join("_", tag("wbr"), word) for word in others])


def missing(summary: str, reasons: Sequence[str]) -> Html | None:
    """Which rows a section lacks, behind one line that says how many and why; None where it lacks none."""
    if not reasons:
        return None
    return tag(
        "details",
        tag("summary", summary),
        tag("ul", [tag("li", text) for text in reasons]),
        class_="gone",
    )


def _markup(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, (str, int)):
        return escape(str(child))
    return join(*child)


def _plain(value: str | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def data_island(name: str, value: Any) -> Html:
    """Data for the scripts: JSON in which nothing can end the element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return tag("script", Html(text), type="application/json", id=name)


def digest(text: str) -> str:
    """The source expression by which a content security policy allows exactly this script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def data_uri(content: bytes, kind: str) -> str:
    """A file inside of the page; ``kind`` as ``image/jpeg``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
