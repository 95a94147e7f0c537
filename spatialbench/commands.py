"""The commands around the table: run, table, check-results, list, data."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from spatialbench.arguments import Parser, did_you_mean
from spatialbench.errors import SpatialbenchError


def _run(argv: list[str]) -> int:
    parser = Parser("run", "pages x seeds: fit, test, result file; what is done is skipped, what was stopped goes on")
    parser.add_argument("pages", nargs="+", metavar="PAGE.yaml")
    parser.add_argument("--seeds", type=_seeds, metavar="0,1,2", help="default: the track's")
    parser.add_argument("--track", default="rooms", help="name or path (default: rooms)")
    parser.add_argument("--budget", default="full", help="smoke, quick or full (default: full, the rows of the table)")
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help="where the run folders are (default: runs)")
    parser.add_argument("--results", default="results", metavar="FOLDER", help="where the rows go (default: results)")
    parser.add_argument("--force", action="store_true", help="make runs and rows again, finished or not")
    o = parser.parse_args(argv)
    from spatialbench.runner import run

    return run(o.pages, o.track, o.budget, o.seeds, out=o.results, force=o.force, runs=o.runs)


def _table(argv: list[str]) -> int:
    parser = Parser("table", "the table of the stored rows")
    parser.add_argument("--format", default="text", choices=("text", "md", "json", "csv"))
    parser.add_argument("--reported", action="store_true", help="set the papers' own numbers beside ours")
    parser.add_argument("--track", default="rooms", help="default: rooms")
    parser.add_argument("--budget", default="full", help="default: full, the stored rows")
    parser.add_argument("--results", default="results", metavar="FOLDER", help="default: results")
    parser.add_argument("--benchmarks", default="benchmarks", metavar="FOLDER", help="default: benchmarks")
    parser.add_argument("--write", action="store_true", help="write README.md in the folder of results instead")
    o = parser.parse_args(argv)
    if o.write:
        from spatialbench.report.readme import write_readme

        print(write_readme(o.results, o.benchmarks))
        return 0
    from spatialbench.report.table import table

    print(table(o.results, o.benchmarks, o.track, o.format, o.reported, o.budget), end="")
    return 0


def _check_results(argv: list[str]) -> int:
    parser = Parser("check-results", "are the stored rows current and sound, and do their smoke runs repeat?")
    parser.add_argument("--no-smoke", action="store_true", help="look at the files only: seconds instead of minutes")
    parser.add_argument("--results", default="results", metavar="FOLDER", help="default: results")
    parser.add_argument("--benchmarks", default="benchmarks", metavar="FOLDER", help="default: benchmarks")
    o = parser.parse_args(argv)
    from spatialbench.report.check import check_results

    problems = check_results(o.results, o.benchmarks, smoke=not o.no_smoke)
    for problem in problems:
        print(f"spatialbench: {problem}", file=sys.stderr)
    print(f"{len(problems)} problems" if problems else "the stored results hold")
    return 1 if problems else 0


def _seeds(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"needs integers with commas between them, as 0,1,2; got {text!r}")
    return [int(word) for word in words]


def _list(argv: list[str]) -> int:
    parser = Parser("list", "the pages, their paper, command, cost, and the state of the stored row")
    parser.add_argument("--track", default="rooms", help="whose stored rows (default: rooms)")
    parser.add_argument("--benchmarks", default="benchmarks", metavar="FOLDER", help="where the pages are")
    parser.add_argument("--results", default="results", metavar="FOLDER", help="where the result files are")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    options = parser.parse_args(argv)
    from spatialbench.listing import listing, show

    rows = listing(Path(options.benchmarks), Path(options.results), options.track)
    if options.format == "json":
        print(json.dumps(rows, indent=2))
    else:
        show(rows)
    return 0


def _data(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(
            "usage: spatialbench data check FILE [--strict]\n       spatialbench data export --out FILE [--split test]"
        )
        return 0
    if argv[0] not in ("check", "export"):
        raise SpatialbenchError(f"unknown command 'data {argv[0]}'{did_you_mean(argv[0], ('check', 'export'))}")
    return _data_check(argv[1:]) if argv[0] == "check" else _data_export(argv[1:])


def _data_check(argv: list[str]) -> int:
    parser = Parser("data check", "look through a file in EmbSpatial's schema: counts, filters, the first bad record")
    parser.add_argument("file", help="a JSON or parquet file")
    parser.add_argument("--strict", action="store_true", help="the first damaged record is an error")
    options = parser.parse_args(argv)
    from spatialbench.data.check import check_file, print_report

    print_report(check_file(options.file, options.strict))
    return 0


def _data_export(argv: list[str]) -> int:
    parser = Parser("data export", "write rendered records in EmbSpatial's own schema")
    parser.add_argument("--out", required=True, metavar="FILE.json", help="the file to write")
    parser.add_argument("--split", default="test", choices=("pretrain", "train", "val", "test"), help="default: test")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="the first N images (default: all of test, 1000 of others)"
    )
    parser.add_argument("--size", type=int, default=96, metavar="PIXELS", help="side of the images (default: 96)")
    options = parser.parse_args(argv)
    if options.limit is not None and options.limit < 1:
        raise SpatialbenchError(f"--limit must be 1 or more, got {options.limit}")
    from spatialbench.data.export import export
    from spatialbench.data.rooms import load

    images = options.limit or (None if options.split == "test" else 1000)
    count = export(load(options.split, images, options.size).record_set(), options.out)
    print(f"{options.out}: {count} records")
    return 0


RUN: dict[str, Callable[[list[str]], int]] = {
    "run": _run,
    "table": _table,
    "check-results": _check_results,
    "list": _list,
    "data": _data,
}
"""Command -> what runs it."""
