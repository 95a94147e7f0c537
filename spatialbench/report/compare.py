"""``spatialbench compare``: two stored rows beside one another, record by record; or every pair of rows as a matrix.

What is tested, and why so, is said in ``evaluation/paired.py``; how it is read, in docs/reading_the_table.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from spatialbench.evaluation.paired import TESTED, PairedTest, holm, sign_flip
from spatialbench.evaluation.statistics import verdict
from spatialbench.report.differences import Differences, Gain
from spatialbench.report.stored_rows import Row, check_mergeable, no_rows, read_row
from spatialbench.report.table import TITLES, fingerprint_line, shown_name, stale_notes, stored_rows
from spatialbench.report.table_model import Cell, Line, Sheet, check_format, number, write
from spatialbench.results.files import STORED_BUDGET, result_path
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
) -> str:
    """Row ``a`` beside row ``b``: per relation and All.

    Args:
        a, b: names of stored rows.
        results, benchmarks: folders.
        format: one of ``sheet.FORMATS``.
        budget: ``full`` for the stored rows.

    Raises:
        SpatialbenchError: no such row, a damaged one, two that cannot be compared, an unknown format.
    """
    check_format(format)
    if a == b:
        raise SpatialbenchError(f"{a} twice: give two rows, or --all")
    today = Today.read(Path(benchmarks))
    rows = [_row(Path(results), today, track, budget, name) for name in (a, b)]
    check_mergeable(Path(results) / track, [row.result for row in rows])
    if rows[0].result.seeds != rows[1].result.seeds:
        raise SpatialbenchError(
            f"{_other_seeds(*rows)}: rows are compared seed by seed; {_make_them_alike(rows)}"
        )
    return write(_pair_sheet(rows[0], rows[1]), format)


def _row(results: Path, today: Today, track: str, budget: str, name: str) -> Row:
    path = result_path(results, track, budget, name)
    if not path.is_file():
        raise no_rows(results, today, track, budget, name)
    return read_row(path, today)


def _other_seeds(a: Row, b: Row) -> str:
    return f"{a.result.name} has the seeds {a.result.seeds}, {b.result.name} {b.result.seeds}"


def _make_them_alike(rows: Sequence[Row]) -> str:
    seeds = sorted({seed for row in rows for seed in row.result.seeds})
    pages = " ".join(row.result.page for row in rows)
    first = rows[0].result
    chosen = ",".join(map(str, seeds))
    return (
        f"spatialbench run {pages} --track {first.track} --budget {first.budget} --seeds {chosen}"
    )


# ------------------------------------------------------------------------------------------------------------ a pair


def _pair_sheet(a: Row, b: Row) -> Sheet:
    differences, names = Differences([a, b]), (a.result.name, b.result.name)
    found = differences.tests(*names)
    gains = {column: differences.between(*names, column) for column in found}
    verdicts = {column: differences.verdict(*names, column) for column in found}
    lines, columns = [], {}
    for column in (name for name in TESTED if name in found):
        gain, test = gains[column], found[column]
        assert gain is not None, "a column that is tested has records"
        both = [row.result.accuracy[column] for row in (a, b)]
        lines.append(Line(_cells(column, both, gain, test, verdicts[column])))
        columns[column] = _json(both, gain, test, verdicts[column])
    first, said = a.result, notes(a, b)
    return Sheet(
        title=f"{names[0]} beside {names[1]} ({first.track}, budget {first.budget})",
        header=[
            *(
                "",
                "n",
                *(shown_name(row) for row in (a, b)),
                "difference (95 % interval)",
                "won",
                "lost",
                "p",
                "p, Holm",
            ),
            *("McNemar p by seed", "detectable", "verdict"),
        ],
        lines=lines,
        notes=said,
        data={
            **{
                "a": names[0],
                "b": names[1],
                "track": first.track,
                "budget": first.budget,
                "seeds": first.seeds,
            },
            **{
                "data": first.data_fingerprint,
                "captions": first.grammar,
                "stale": stale_notes([a, b]),
            },
            "columns": columns,
        },
        rows=_csv(columns, first.seeds),
    )


def _cells(
    column: str, both: Sequence[float | None], gain: Gain, test: PairedTest, judged: str
) -> list[Cell | str]:
    return [
        *(TITLES[column], str(test.n), *map(number, both)),
        Cell(gain.text, judged != SAME),
        *(number(test.won), number(test.lost), p_cell(test.p), p_cell(test.holm)),
        ", ".join(p_cell(seed.p) for seed in test.seeds),
        *(number(test.smallest), Cell(judged, judged != SAME)),
    ]


def p_cell(p: float) -> str:
    """Three digits, never 0."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _json(
    both: Sequence[float | None], gain: Gain, test: PairedTest, judged: str
) -> dict[str, Any]:
    """Percent and points with four digits, p-values with six that count."""
    seeds = [{"won": one.wins, "lost": one.losses, "p": significant(one.p)} for one in test.seeds]
    return {
        **{"n": test.n, "a": both[0], "b": both[1], "difference": round(gain.points, 4)},
        "interval": [round(bound, 4) for bound in gain.interval],
        **{"won": round(test.won, 4), "lost": round(test.lost, 4)},
        **{"p": significant(test.p), "p_holm": significant(test.holm), "mcnemar": seeds},
        "smallest_detectable_gain": None if test.smallest is None else round(test.smallest, 4),
        "verdict": judged,
    }


def significant(p: float) -> float:
    """Six digits that count."""
    return float(f"{p:.6g}")


def _csv(columns: dict[str, dict[str, Any]], seeds: Sequence[int]) -> list[list[object]]:
    plain = ("n", "a", "b", "difference", "won", "lost", "smallest_detectable_gain")
    tests = ("p", "p_holm")
    by_seed = [f"mcnemar_p_seed{seed}" for seed in seeds]
    lines: list[list[object]] = [["column", *plain, "low", "high", *tests, *by_seed, "verdict"]]
    for column, found in columns.items():
        numbers = [*(found[name] for name in plain), *found["interval"]]
        chances = [*(found[name] for name in tests), *(one["p"] for one in found["mcnemar"])]
        lines.append([column, *numbers, *(f"{p:.6g}" for p in chances), found["verdict"]])
    return lines


def notes(a: Row, b: Row) -> list[str]:
    """What stands below a pair."""
    stale, seeds = stale_notes([a, b]), len(a.result.seeds)
    return [
        *stale,
        *([""] if stale else []),
        fingerprint_line([a, b]),
        "",
        f"won, lost: percent of the records that only {a.result.name}, only {b.result.name} has right, a mean over "
        f"{seeds} seed{'s' if seeds > 1 else ''}, a tie one half. Interval: bootstrap over scenes and seeds. p: exact "
        "test of exchanging the two rows scene by scene, of records averaged over seeds; Holm: corrected for the six "
        "relations (All stands alone). McNemar: exact, of each seed, records taken as independent. detectable: the "
        "smallest gain in points that one seed can show at this n and disagreement (5 %, power 80 %).",
        "",
        "better, worse: the interval excludes 0 and the corrected p is 0.05 at most.",
    ]


# --------------------------------------------------------------------------------------------------------- all pairs


class Pair(NamedTuple):
    """Row a minus row b in one column; ``holm`` corrected for all pairs of the matrix."""

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
    """Every pair of rows in one column, as a matrix: row minus column.

    Args:
        column: a relation, or ``all``. The others as in ``compare``.

    Raises:
        SpatialbenchError: fewer than two rows, a damaged row, rows of different data, an unknown column or format.
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
    return write(_matrix(rows, pairs, left_out, column), format)


def judged_pairs(
    rows: Sequence[Row], column: str, differences: Differences
) -> tuple[list[Pair], list[str]]:
    """Every pair of rows in a column, corrected for all of them, and a line for each that cannot be compared."""
    first = rows[0].outcomes
    chosen = slice(None) if column == "all" else first.relation == column
    found: list[tuple[str, str, Gain, float]] = []
    left_out = []
    for a, b in combinations(rows, 2):
        gain = differences.between(a.result.name, b.result.name, column)
        if a.result.seeds != b.result.seeds or gain is None:
            left_out.append(f"left out: {_other_seeds(a, b)}" if gain else f"no record of {column}")
            continue
        mine, theirs = (differences.margins[row.result.name][:, chosen] for row in (a, b))
        p = sign_flip(mine, theirs, first.cluster[chosen])
        found.append((a.result.name, b.result.name, gain, p))
    corrected = holm([p for *_, p in found])
    pairs = [
        Pair(*one, q, verdict(one[2].interval, q)) for one, q in zip(found, corrected, strict=True)
    ]
    return pairs, list(dict.fromkeys(left_out))


def _matrix(
    rows: Sequence[Row], pairs: Sequence[Pair], left_out: Sequence[str], column: str
) -> Sheet:
    cells = {(one.a, one.b): Cell(f"{one.gain.points:+.1f}", one.verdict != SAME) for one in pairs}
    cells |= {
        (one.b, one.a): Cell(f"{0 - one.gain.points:+.1f}", one.verdict != SAME) for one in pairs
    }
    names, stale = [row.result.name for row in rows], stale_notes(rows)
    first = rows[0].result
    return Sheet(
        title=f"{first.track}, budget {first.budget}: {TITLES[column]}, row minus column in points",
        header=["", *map(str, range(1, len(names) + 1))],
        lines=[
            Line(
                [
                    f"{k} {shown_name(row)}",
                    *(cells.get((row.result.name, name), "–") for name in names),
                ]
            )
            for k, row in enumerate(rows, 1)
        ],
        notes=[
            *stale,
            *([""] if stale else []),
            *left_out,
            fingerprint_line(rows),
            "",
            f"Emphasis (a star in a terminal): the paired interval excludes 0 and p, corrected for {len(pairs)} pairs "
            "(Holm), is 0.05 at most.",
        ],
        data=[_pair_json(one) for one in pairs],
        rows=[
            ["a", "b", "difference", "low", "high", "p", "p_holm", "verdict"],
            *(
                [
                    one.a,
                    one.b,
                    one.gain.points,
                    *one.gain.interval,
                    f"{one.p:.6g}",
                    f"{one.holm:.6g}",
                    one.verdict,
                ]
                for one in pairs
            ),
        ],
    )


def _pair_json(one: Pair) -> dict[str, Any]:
    return {
        **{"a": one.a, "b": one.b, "difference": round(one.gain.points, 4)},
        "interval": [round(bound, 4) for bound in one.gain.interval],
        **{"p": significant(one.p), "p_holm": significant(one.holm), "verdict": one.verdict},
    }
