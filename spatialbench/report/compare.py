"""Two stored rows compared unit by unit, or every pair of rows as a matrix.

``evaluation/paired.py`` explains the tests, docs/reading_the_table.md how to read them.
"""

from collections.abc import Sequence
from itertools import combinations
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from spatialbench.config.pages import FAMILIES
from spatialbench.evaluation.base import Evaluation
from spatialbench.evaluation.bootstrap import Interval
from spatialbench.evaluation.paired import TESTED, PairedTest, holm, sign_flip
from spatialbench.evaluation.pairs import TITLES
from spatialbench.evaluation.statistics import SAME, verdict
from spatialbench.report import evaluation_table as tables
from spatialbench.report import table_notes
from spatialbench.report.differences import Differences, Gain
from spatialbench.report.rows import by_family, check_comparable, no_rows, stored_rows
from spatialbench.report.table_model import Cell, Column, Record, Table, p_cell
from spatialbench.report.table_model import number_column as numbers
from spatialbench.results.files import STORED_BUDGET, Row, result_path
from spatialbench.results.schema import PAIRS
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean


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

    Raises:
        SpatialbenchError: no such row, a damaged one, rows that cannot be compared, an unknown
            evaluation or format.
    """
    if a == b:
        raise SpatialbenchError(f"{a} twice: give two rows, or --all")
    today, rows = Today.read(Path(benchmarks)), []
    for name in (a, b):
        path = result_path(Path(results), track, budget, name)
        if not path.is_file():
            raise no_rows(Path(results), today, track, budget, name)
        rows.append(today.read_row(path))
    check_comparable(Path(results) / track, rows)
    cls = tables.evaluation_class(rows, today, track, budget, evaluation)
    return _comparison(rows[0], rows[1], evaluation, cls).write(format)


def _comparison(a: Row, b: Row, evaluation: str, cls: type[Evaluation]) -> Table:
    differences, names, records = Differences([a, b]), (a.name, b.name), []
    tests = differences.tests(*names) if evaluation == PAIRS else {}
    headings = {name: TITLES[name] for name in tests} or tables.headings_of([a, b], evaluation, cls)
    for measure in headings:
        gain = differences.between(*names, measure, evaluation)
        if gain is None:
            continue
        p, test = differences.p(*names, measure, evaluation), tests.get(measure)
        first, second = (row.result.evaluations[evaluation].value[measure] for row in (a, b))
        records.append(
            {"column": measure, **({"n": test.n} if test else {}), "a": first, "b": second}
            | _gain_fields(gain)
            | (_test_fields(test) if test else {"p": significant(p)})
            | {"verdict": verdict(gain.interval, p)}
        )
    shown = (tables.shown_name(row.name, row.stale) for row in (a, b))
    columns = [
        Column("", lambda record: headings[str(record["column"])]),
        *([numbers("n", "n", 0)] if tests else []),
        *(numbers(name, key) for name, key in zip(shown, "ab", strict=True)),
        Column("difference (95 % interval)", _difference),
        *(_TEST_COLUMNS if tests else [Column("p", lambda r: p_cell(r["p"]))]),
        Column("verdict", lambda r: Cell(r["verdict"], r["verdict"] != SAME)),
    ]
    title = f"{a.name} beside {b.name} ({a.result.track}, budget {a.result.budget})"
    title += "" if tests else f": {cls.title.lower()}"
    return Table(title, columns, records, _notes(a, b, bool(tests)))


def _difference(record: Record) -> Cell:
    gain = Gain(record["difference"], Interval(record["low"], record["high"]))
    return Cell(gain.text, record["verdict"] != SAME)


def _gain_fields(gain: Gain) -> dict[str, object]:
    low, high = (round(bound, 4) for bound in gain.interval)
    return {"difference": round(gain.points, 4), "low": low, "high": high}


_TEST_COLUMNS = [
    numbers("won", "won"),
    numbers("lost", "lost"),
    Column("p", lambda r: p_cell(r["p"])),
    Column("p, Holm", lambda r: p_cell(r["p_holm"])),
    Column("McNemar p by seed", lambda r: ", ".join(map(p_cell, r["mcnemar_p"])) or "–"),
    numbers("detectable", "smallest_detectable_gain"),
]


def _test_fields(test: PairedTest) -> dict[str, object]:
    return {
        "won": round(test.won, 4),
        "lost": round(test.lost, 4),
        "p": significant(test.p),
        "p_holm": significant(test.holm),
        "mcnemar_p": [significant(seed.p) for seed in test.seeds],
        "smallest_detectable_gain": test.smallest and round(test.smallest, 4),
    }


def significant(p: float) -> float:
    """Round to six significant digits."""
    return float(f"{p:.6g}")


def _notes(a: Row, b: Row, pairs: bool) -> list[str]:
    stale = [*table_notes.stale_notes([a, b]), *_family_notes([a, b])]
    if not pairs:
        text = (
            "Interval: bootstrap over scenes and seeds. p: random swaps of the two rows, scene by "
            "scene (Monte Carlo), not corrected for the number of measures."
        )
        verdict = "better, worse: the interval excludes 0 and p is 0.05 at most."
        return [*stale, text, "", verdict]
    runs = " and ".join(f"{row.pairs.runs} of {row.name}" for row in (a, b))
    text = (
        f"won, lost: percent of the records that only {a.name}, only {b.name} has right, a mean "
        f"over seeds (runs: {runs}), a tie one half. Interval: bootstrap over scenes and seeds. p: "
        "exact test that swaps the two rows scene by scene, on records averaged over seeds; Holm: "
        "corrected for the six relations (All stands alone). McNemar: exact, of each seed where "
        "both rows have as many, records taken as independent. detectable: the smallest gain in "
        "points that one seed can show at this n and disagreement (5 %, power 80 %)."
    )
    verdict = "better, worse: the interval excludes 0 and the corrected p is 0.05 at most."
    return [*stale, table_notes.fingerprint_line([a, b]), "", text, "", verdict]


def _family_notes(rows: Sequence[Row]) -> list[str]:
    """Say that rows are of different families, which the tables do not rank together."""
    families = by_family(rows)
    if len(families) == 1:
        return []
    parts = (
        f"{FAMILIES[family].lower()}: {', '.join(names)}" for family, names in families.items()
    )
    return [f"Different families, a difference and no ranking: {'; '.join(parts)}.", ""]


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
    if column not in TESTED:
        raise SpatialbenchError(f"unknown column {column!r}{did_you_mean(column, TESTED)}")
    rows = stored_rows(Path(results), Path(benchmarks), track, budget)
    if len(rows) < 2:
        raise SpatialbenchError(
            f"one row of track {track} at budget {budget} in {results}: nothing to compare"
        )
    pairs = judged_pairs(rows, column, Differences(rows))
    if format in ("csv", "json"):
        records = []
        for a, b, gain, p, corrected, judged in pairs:
            tests = {"p": significant(p), "p_holm": significant(corrected), "verdict": judged}
            records.append({"a": a, "b": b, **_gain_fields(gain), **tests})
        return Table("", [], records).write(format)
    return _matrix(rows, pairs, column).write(format)


def judged_pairs(rows: Sequence[Row], column: str, differences: Differences) -> list[Pair]:
    """Judge every pair of rows in a column; none where no record is in it."""
    evidence, first = differences.evidence[PAIRS], rows[0]
    chosen = slice(None) if column == "all" else first.margins.group == column
    clusters, compared = first.pairs.clusters[chosen], []
    for a, b in combinations(rows, 2):
        if gain := differences.between(a.name, b.name, column, PAIRS):
            mine, theirs = (evidence[row.name].answers()[:, chosen] for row in (a, b))
            compared.append((a.name, b.name, gain, sign_flip(mine, theirs, clusters)))
    corrected = holm([p for *_, p in compared])
    return [
        Pair(*pair, q, verdict(pair[2].interval, q))
        for pair, q in zip(compared, corrected, strict=True)
    ]


def _matrix(rows: Sequence[Row], pairs: Sequence[Pair], column: str) -> Table:
    cells = {(p.a, p.b): Cell(f"{p.gain.points:+.1f}", p.verdict != SAME) for p in pairs}
    cells |= {(p.b, p.a): Cell(f"{0 - p.gain.points:+.1f}", p.verdict != SAME) for p in pairs}
    records, columns = [], [Column("", itemgetter(""))]
    for place, row in enumerate(rows, 1):
        line = {other.name: cells.get((row.name, other.name), "–") for other in rows}
        name = f"{place} {tables.shown_name(row.name, row.stale)}"
        records.append({"": name, "family": row.family, **line})
        columns.append(Column(str(place), itemgetter(row.name)))
    notes = [
        *table_notes.stale_notes(rows),
        *([] if pairs else [f"no record of {column}"]),
        *_family_notes(rows),
        table_notes.fingerprint_line(rows),
        "",
        f"Emphasis (a star in a terminal): the paired interval excludes 0 and p, corrected for "
        f"{len(pairs)} pairs (Holm), is 0.05 at most.",
    ]
    first = rows[0].result
    title = f"{first.track}, budget {first.budget}: {TITLES[column]}, row minus column in points"
    return Table(title, columns, records, notes, section=lambda r: FAMILIES[r["family"]])
