"""``spatialbench report``."""

from __future__ import annotations

import argparse
from pathlib import Path

from spatialbench.utils.arguments import Parser
from spatialbench.utils.errors import SpatialbenchError, write_atomic


def report(argv: list[str]) -> int:
    """Write the report; print its path and size."""
    parser = Parser(
        "report",
        "one HTML file that works offline: table, figures, verdicts, records, provenance",
    )
    add = parser.add_argument
    add("--track", default="rooms", help="default: rooms")
    text = "default: results/report.html"
    add("--out", default="results/report.html", metavar="FILE.html", help=text)
    text = "for curves and maps; may be gone (default: runs)"
    add("--runs", default="runs", metavar="FOLDER", help=text)
    add("--budget", default="full", help="default: full, the stored rows")
    text = "records of each relation with images; 0: none (default: 12)"
    add("--records", type=_count, default=12, metavar="N", help=text)
    add("--no-maps", action="store_true", help="no maps of relevance, which need the models")
    add("--results", default="results", metavar="FOLDER", help="default: results")
    add("--benchmarks", default="benchmarks", metavar="FOLDER", help="default: benchmarks")
    o = parser.parse_args(argv)
    path = Path(o.out)
    _write(o, path)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _write(o: argparse.Namespace, path: Path) -> None:
    from spatialbench.report.html.inputs import ReportInputs
    from spatialbench.report.html.page import html
    from spatialbench.report.html.record_browser import Sample, sample

    folders = Path(o.results), Path(o.benchmarks)
    inputs = ReportInputs.read(*folders, o.track, o.budget, Path(o.runs))
    chosen: Sample | str | None = None
    maps = None
    if o.records:
        try:
            chosen = sample(inputs, o.records)
        except SpatialbenchError as error:
            chosen = " ".join(str(error).split())
        if not o.no_maps:
            from spatialbench.cli.maps import row_maps

            maps = row_maps(inputs, chosen) if isinstance(chosen, Sample) else {}
    write_atomic(path, html(inputs, chosen, maps))


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"needs a whole number, 0 or more; got {text!r}")
    return int(text)
