"""The section of records: a sample of the test with its pictures, captions and the answer of every row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from spatialbench.data.records import RecordSet
from spatialbench.data.relations import RELATIONS
from spatialbench.report.html.elements import Html, data_island, data_uri, join, tag
from spatialbench.report.html.inputs import Material
from spatialbench.report.html.record_choice import KINDS, Chosen, boxes, by_id, jpeg, picture
from spatialbench.evaluation.pairs import TITLES

NONE = "none"
ANSWERS = {"any": "right or wrong", "right": "right", "wrong": "wrong", "split": "seeds differ"}
OTHER_ANSWERS = [(name, ANSWERS[name]) for name in ("wrong", "right", "split")]


def browser(
    material: Material,
    records: RecordSet,
    chosen: Sequence[Chosen],
    advance: Callable[[float], None] = lambda count: None,
) -> Html:
    """The browser, which the script fills; hidden without one.

    Args:
        records: the test set. chosen: which of them.
        advance: told of every record that is done.
    """
    known = by_id(records.records)
    found: list[dict[str, Any]] = []
    for one in chosen:
        found.append(_record(material, records, known, one, len(found)))
        advance(1)
    rows = [(str(place), name) for place, name in enumerate(material.names)]
    some = [("any", "any row"), ("every", "every row"), *rows]
    tools = tag(
        "div",
        _choice("relation", [("any", "any"), *((name, TITLES[name]) for name in RELATIONS)]),
        _condition("row", some, "answer", list(ANSWERS.items())),
        _condition("and row", [(NONE, "–"), *some], "other answer", OTHER_ANSWERS),
        _choice("kind", [("any", "any"), *((kind, kind) for kind in KINDS)], "chosen for"),
        tag("button", "← back", type="button", data_part="back"),
        tag("button", "next →", type="button", data_part="next"),
        tag("span", data_part="count", class_="count", role="status"),
        class_="tools",
    )
    listed = tag(
        "div",
        class_="list",
        role="listbox",
        tabindex="0",
        aria_label="Records of the sample",
        data_part="list",
    )
    panel = tag("div", class_="record", data_part="record")
    data = {"rows": material.names, "kinds": KINDS, "records": found}
    return join(
        tag("div", tools, listed, panel, id="browser", hidden=True),
        tag("noscript", tag("p", "The browser of records needs scripts.", class_="gone")),
        data_island("records-data", data),
    )


def _choice(name: str, options: Sequence[tuple[str, str]], label: str | None = None) -> Html:
    select = tag(
        "select",
        [tag("option", text, value=value) for value, text in options],
        data_part=_part(name),
    )
    return tag("label", f"{label or name} ", select)


def _condition(
    row: str, rows: Sequence[tuple[str, str]], answer: str, answers: Sequence[tuple[str, str]]
) -> Html:
    """A row, and what it has to have answered."""
    return tag("span", _choice(row, rows), " ", _choice(answer, answers, "is"), class_="condition")


def _part(name: str) -> str:
    return name.replace(" ", "-")


def _record(
    material: Material, records: RecordSet, known: dict[str, Any], chosen: Chosen, place: int
) -> dict[str, Any]:
    first = material.rows[0].outcomes
    record = known[str(first.record_ids[chosen.place])]
    margins = [
        [float(f"{value:.3g}") for value in found[:, chosen.place].tolist()]
        for found in material.differences.margins.values()
    ]
    image = picture(records, record)
    sides = 100 * image.width / image.height, 100.0
    return {
        "place": place,
        "id": record.record_id,
        "relation": record.relation,
        "scene": record.scene_id or f"image {record.image}",
        "kind": chosen.kind,
        "caption": record.statement.caption,
        "negated": record.statement.negated.caption,
        "size": [round(side, 2) for side in sides],
        "boxes": [
            [name, round(x * sides[0] / 100, 2), y, round(w * sides[0] / 100, 2), h]
            for name, x, y, w, h in boxes(record)
        ],
        "picture": data_uri(jpeg(image), "image/jpeg"),
        "largest": max(abs(value) for row in margins for value in row),
        "margins": margins,
    }
