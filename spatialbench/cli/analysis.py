"""The commands on stored rows: check-results, compare, reproduce."""

from __future__ import annotations

import sys

from spatialbench.cli.parser import Parser


def check_results(argv: list[str]) -> int:
    """``spatialbench check-results``: 1 where something does not hold."""
    parser = Parser(
        "check-results", "are the stored rows current and sound, and do their smoke runs repeat?"
    )
    text = "only the rows of these pages, by name or path; the table is not checked then (default: all)"
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=text)
    parser.add_argument(
        "--no-smoke", action="store_true", help="look at the files only: seconds instead of minutes"
    )
    parser.add_argument("--results", default="results", metavar="FOLDER", help="default: results")
    parser.add_argument(
        "--benchmarks", default="benchmarks", metavar="FOLDER", help="default: benchmarks"
    )
    o = parser.parse_args(argv)
    from spatialbench.verify import check_results as check

    problems = check.check_results(o.results, o.benchmarks, smoke=not o.no_smoke, pages=o.pages)
    for problem in problems:
        print(f"spatialbench: {problem}", file=sys.stderr)
    of = f" of {', '.join(o.pages)}" if o.pages else ""
    print(
        f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        if problems
        else f"the stored results{of} hold"
    )
    return 1 if problems else 0


def compare(argv: list[str]) -> int:
    """``spatialbench compare``."""
    from spatialbench.report.table_model import FORMATS

    parser = Parser(
        "compare", "two stored rows record by record: difference, interval, exact tests, verdict"
    )
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help="two rows: is the first better than the second?"
    )
    parser.add_argument("--all", action="store_true", help="every pair of rows as one matrix")
    parser.add_argument(
        "--column", metavar="RELATION", help="of the matrix: a relation, or all (default)"
    )
    parser.add_argument("--format", default="text", choices=FORMATS)
    parser.add_argument("--track", default="rooms", help="default: rooms")
    parser.add_argument("--budget", default="full", help="default: full, the stored rows")
    parser.add_argument("--results", default="results", metavar="FOLDER", help="default: results")
    parser.add_argument(
        "--benchmarks", default="benchmarks", metavar="FOLDER", help="default: benchmarks"
    )
    o = parser.parse_args(argv)
    if len(o.rows) != (0 if o.all else 2):
        parser.error(
            "give two rows (spatialbench compare spatial_attn clip_finetune), or --all alone"
        )
    if o.column and not o.all:
        parser.error("--column belongs to --all: two rows are compared in every column")
    from spatialbench.report import compare as report

    where = (o.results, o.benchmarks, o.track, o.format, o.budget)
    text = (
        report.compare_all(*where, o.column or "all")
        if o.all
        else report.compare(o.rows[0], o.rows[1], *where)
    )
    print(text, end="")
    return 0


def reproduce(argv: list[str]) -> int:
    """``spatialbench reproduce``."""
    parser = Parser(
        "reproduce", "run again what made a stored row, from nothing, and say whether it came out"
    )
    parser.add_argument(
        "row", metavar="RESULT.json", help="the stored row, as results/rooms/clip_finetune.json"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="one of the row's (default: its first)"
    )
    parser.add_argument(
        "--benchmarks", default="benchmarks", metavar="FOLDER", help="default: benchmarks"
    )
    parser.add_argument(
        "--out",
        default="runs/reproduced",
        metavar="FOLDER",
        help="for the run and its row (default: runs/reproduced)",
    )
    o = parser.parse_args(argv)
    from spatialbench.verify.reproduce import reproduce as again

    return again(o.row, o.seed, o.benchmarks, o.out)
