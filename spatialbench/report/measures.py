"""Tables of what is measured beside the pairs: one run, the stored rows, and the section of results/README.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from spatialbench.evaluation.measures import SELECTION, TITLES, MeasureResampler, Measures
from spatialbench.evaluation.statistics import spread
from spatialbench.report.differences import Differences
from spatialbench.report.stored_rows import Row
from spatialbench.report.table import shown_name, stale_notes, stored_rows
from spatialbench.report.table_model import (
    Line,
    Sheet,
    accuracy_cell,
    check_format,
    interval_cell,
    markdown,
    markdown_table,
    number,
    show,
    write,
)
from spatialbench.results.files import STORED_BUDGET, result_path
from spatialbench.results.measures import load
from spatialbench.results.schema import Result
from spatialbench.utils.errors import SpatialbenchError

HEADING = "Regions, dense quality, retrieval"
EXPLANATION = """\
In percent, more is better. *Boxes*: accuracy of the RoIAlign of the dense map at the true box against the class names,
a mean over classes; *Thing masks*, *Stuff masks*: the same by pooling the dense map over the true mask. *Same-mask
AUC*: area under the ROC curve of the cosine of two tokens for lying in one mask; *k-means mIoU*: clusters of tokens
matched to classes by the Hungarian method. *Objects*: zero-shot classification, the embedding of an object cut out
with its surroundings against the class names; rows made before it was measured have a dash. *R@k*: retrieval of
pictures by captions (*Image*) and of captions by pictures (*Text*), found among the first k."""


def measures_table(
    results: str | Path = "results",
    benchmarks: str | Path = "benchmarks",
    track: str = "rooms",
    format: str = "text",
    budget: str = STORED_BUDGET,
) -> str:
    """The table of the measures of a track.

    Args:
        results, benchmarks: folders.
        format: one of ``sheet.FORMATS``.
        budget: ``full`` for the stored rows.

    Raises:
        SpatialbenchError: no rows or none with measures, a damaged row, rows of different data, an unknown format.
    """
    check_format(format)
    rows = stored_rows(Path(results), Path(benchmarks), track, budget)
    measures = measures_of(Path(results), rows)
    if not measures:
        raise SpatialbenchError(
            f"no row of track {track} at budget {budget} in {results} has measures: spatialbench run "
            f"benchmarks/*.yaml --track {track} --budget {budget} --force"
        )
    return write(_sheet(rows, measures), format)


def _sheet(rows: Sequence[Row], measures: Mapping[str, Measures]) -> Sheet:
    """``45.2 ± 0.3``, mean and standard deviation over seeds; a dash for rows without."""
    names, first = columns(measures), rows[0].result
    return Sheet(
        title=f"{first.track}, budget {first.budget}: measures in %",
        header=["", *(TITLES[name] for name in names), "seeds", "pictures"],
        lines=[
            Line([shown_name(row), *_values(row, measures, names), *_counts(row)]) for row in rows
        ],
        notes=notes(rows),
        data=_json(rows),
        rows=_csv(rows, measures),
        stacked=True,
    )


def measures_of(results: Path, rows: Sequence[Row], kind: str = "measures") -> dict[str, Measures]:
    """Name -> measures of the rows that have some, read and recounted.

    Args:
        kind: ``selection`` for those of image selection.

    Raises:
        SpatialbenchError: a damaged file, or rows measured on different data.
    """
    found = {}
    for row in rows:
        path = result_path(results, row.result.track, row.result.budget, row.result.name)
        measures = load(path, row.result, kind)
        if measures is not None:
            found[row.result.name] = measures
    check_measured_alike(results, [row.result for row in rows], kind)
    _check_alike_inside(results, found)
    return found


def check_measured_alike(where: Path, results: Sequence[Result], kind: str = "measures") -> None:
    """Rows are compared on the same pictures, regions and captions.

    Raises:
        SpatialbenchError: they were measured on others than the first row with measures; names the odd ones out.
    """
    stated = {result.name: getattr(result, kind) for result in results}
    data = {name: found.data for name, found in stated.items() if found is not None}
    first = next(iter(data), "")
    odd = [name for name in data if data[name] != data[first]]
    if odd:
        raise SpatialbenchError(
            f"{where}: {', '.join(odd)} measured on other data ({', '.join(dict.fromkeys(data[n] for n in odd))}) than "
            f"{first} ({data[first]}) cannot share a table; make the old ones again: spatialbench run <pages> --force"
        )


def _check_alike_inside(where: Path, measures: Mapping[str, Measures]) -> None:
    """The same hash must mean the same pictures and groups."""
    first = next(iter(measures), "")
    for name, found in measures.items():
        groups = measures[first].groups
        same = {
            measure: groups.get(measure, count) for measure, count in found.groups.items()
        } == found.groups
        same &= found.labels == measures[first].labels
        if not same or found.scenes.tolist() != measures[first].scenes.tolist():
            raise SpatialbenchError(
                f"{where}: the measures of {name} and {first} have the same hash of data but not the same pictures or "
                "classes; make them again: spatialbench run <pages> --force"
            )


# ---------------------------------------------------------------------------------------------------------- formats


def interval_table(rows: Sequence[Row], measures: Mapping[str, Measures]) -> list[str]:
    """Markdown: the 95 % interval of every measure, of the rows that have some."""
    names = columns(measures)
    lines = [
        [
            row.result.name,
            *(interval_cell(row.result.measures.interval.get(name)) for name in names),
        ]
        for row in rows
        if row.result.measures is not None
    ]
    return markdown_table(["", *(TITLES[name] for name in names)], lines)


def difference_table(
    rows: Sequence[Row], measures: Mapping[str, Measures], differences: Differences
) -> list[str]:
    """Markdown: row minus the first row with measures, paired, in points; bold when the 95 % interval excludes 0."""
    names = columns(measures)
    first, *others = [row.result.name for row in rows if row.result.name in measures]
    lines = []
    for other in others:
        gains = [differences.between(other, first, name) for name in names]
        lines.append([other, *("–" if gain is None else gain.cell for gain in gains)])
    return markdown_table([f"minus {first}", *(TITLES[name] for name in names)], lines)


def section(
    rows: Sequence[Row], measures: Mapping[str, Measures], differences: Differences
) -> list[str]:
    """The lines of results/README.md about the measures."""
    lines = [f"### {HEADING}", "", *EXPLANATION.splitlines(), ""]
    lines += [
        *markdown(_sheet(rows, measures)),
        "",
        "95 % intervals:",
        "",
        *interval_table(rows, measures),
    ]
    if len(measures) > 1:
        lines += ["", "Paired differences:", "", *difference_table(rows, measures, differences)]
    return lines


def _json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """``{name, measures: {measure: {value, interval}}, seeds, pictures}`` for each row.

    value in percent, mean over seeds; interval: the two bounds of its 95 % interval; a row that was not measured has
    no measures, and None for pictures.
    """
    lines = []
    for row in rows:
        found = row.result.measures
        values = {} if found is None else found.value
        lines.append(
            {
                "name": row.result.name,
                "measures": {
                    name: {"value": value, "interval": found.interval[name] if found else None}
                    for name, value in values.items()
                },
                "seeds": row.result.seeds,
                "pictures": None if found is None else found.pictures,
            }
        )
    return lines


def _csv(rows: Sequence[Row], measures: Mapping[str, Measures]) -> list[list[object]]:
    """One line for each row; for every measure value, spread over seeds, low, high."""
    shown = [name for name in TITLES if name not in SELECTION]
    names = [f"{name}{part}" for name in shown for part in ("", "_spread", "_low", "_high")]
    lines: list[list[object]] = [["name", *names, "seeds", "pictures", "stale"]]
    for row in rows:
        found, values = row.result.measures, list[float | None]()
        for name in shown:
            if found is not None and name in found.value:
                values += [
                    found.value[name],
                    _spread(measures[row.result.name], name),
                    *found.interval[name],
                ]
            else:
                values += [None] * 4
        seeds = " ".join(map(str, row.result.seeds))
        lines.append(
            [row.result.name, *values, seeds, found.pictures if found else "", "; ".join(row.stale)]
        )
    return lines


def columns(measures: Mapping[str, Measures]) -> list[str]:
    """The measures that at least one row has, in the order of the tables."""
    return [name for name in TITLES if any(name in found.ratios for found in measures.values())]


def _values(row: Row, measures: Mapping[str, Measures], names: Sequence[str]) -> list[str]:
    found = row.result.measures
    if found is None:
        return ["–"] * len(names)
    return [
        accuracy_cell(found.value[name], _spread(measures[row.result.name], name))
        if name in found.value
        else "–"
        for name in names
    ]


def _spread(measures: Measures, name: str) -> float | None:
    return spread(measures.seed_values(name).tolist())


def _counts(row: Row) -> list[str]:
    found = row.result.measures
    return ["–", "–"] if found is None else [str(len(row.result.seeds)), str(found.pictures)]


def notes(rows: Sequence[Row]) -> list[str]:
    """What stands below a table: what is stale, and what was measured on."""
    found = next(row.result.measures for row in rows if row.result.measures is not None)
    stale = stale_notes(rows)
    return [
        *stale,
        *([""] if stale else []),
        f"Measured on data {found.data}, {found.pictures} pictures.",
    ]


def print_measures(title: str, measures: Measures) -> None:
    """Prints the measures of one run, one on a line: percent and its 95 % interval."""
    draws = MeasureResampler(measures.scenes)
    drawn = Table(title=title, title_justify="left")
    drawn.add_column("")
    for heading in ("%", "95 % from", "to"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for name, value in measures.values().items():
        bounds = draws.interval(measures.ratios[name])
        drawn.add_row(TITLES[name], number(value), number(bounds.low), number(bounds.high))
    show(drawn, f"{measures.pictures} pictures of {draws.count} scenes, data {measures.data}")
