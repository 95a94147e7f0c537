"""The section of agreement: a matrix of the rows, shaded by how alike they answer."""

from __future__ import annotations

import numpy as np

from spatialbench.evaluation.agreement import Agreement, agreement
from spatialbench.report.html.elements import Html, breakable, join, tag
from spatialbench.report.html.grid import Column, Entry, Record, grid
from spatialbench.report.html.inputs import Material

STEPS = 10
"""Shades of the matrix."""


def agreements(material: Material) -> Html:
    """Percent of the records answered alike; Cohen's kappa on hover, or below where the reader asks for it."""
    margins, names = material.differences.margins, material.names
    records = []
    for name in names:
        cells = [
            _entry(name, other, agreement(margins[name], _other(material, name, other)))
            for other in names
        ]
        records.append(Record([Entry(join(f"{material.numbers[name]} ", breakable(name))), *cells]))
    columns = [
        Column("row", text=True),
        *(Column(str(material.numbers[name]), name) for name in names),
    ]
    caption = "Percent of the records answered alike; columns are the rows by number"
    boxes = tag(
        "div",
        tag(
            "label",
            tag("input", type="checkbox", data_class="with-extra", data_for="agreement"),
            " Cohen’s kappa",
        ),
        class_="tools",
    )
    return join(
        boxes,
        tag("div", grid("agreement", caption, columns, records, sortable=False), class_="matrix"),
    )


def _other(material: Material, name: str, other: str) -> np.ndarray | None:
    return None if name == other else material.differences.margins[other]


def _entry(name: str, other: str, found: Agreement | None) -> Entry:
    if found is None:
        return Entry("–", tip=f"{name}: one seed has no other to agree with")
    kappa = "–" if found.kappa is None else f"{found.kappa:.2f}"
    pair = f"{name}, one seed beside another" if name == other else f"{name} and {other}"
    shade = 0 if found.kappa is None else min(STEPS - 1, max(0, int(STEPS * found.kappa)))
    tip = f"{pair}: {found.alike:.1f} % alike, kappa {kappa}"
    return Entry(f"{found.alike:.0f}", found.alike, tip, kappa, f"heat{shade}")
