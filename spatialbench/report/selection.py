"""Tables of image selection: one run, the stored rows, and the section of results/README.md.

Either scorer has a line of its own in every row, so that a gain of the scorer is not read as one of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from spatialbench.evaluation.measures import SELECTION, TITLES, MeasureResampler, Measures
from spatialbench.evaluation.statistics import spread
from spatialbench.report.differences import Differences
from spatialbench.report.measures import difference_table, measures_of
from spatialbench.report.published import NOTHING_PUBLISHED, Published
from spatialbench.report.stored_rows import Row
from spatialbench.report.table import shown_name, stale_notes, stored_rows
from spatialbench.report.table_model import (
    Line,
    Sheet,
    accuracy_cell,
    check_format,
    interval_cell,
    markdown,
    number,
    show,
    write,
)
from spatialbench.results.files import STORED_BUDGET
from spatialbench.results.measures import patterns as patterns_of
from spatialbench.utils.errors import SpatialbenchError

HEADING = "Image selection"
SCORERS = {"select_cls": "cls", "select_local": "cls + local"}
"""Measure -> scorer, as the tables call it."""
EXPLANATION = """\
Two pictures that differ in one thing, and a caption of either: a pair is right when both captions pick their own
picture (MMVP-VLM's metric; independent guessing gives 25, a picture that wins both captions 0). In percent, by what the
pictures differ in. Scorer *cls*: the embedding of the picture; *cls + local*: the mean of its patches added, as DIVA
evaluates. A difference between the scorers of one row is the scorer's, one between rows in the same scorer the
weights'."""


def selection_table(
    results: str | Path = "results",
    benchmarks: str | Path = "benchmarks",
    track: str = "rooms",
    format: str = "text",
    budget: str = STORED_BUDGET,
) -> str:
    """The table of image selection of a track.

    Args:
        results, benchmarks: folders.
        format: one of ``sheet.FORMATS``.
        budget: ``full`` for the stored rows.

    Raises:
        SpatialbenchError: no rows or none with image selection, a damaged row, rows of different data, an unknown
            format.
    """
    check_format(format)
    rows = stored_rows(Path(results), Path(benchmarks), track, budget)
    selection = measures_of(Path(results), rows, "selection")
    if not selection:
        raise SpatialbenchError(
            f"no row of track {track} at budget {budget} in {results} has image selection: spatialbench run "
            f"benchmarks/*.yaml --track {track} --budget {budget}, where the track names a 'selection'"
        )
    return write(_sheet(rows, selection), format)


def _sheet(rows: Sequence[Row], selection: Mapping[str, Measures]) -> Sheet:
    """A line for each row and scorer, percent by pattern, their mean and its interval; a dash for rows without."""
    patterns, first = next(iter(selection.values())).labels, rows[0].result
    return Sheet(
        title=f"{first.track}, budget {first.budget}: image selection in %",
        header=["", "scorer", *patterns, "mean", "95 % interval", "seeds", "pairs"],
        lines=_lines(rows, selection, patterns),
        notes=notes(rows),
        data=_json(rows),
        rows=_csv(rows, selection, patterns),
        left=2,
    )


def _lines(
    rows: Sequence[Row], selection: Mapping[str, Measures], patterns: Sequence[str]
) -> list[Line]:
    lines = []
    for row in rows:
        name, stated = shown_name(row), row.result.selection
        if stated is None:
            lines.append(Line([name, *["–"] * (len(patterns) + 5)]))
            continue
        found, counts = (
            selection[row.result.name],
            [str(len(row.result.seeds)), str(stated.pictures)],
        )
        for measure in stated.value:
            values = [number(stated.patterns[measure][pattern]) for pattern in patterns]
            mean = accuracy_cell(stated.value[measure], spread(found.seed_values(measure).tolist()))
            interval = interval_cell(stated.interval[measure])
            lines.append(Line([name, SCORERS[measure], *values, mean, interval, *counts]))
    return lines


def section(
    rows: Sequence[Row], selection: Mapping[str, Measures], differences: Differences
) -> list[str]:
    """The lines of results/README.md about image selection."""
    text = [f"### {HEADING}", "", *EXPLANATION.splitlines(), "", *markdown(_sheet(rows, selection))]
    if len(selection) > 1:
        text += ["", "Paired differences:", "", *difference_table(rows, selection, differences)]
    return text


def _json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """``{name, selection: {measure: {value, interval, patterns}}, seeds, pairs}`` for each row.

    value in percent, mean over seeds; interval: the two bounds of its 95 % interval; patterns: pattern -> percent; a
    row without image selection has none, and None for pairs.
    """
    lines = []
    for row in rows:
        found = row.result.selection
        values = {} if found is None else found.value
        lines.append(
            {
                "name": row.result.name,
                "selection": {
                    name: {
                        "value": value,
                        "interval": found.interval[name],
                        "patterns": found.patterns[name],
                    }
                    for name, value in values.items()
                    if found is not None
                },
                "seeds": row.result.seeds,
                "pairs": None if found is None else found.pictures,
            }
        )
    return lines


def _csv(
    rows: Sequence[Row], selection: Mapping[str, Measures], patterns: Sequence[str]
) -> list[list[object]]:
    """One line for each row and scorer."""
    lines: list[list[object]] = [
        ["name", "measure", *patterns, "mean", "spread", "low", "high", "seeds", "pairs", "stale"]
    ]
    for row in rows:
        found = row.result.selection
        for name, value in ({} if found is None else found.value).items():
            assert found is not None
            deviation = spread(selection[row.result.name].seed_values(name).tolist())
            values = [
                *(found.patterns[name][pattern] for pattern in patterns),
                value,
                deviation,
                *found.interval[name],
            ]
            seeds = " ".join(map(str, row.result.seeds))
            lines.append(
                [row.result.name, name, *values, seeds, found.pictures, "; ".join(row.stale)]
            )
    return lines


def notes(rows: Sequence[Row]) -> list[str]:
    """What stands below a table: what is stale, and what was selected from."""
    found = next(row.result.selection for row in rows if row.result.selection is not None)
    stale = stale_notes(rows)
    return [
        *stale,
        *([""] if stale else []),
        f"Selected on data {found.data}, {found.pictures} pairs.",
    ]


def run_json(measures: Measures) -> dict[str, Any]:
    """``{selection: {measure: {value, interval, patterns}}, pairs}`` of one run, in percent."""
    draws = MeasureResampler(measures.scenes)
    by_pattern = patterns_of(measures)
    found = {
        name: {
            "value": value,
            "interval": list(draws.interval(measures.ratios[name])),
            "patterns": by_pattern[name],
        }
        for name, value in measures.values().items()
    }
    return {"selection": found, "pairs": measures.pictures}


def print_selection(
    measures: Measures, title: str = HEADING, published: Mapping[str, Published] = NOTHING_PUBLISHED
) -> None:
    """Prints image selection of one run: percent by pattern and scorer, the mean and its 95 % interval, and below what
    is published of OpenAI's CLIP."""
    names = [name for name in SELECTION if name in measures.ratios]
    draws = MeasureResampler(measures.scenes)
    intervals = [draws.interval(measures.ratios[name]) for name in names]
    drawn = Table(title=title, title_justify="left")
    for heading in (
        "",
        "pairs",
        *(TITLES[name].replace("Selection, ", "") + " %" for name in names),
    ):
        drawn.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    counts = measures.ratios[names[0]].denominator[0].sum(0)
    values = [measures.group_values(name).mean(0) for name in names]
    for group, label in enumerate(measures.labels):
        drawn.add_row(label, f"{counts[group]:.0f}", *(number(value[group]) for value in values))
    drawn.add_section()
    drawn.add_row(
        "mean", str(measures.pictures), *(number(value) for value in measures.values().values())
    )
    drawn.add_row("95 % from", "", *(number(bounds.low) for bounds in intervals))
    drawn.add_row("to", "", *(number(bounds.high) for bounds in intervals))
    footer = [f"{measures.pictures} pairs of {draws.count} scenes, data {measures.data}"]
    footer += [row.line() for row in published.values()]
    show(drawn, "\n".join(footer))
