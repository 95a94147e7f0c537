"""The commands around the table, and the list of all commands."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from spatialbench.cli.analysis import check_results, compare, reproduce
from spatialbench.cli.html_report import report
from spatialbench.cli.trust import controls, export, subsets
from spatialbench.utils.arguments import FORMATS, Parser, did_you_mean
from spatialbench.utils.errors import SpatialbenchError


def _run(argv: list[str]) -> int:
    parser = Parser(
        "run",
        "pages x seeds: fit, test, result file; what is done is skipped, what was stopped goes on",
    )
    parser.add_argument("pages", nargs="+", metavar="PAGE.yaml")
    parser.add_argument("--seeds", type=_seeds, metavar="0,1,2", help="default: the track's")
    parser.add_argument("--track", default="rooms", help="name or path (default: rooms)")
    parser.add_argument(
        "--budget",
        default="full",
        help="smoke, quick or full (default: full, the rows of the table)",
    )
    parser.add_argument(
        "--runs", default="runs", metavar="FOLDER", help="where the run folders are (default: runs)"
    )
    parser.add_argument(
        "--results",
        default="results",
        metavar="FOLDER",
        help="where the rows go (default: results)",
    )
    parser.add_argument(
        "--force", action="store_true", help="make runs and rows again, finished or not"
    )
    if any(word.partition("=")[0] == "--config" for word in argv):
        parser.error("pages stand without --config: spatialbench run benchmarks/clip_finetune.yaml")
    o = parser.parse_args(argv)
    from spatialbench.training.plan import run

    return run(o.pages, o.track, o.budget, o.seeds, out=o.results, force=o.force, runs=o.runs)


def _table(argv: list[str]) -> int:
    parser = Parser("table", "the table of the stored rows")
    parser.add_argument("--format", default="text", choices=FORMATS)
    parser.add_argument(
        "--reported", action="store_true", help="set the papers' own numbers beside ours"
    )
    parser.add_argument(
        "--measures", action="store_true", help="regions, dense quality and retrieval instead"
    )
    parser.add_argument(
        "--selection", action="store_true", help="image selection on pairs of pictures instead"
    )
    parser.add_argument(
        "--controls",
        action="store_true",
        help="scorers that know nothing, and the ceiling, instead",
    )
    parser.add_argument("--track", default="rooms", help="default: rooms")
    parser.add_argument("--budget", default="full", help="default: full, the stored rows")
    parser.add_argument("--results", default="results", metavar="FOLDER", help="default: results")
    parser.add_argument(
        "--benchmarks", default="benchmarks", metavar="FOLDER", help="default: benchmarks"
    )
    parser.add_argument(
        "--write", action="store_true", help="write README.md in the folder of results instead"
    )
    o = parser.parse_args(argv)
    if o.write:
        from spatialbench.report.readme import write_readme

        print(write_readme(o.results, o.benchmarks))
        return 0
    from spatialbench.report.controls import below_table, controls_table

    if o.controls:
        if o.measures or o.selection or o.reported:
            parser.error("--controls is a table of its own: leave the other out")
        if o.budget != "full":
            parser.error("--controls are those of the table, of budget full: leave --budget out")
        print(controls_table(o.results, o.benchmarks, o.track, o.format), end="")
        return 0
    if o.measures or o.selection:
        if o.measures and o.selection:
            parser.error("--measures and --selection are two tables: leave one out")
        if o.reported:
            name = "--measures" if o.measures else "--selection"
            parser.error(f"--reported has no numbers to set beside {name}: leave one out")
        from spatialbench.report.measures import measures_table
        from spatialbench.report.selection import selection_table

        made = measures_table if o.measures else selection_table
        print(made(o.results, o.benchmarks, o.track, o.format, o.budget), end="")
        return 0
    from spatialbench.report.table import table

    print(table(o.results, o.benchmarks, o.track, o.format, o.reported, o.budget), end="")
    print(below_table(o.results, o.benchmarks, o.track, o.budget, o.format), end="")
    return 0


def _seeds(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise argparse.ArgumentTypeError(
            f"needs integers with commas between them, as 0,1,2; got {text!r}"
        )
    return [int(word) for word in words]


def _list(argv: list[str]) -> int:
    parser = Parser(
        "list", "the pages, their paper, command, cost, and the state of the stored row"
    )
    parser.add_argument("--track", default="rooms", help="whose stored rows (default: rooms)")
    parser.add_argument(
        "--benchmarks", default="benchmarks", metavar="FOLDER", help="where the pages are"
    )
    parser.add_argument(
        "--results", default="results", metavar="FOLDER", help="where the result files are"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text")
    options = parser.parse_args(argv)
    from spatialbench.report.listing import listing, show

    benchmarks = Path(options.benchmarks)
    rows = listing(benchmarks, Path(options.results), options.track)
    if options.format == "json":
        print(json.dumps(rows, indent=2))
    else:
        show(rows, benchmarks, options.track)
    return 0


def _doctor(argv: list[str]) -> int:
    parser = Parser(
        "doctor", "what this machine can run, what is missing and how it is got; asks no network"
    )
    parser.add_argument("--json", action="store_true", help="the findings for machines")
    parser.add_argument(
        "--benchmarks", default="benchmarks", metavar="FOLDER", help="default: benchmarks"
    )
    options = parser.parse_args(argv)
    from spatialbench.cli.doctor import run

    return run(options)


def _data(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(
            "usage: spatialbench data check FILE [--strict] [--images FOLDER]\n"
            "       spatialbench data export --out FILE [--split test] [--form embspatial|coco]\n"
            "       spatialbench data download NAME [--from FOLDER] [--to FOLDER] | --list"
        )
        return 0
    run = {"check": _data_check, "export": _data_export, "download": _data_download}
    if argv[0] not in run:
        raise SpatialbenchError(f"unknown command 'data {argv[0]}'{did_you_mean(argv[0], run)}")
    return run[argv[0]](argv[1:])


def _data_download(argv: list[str]) -> int:
    parser = Parser(
        "data download", "bring a published data set to disk: pinned, checked, resumable"
    )
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help="of --list")
    add(
        "--list",
        action="store_true",
        help="every data set with its size, its licence and whether it is here",
    )
    add(
        "--from",
        dest="source",
        metavar="FOLDER",
        help="no network: take files that lie in a folder of yours",
    )
    add("--copy", action="store_true", help="with --from: copy the files (default: link them)")
    add(
        "--to",
        metavar="FOLDER",
        help="where the data set goes (default: data/NAME, where the tracks look)",
    )
    add(
        "--only",
        action="append",
        default=[],
        metavar="FILE",
        help="this file of it (or *.json); may be repeated",
    )
    options = parser.parse_args(argv)
    from spatialbench.data.download.command import run

    run(options)
    return 0


def _data_check(argv: list[str]) -> int:
    parser = Parser(
        "data check",
        "look through a file in EmbSpatial's schema or COCO's: counts, what is left out, why",
    )
    parser.add_argument("file", help="a JSON or parquet file")
    parser.add_argument("--images", metavar="FOLDER", help="of a COCO file: where its pictures are")
    parser.add_argument(
        "--masks", metavar="FOLDER", help="of a panoptic COCO file: its PNGs (default: beside it)"
    )
    parser.add_argument(
        "--size", type=int, default=224, metavar="PIXELS", help="of a COCO file (default: 224)"
    )
    parser.add_argument(
        "--strict", action="store_true", help="the first damaged record is an error"
    )
    options = parser.parse_args(argv)
    from spatialbench.data.coco.inspection import check_coco, is_coco, print_coco
    from spatialbench.data.embspatial.audit import check_file, print_report

    if is_coco(options.file):
        if options.images is None:
            raise SpatialbenchError(
                f"{options.file} is a COCO file; say where its pictures are with --images FOLDER"
            )
        print_coco(
            check_coco(options.file, options.images, options.size, options.masks, options.strict)
        )
        return 0
    if (options.images is not None or options.masks is not None) and Path(options.file).exists():
        raise SpatialbenchError(
            f"{options.file} is no COCO file; --images and --masks are for those"
        )
    print_report(check_file(options.file, options.strict))
    return 0


def _data_export(argv: list[str]) -> int:
    parser = Parser(
        "data export",
        "write rendered records in EmbSpatial's own schema, or rendered objects in COCO's",
    )
    parser.add_argument("--out", required=True, metavar="FILE.json", help="the file to write")
    parser.add_argument(
        "--split",
        default="test",
        choices=("pretrain", "train", "val", "test"),
        help="default: test",
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="the first N pictures (default: all of test, 1000 of others)",
    )
    parser.add_argument(
        "--size", type=int, default=96, metavar="PIXELS", help="side of the images (default: 96)"
    )
    parser.add_argument(
        "--form", default="embspatial", choices=("embspatial", "coco"), help="default: embspatial"
    )
    options = parser.parse_args(argv)
    if options.limit is not None and options.limit < 1:
        raise SpatialbenchError(f"--limit must be 1 or more, got {options.limit}")
    from spatialbench.data.embspatial.export import export
    from spatialbench.data.rooms import load

    images = options.limit or (None if options.split == "test" else 1000)
    rooms = load(options.split, images, options.size)
    if options.form == "coco":
        from spatialbench.data.coco.writer import export_coco

        print(
            f"{options.out}: {export_coco(rooms, options.out, options.size)} regions in {len(rooms.scenes)} pictures"
        )
        return 0
    records = rooms.record_set()
    if not records.records:
        raise SpatialbenchError(
            f"the first {images} pictures of {options.split} have no record; give a larger --limit"
        )
    print(f"{options.out}: {export(records, options.out)} records")
    return 0


def _maps(argv: list[str]) -> int:
    from spatialbench.cli.maps import maps

    return maps(argv)


RUN: dict[str, Callable[[list[str]], int]] = {
    "run": _run,
    "table": _table,
    "compare": compare,
    "report": report,
    "check-results": check_results,
    "reproduce": reproduce,
    "list": _list,
    "data": _data,
    "doctor": _doctor,
    "maps": _maps,
    "controls": controls,
    "export": export,
    "subsets": subsets,
}
"""Command -> what runs it."""
