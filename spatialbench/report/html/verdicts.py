"""The section of verdicts: every pair of rows in every column, and the claims of the papers."""

from __future__ import annotations

from collections.abc import Callable

from spatialbench.evaluation.measures import TITLES as MEASURES
from spatialbench.evaluation.paired import TESTED
from spatialbench.report.claims import judge
from spatialbench.report.compare import SAME, Pair, judged_pairs, p_cell
from spatialbench.report.html.elements import Html, breakable, join, tag
from spatialbench.report.html.grid import Column, Entry, Record, grid
from spatialbench.report.html.inputs import Material
from spatialbench.evaluation.pairs import TITLES

SIGNS = {"better": "▲", "worse": "▼", SAME: ""}
KINDS = {"better": "better", "worse": "worse", SAME: "same"}
OPPOSITE = {"better": "worse", "worse": "better", SAME: SAME}


def matrices(material: Material, advance: Callable[[float], None] = lambda count: None) -> Html:
    """A matrix for each column, row minus column in points; the script shows one at a time.

    Args:
        advance: told of every column that is done.
    """
    if len(material.rows) < 2:
        return tag("p", "One row: nothing to compare.", class_="gone")
    order, parts = ("all", *(name for name in TESTED if name != "all")), []
    for column in order:
        if pairs := judged_pairs(material.rows, column, material.differences)[0]:
            parts.append(
                tag("div", _matrix(material, column, pairs), class_="matrix", data_choice=column)
            )
        advance(1)
    options = [tag("option", TITLES[column], value=column) for column in order]
    choice = tag("label", "Column ", tag("select", options, data_chooses="verdicts-matrices"))
    seeds = {tuple(row.result.seeds) for row in material.rows}
    left_out = "Rows of other seeds are not compared. " if len(seeds) > 1 else ""
    text = (
        f"{left_out}▲ better, ▼ worse: the paired interval excludes 0 and p, corrected for all pairs of the matrix "
        "(Holm), is 0.05 at most; else not distinguishable."
    )
    return join(
        tag("div", choice, class_="tools"),
        tag("div", parts, id="verdicts-matrices"),
        tag("p", text, class_="note"),
    )


def _matrix(material: Material, column: str, pairs: list[Pair]) -> Html:
    cells: dict[tuple[str, str], Entry] = {}
    for one in pairs:
        cells[one.a, one.b] = _entry(one, column, one.a, one.b, one.verdict, 1)
        cells[one.b, one.a] = _entry(one, column, one.b, one.a, OPPOSITE[one.verdict], -1)
    names = material.names
    records = [
        Record(
            [
                Entry(join(f"{material.numbers[name]} ", breakable(name))),
                *(
                    cells.get((name, other), Entry("·" if name == other else "–"))
                    for other in names
                ),
            ]
        )
        for name in names
    ]
    columns = [
        Column("row minus column", text=True),
        *(Column(str(material.numbers[name]), name) for name in names),
    ]
    caption = f"{TITLES[column]}: row minus column, in percentage points"
    return grid(f"verdicts-{column}", caption, columns, records, sortable=False)


def _entry(pair: Pair, column: str, a: str, b: str, judged: str, sign: int) -> Entry:
    gain, low, high = (sign * value + 0.0 for value in (pair.gain.points, *pair.gain.interval))
    low, high = min(low, high), max(low, high)
    tip = f"{a} beside {b}, {TITLES[column]}: {gain:+.1f} ({low:+.1f} to {high:+.1f}), p {p_cell(pair.holm)}: {judged}"
    return Entry(f"{SIGNS[judged]}{gain:+.1f}", gain, tip, kind=KINDS[judged])


def claims(material: Material) -> Html | None:
    """The claims of results/claims.yaml; None where this track has none."""
    if not material.claims:
        return None
    titles, records = {**TITLES, **MEASURES}, []
    for claim in material.claims:
        found = judge(claim, material.rows, material.differences)
        kind = {"held": "better", "not held": "worse"}.get(found.state.removesuffix(" (stale)"))
        records.append(
            Record(
                [
                    Entry(claim.claim, kind="prose"),
                    Entry(claim.paper),
                    Entry(f"{claim.row} − {claim.than}, {titles[claim.column]}", kind="prose"),
                    Entry(claim.expected),
                    Entry("–") if found.gain is None else Entry(found.gain.text, found.gain.points),
                    Entry(found.state, kind=kind),
                ]
            )
        )
    columns = [
        *(Column(title, text=True) for title in ("claim", "paper", "comparison", "expected")),
        *(Column("difference"), Column("verdict", text=True)),
    ]
    text = "Held when the whole 95 % interval of the paired difference, in points, lies where the claim expects it."
    return join(
        tag("h3", "Claims"),
        tag("p", text),
        grid("claims", "Claims of the papers", columns, records),
    )
