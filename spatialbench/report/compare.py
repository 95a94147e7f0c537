"""Two stored rows compared unit by unit, or every pair of rows as a matrix.

The tests and their reasons are in ``evaluation/paired.py``, their reading in
docs/reading_the_table.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from spatialbench.evaluation.base import Evaluation
from spatialbench.evaluation.paired import TESTED, PairedTest, holm, sign_flip
from spatialbench.evaluation.pairs import TITLES
from spatialbench.evaluation.statistics import verdict
from spatialbench.report.differences import Differences, Gain
from spatialbench.report.evaluation_table import (
    evaluation_class,
    fingerprint_line,
    headings_of,
    shown_name,
    stale_notes,
)
from spatialbench.report.rows import check_comparable, no_rows, read_stored, stored_rows
from spatialbench.report.table_model import (
    Cell,
    Column,
    Record,
    Table,
    check_format,
    number_column,
    text_column,
)
from spatialbench.results.files import STORED_BUDGET, Row, result_path
from spatialbench.results.schema import PAIRS
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

SAME = "not distinguishable"


def compare(
    a: str,
    b: str,
    results: str | Path = "results",
    benchmarks: str | Path = "benchmarks",
    track: str = "rooms",
    format: str = "text",
    budget: str = STORED_BUDGET,
    evaluation: str = PAIRS,
) -> str:
    """Compare row ``a`` with row ``b`` in every measure of an evaluation.

    Args:
        a, b: names of stored rows.
        format: one of ``table_model.FORMATS``.
        budget: ``full`` for the stored rows.

    Raises:
        SpatialbenchError: no such row, a damaged one, rows that cannot be compared, an unknown
            evaluation or format.
    """
    check_format(format)
    if a == b:
        raise SpatialbenchError(f"{a} twice: give two rows, or --all")
    today = Today.read(Path(benchmarks))
    rows = [_row(Path(results), today, track, budget, name) for name in (a, b)]
    check_comparable(Path(results) / track, rows)
    if rows[0].result.seeds != rows[1].result.seeds:
        raise SpatialbenchError(
            f"{_other_seeds(*rows)}: rows are compared seed by seed; {_make_them_alike(rows)}"
        )
    if evaluation == PAIRS:
        return _pair_table(rows[0], rows[1]).write(format)
    cls = evaluation_class(rows, today, track, budget, evaluation)
    return _measure_table(rows[0], rows[1], evaluation, cls).write(format)


def _row(results: Path, today: Today, track: str, budget: str, name: str) -> Row:
    path = result_path(results, track, budget, name)
    if not path.is_file():
        raise no_rows(results, today, track, budget, name)
    return read_stored(path, today)


def _other_seeds(a: Row, b: Row) -> str:
    return f"{a.name} has the seeds {a.result.seeds}, {b.name} {b.result.seeds}"


def _make_them_alike(rows: Sequence[Row]) -> str:
    seeds = ",".join(map(str, sorted({seed for row in rows for seed in row.result.seeds})))
    pages = " ".join(row.result.page for row in rows)
    first = rows[0].result
    return f"spatialbench run {pages} --track {first.track} --budget {first.budget} --seeds {seeds}"


def _difference(record: Record) -> Cell:
    points, low, high = (record[key] for key in ("difference", "low", "high"))
    return Cell(f"{points:+.1f} ({low:+.1f} to {high:+.1f})", record["verdict"] != SAME)


def _p(record: Record, key: str) -> str:
    return p_cell(float(record[key]))


def _verdict(record: Record) -> Cell:
    return Cell(str(record["verdict"]), record["verdict"] != SAME)


def _sides(a: Row, b: Row) -> list[Column]:
    names = (shown_name(row.name, row.stale) for row in (a, b))
    return [number_column(name, key) for name, key in zip(names, "ab", strict=True)]


def _gain_fields(gain: Gain) -> dict[str, float]:
    low, high = (round(bound, 4) for bound in gain.interval)
    return {"difference": round(gain.points, 4), "low": low, "high": high}


def _pair_table(a: Row, b: Row) -> Table:
    differences, names = Differences([a, b]), (a.name, b.name)
    tests = differences.tests(*names)
    records = []
    for column in (name for name in TESTED if name in tests):
        gain, test = differences.between(*names, column, PAIRS), tests[column]
        assert gain is not None, "a column that is tested has records"
        values = [row.result.pairs.value[column] for row in (a, b)]
        judged = differences.verdict(*names, column)
        records.append(_pair_record(column, values, gain, test, judged))
    first, seeds = a.result, a.result.seeds
    columns = [
        Column("", lambda record: TITLES[str(record["column"])]),
        text_column("n", "n"),
        *_sides(a, b),
        Column("difference (95 % interval)", _difference),
        number_column("won", "won"),
        number_column("lost", "lost"),
        Column("p", partial(_p, key="p")),
        Column("p, Holm", partial(_p, key="p_holm")),
        Column("McNemar p by seed", lambda r: ", ".join(p_cell(float(p)) for p in r["mcnemar_p"])),
        number_column("detectable", "smallest_detectable_gain"),
        Column("verdict", _verdict),
    ]
    title = f"{names[0]} beside {names[1]} ({first.track}, budget {first.budget})"
    return Table(title, columns, records, pair_notes(a, b, len(seeds)))


def _pair_record(
    column: str, values: Sequence[float | None], gain: Gain, test: PairedTest, judged: str
) -> Record:
    smallest = test.smallest
    return {
        "column": column,
        "n": test.n,
        "a": values[0],
        "b": values[1],
        **_gain_fields(gain),
        "won": round(test.won, 4),
        "lost": round(test.lost, 4),
        "p": significant(test.p),
        "p_holm": significant(test.holm),
        "mcnemar_p": [significant(seed.p) for seed in test.seeds],
        "smallest_detectable_gain": None if smallest is None else round(smallest, 4),
        "verdict": judged,
    }


def _measure_table(a: Row, b: Row, evaluation: str, cls: type[Evaluation]) -> Table:
    """Compare two rows in an evaluation beside the pairs."""
    differences, records = Differences([a, b]), []
    headings = headings_of([a, b], evaluation, cls)
    for measure in headings:
        gain = differences.between(a.name, b.name, measure, evaluation)
        if gain is None:
            continue
        p = differences.p(a.name, b.name, measure, evaluation)
        values = [row.result.evaluations[evaluation].value[measure] for row in (a, b)]
        records.append(
            {
                "column": measure,
                "a": values[0],
                "b": values[1],
                **_gain_fields(gain),
                "p": significant(p),
                "verdict": verdict(gain.interval, p),
            }
        )
    columns = [
        Column("", lambda record: headings[str(record["column"])]),
        *_sides(a, b),
        Column("difference (95 % interval)", _difference),
        Column("p", partial(_p, key="p")),
        Column("verdict", _verdict),
    ]
    stale = stale_notes([a, b])
    notes = [
        *stale,
        *([""] if stale else []),
        "Interval: bootstrap over scenes and seeds. p: random swaps of the two rows, scene by "
        "scene (Monte Carlo), not corrected for the number of measures.",
        "",
        "better, worse: the interval excludes 0 and p is 0.05 at most.",
    ]
    first = a.result
    title = f"{a.name} beside {b.name} ({first.track}, budget {first.budget}): {cls.title.lower()}"
    return Table(title, columns, records, notes)


def p_cell(p: float) -> str:
    """Three digits, never 0."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def significant(p: float) -> float:
    """Round to six significant digits."""
    return float(f"{p:.6g}")


def pair_notes(a: Row, b: Row, seeds: int) -> list[str]:
    """Return the notes below two rows compared in the pair test."""
    stale = stale_notes([a, b])
    return [
        *stale,
        *([""] if stale else []),
        fingerprint_line([a, b]),
        "",
        f"won, lost: percent of the records that only {a.name}, only {b.name} has right, a mean "
        f"over {seeds} seed{'s' if seeds > 1 else ''}, a tie one half. Interval: bootstrap over "
        "scenes and seeds. p: exact test that swaps the two rows scene by scene, on records "
        "averaged over seeds; Holm: corrected for the six relations (All stands alone). McNemar: "
        "exact, of each seed, records taken as independent. detectable: the smallest gain in "
        "points that one seed can show at this n and disagreement (5 %, power 80 %).",
        "",
        "better, worse: the interval excludes 0 and the corrected p is 0.05 at most.",
    ]


class Pair(NamedTuple):
    """Row a minus row b in one column; ``holm`` is corrected for all pairs of the matrix."""

    a: str
    b: str
    gain: Gain
    p: float
    holm: float
    verdict: str


def compare_all(
    results: str | Path = "results",
    benchmarks: str | Path = "benchmarks",
    track: str = "rooms",
    format: str = "text",
    budget: str = STORED_BUDGET,
    column: str = "all",
) -> str:
    """Compare every pair of rows in one column of the pair test: a matrix, row minus column.

    Raises:
        SpatialbenchError: fewer than two rows, a damaged row, rows of different data, an unknown
            column or format.
    """
    check_format(format)
    if column not in TESTED:
        raise SpatialbenchError(f"unknown column {column!r}{did_you_mean(column, TESTED)}")
    rows = stored_rows(Path(results), Path(benchmarks), track, budget)
    if len(rows) < 2:
        raise SpatialbenchError(
            f"one row of track {track} at budget {budget} in {results}: nothing to compare"
        )
    pairs, left_out = judged_pairs(rows, column, Differences(rows))
    if format in ("csv", "json"):
        return Table("", [], [_pair_fields(pair) for pair in pairs]).write(format)
    return _matrix(rows, pairs, left_out, column).write(format)


def judged_pairs(
    rows: Sequence[Row], column: str, differences: Differences
) -> tuple[list[Pair], list[str]]:
    """Judge every pair of rows in a column, corrected for all of them.

    Returns:
        The pairs, and a line for each pair that cannot be compared.
    """
    evidence = differences.evidence[PAIRS]
    first = evidence[rows[0].name]
    assert first.margins is not None, "the pair test has margins"
    chosen = slice(None) if column == "all" else first.margins.group == column
    found: list[tuple[str, str, Gain, float]] = []
    left_out = []
    for a, b in combinations(rows, 2):
        gain = differences.between(a.name, b.name, column, PAIRS)
        if a.result.seeds != b.result.seeds or gain is None:
            left_out.append(f"left out: {_other_seeds(a, b)}" if gain else f"no record of {column}")
            continue
        mine, theirs = (evidence[row.name].answers()[:, chosen] for row in (a, b))
        p = sign_flip(mine, theirs, first.clusters[chosen])
        found.append((a.name, b.name, gain, p))
    corrected = holm([p for *_, p in found])
    pairs = [
        Pair(*pair, q, verdict(pair[2].interval, q))
        for pair, q in zip(found, corrected, strict=True)
    ]
    return pairs, list(dict.fromkeys(left_out))


def _pair_fields(pair: Pair) -> Record:
    return {
        "a": pair.a,
        "b": pair.b,
        **_gain_fields(pair.gain),
        "p": significant(pair.p),
        "p_holm": significant(pair.holm),
        "verdict": pair.verdict,
    }


def _matrix(
    rows: Sequence[Row], pairs: Sequence[Pair], left_out: Sequence[str], column: str
) -> Table:
    cells = {(p.a, p.b): Cell(f"{p.gain.points:+.1f}", p.verdict != SAME) for p in pairs}
    cells |= {(p.b, p.a): Cell(f"{0 - p.gain.points:+.1f}", p.verdict != SAME) for p in pairs}
    stale, first = stale_notes(rows), rows[0].result
    records: list[Record] = []
    columns = [Column("", itemgetter(""))]
    for place, row in enumerate(rows, 1):
        line = {other.name: cells.get((row.name, other.name), "–") for other in rows}
        records.append({"": f"{place} {shown_name(row.name, row.stale)}", **line})
        columns.append(Column(str(place), itemgetter(row.name)))
    notes = [
        *stale,
        *([""] if stale else []),
        *left_out,
        fingerprint_line(rows),
        "",
        f"Emphasis (a star in a terminal): the paired interval excludes 0 and p, corrected for "
        f"{len(pairs)} pairs (Holm), is 0.05 at most.",
    ]
    title = f"{first.track}, budget {first.budget}: {TITLES[column]}, row minus column in points"
    return Table(title, columns, records, notes)
