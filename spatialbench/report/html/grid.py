"""Tables that the reader sorts and filters; without a script they are plain tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spatialbench.report.html.elements import Child, Html, join, tag


@dataclass(frozen=True)
class Column:
    """Of a table.

    Attributes:
        tip: what the heading means, shown on hover.
        text: words, which stand to the left; else numbers.
    """

    title: str
    tip: str | None = None
    text: bool = False


@dataclass(frozen=True)
class Entry:
    """One cell.

    Attributes:
        shown: its text.
        value: what it is sorted by where that is a number; None is last.
        tip: shown on hover and focus.
        extra: shown below the text where the reader asks for it: an interval.
        kind: a class of ``report.css``.
    """

    shown: Child
    value: float | None = None
    tip: str | None = None
    extra: str | None = None
    kind: str | None = None
    bold: bool = False


@dataclass(frozen=True)
class Record:
    """One line; the first cell is its heading. ``kind`` is ``paper`` for a line that stays below the one before it."""

    cells: Sequence[Entry]
    kind: str | None = None


def grid(
    name: str,
    caption: str,
    columns: Sequence[Column],
    records: Sequence[Record],
    options: Sequence[tuple[str, str]] = (),
    sortable: bool = True,
) -> Html:
    """A table with its filter.

    Args:
        name: its id.
        options: (class, label): boxes that put a class on the table when they are ticked.
    """
    boxes = [
        tag("label", tag("input", type="checkbox", data_class=kind, data_for=name), f" {label}")
        for kind, label in options
    ]
    search = tag(
        "label",
        "Filter ",
        tag(
            "input",
            type="search",
            data_filter=name,
            placeholder="part of a name",
            autocomplete="off",
        ),
    )
    count = tag("span", class_="count", id=f"{name}-count", role="status")
    heads = [_head(column, place, sortable) for place, column in enumerate(columns)]
    table = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", heads)),
        tag("tbody", [_line(record, columns) for record in records]),
        id=name,
        class_="grid",
    )
    return join(
        tag("div", search, boxes, count, class_="tools") if sortable else None,
        tag("div", table, class_="scroll", role="region", aria_label=caption, tabindex="0"),
    )


def _head(column: Column, place: int, sortable: bool) -> Html:
    kind = "text" if column.text else "number"
    title = _whole(column.title)
    if sortable:
        title = tag("button", title, type="button", data_sort=place, data_kind=kind)
    return tag("th", title, scope="col", class_=kind, data_tip=column.tip)


def _whole(title: str) -> Child:
    """A heading that breaks between its words only: ``top-1`` stays in one piece."""
    words: list[Child] = [
        tag("span", word, class_="word") if "-" in word else word for word in title.split()
    ]
    return [join(" " if place else None, word) for place, word in enumerate(words)]


def _line(record: Record, columns: Sequence[Column]) -> Html:
    cells = []
    for place, (entry, column) in enumerate(zip(record.cells, columns, strict=True)):
        shown = tag("strong", entry.shown) if entry.bold else entry.shown
        extra = None if entry.extra is None else tag("span", entry.extra, class_="extra")
        classes = " ".join(
            word for word in ("text" if column.text else "number", entry.kind) if word
        )
        attributes = {
            "class_": classes,
            "data_tip": entry.tip,
            "data_value": None if entry.value is None else float(entry.value),
            "tabindex": None if entry.tip is None else "-1",
        }
        if place:
            cells.append(tag("td", shown, extra, **attributes))
        else:
            cells.append(tag("th", shown, extra, scope="row", **attributes))
    return tag("tr", cells, class_=record.kind)
