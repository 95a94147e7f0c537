"""``spatialbench report``."""

from __future__ import annotations

import argparse

from spatialbench.cli.parser import Parser


def report(argv: list[str]) -> int:
    """Writes the report, prints its path and size."""
    parser = Parser(
        "report",
        "one HTML file that needs no network: table, figures, verdicts, records, provenance",
    )
    add = parser.add_argument
    add("--track", default="rooms", help="default: rooms")
    add(
        "--out",
        default="results/report.html",
        metavar="FILE.html",
        help="default: results/report.html",
    )
    add(
        "--runs",
        default="runs",
        metavar="FOLDER",
        help="for curves and maps; may be gone (default: runs)",
    )
    add("--budget", default="full", help="default: full, the stored rows")
    add(
        "--records",
        type=_count,
        default=12,
        metavar="N",
        help="of each relation with pictures; 0: none (default: 12)",
    )
    add("--no-maps", action="store_true", help="no maps of relevance: those need the models")
    add("--results", default="results", metavar="FOLDER", help="default: results")
    add("--benchmarks", default="benchmarks", metavar="FOLDER", help="default: benchmarks")
    o = parser.parse_args(argv)
    from spatialbench.report.html.page import write_report

    path = write_report(
        o.out, o.results, o.benchmarks, o.track, o.runs, o.budget, o.records, not o.no_maps
    )
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"needs a whole number, 0 or more; got {text!r}")
    return int(text)
