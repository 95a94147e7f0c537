"""The commands that say what a number and its weights are worth: controls, export, subsets."""

from __future__ import annotations

import shlex
import sys

from spatialbench.utils.arguments import FORMATS, Parser


def controls(argv: list[str]) -> int:
    """``spatialbench controls``: 1 where an exact control does not hold."""
    parser = Parser(
        "controls",
        "scorers that know nothing, and changes of the test whose effect is known before",
    )
    add = parser.add_argument
    add(
        "--config",
        default="benchmarks/clip_zeroshot.yaml",
        metavar="PAGE.yaml",
        help="default: clip_zeroshot's",
    )
    add("--track", default="rooms", help="name or path of the track (default: rooms)")
    add(
        "--budget",
        default="full",
        help="smoke, quick or full (default: full, the rows of the table)",
    )
    add("--seed", type=int, metavar="N", help="default: the track's first seed")
    add(
        "--ckpt_path",
        metavar="FILE|LAST",
        help="default: the newest run of the seed, where the page needs one",
    )
    add(
        "--runs", default="runs", metavar="FOLDER", help="where the run folders are (default: runs)"
    )
    add("--results", default="results", metavar="FOLDER", help="default: results")
    add("--write", action="store_true", help="store them beside the track's rows, for the table")
    add("--format", default="text", choices=FORMATS)
    options = parser.parse_args(argv)
    from spatialbench.cli import controls as command
    from spatialbench.evaluation.controls.row import BrokenControl

    try:
        command.run(options, shlex.join(["spatialbench", "controls", *argv]))
    except BrokenControl as error:
        print(f"spatialbench: {error}", file=sys.stderr)
        return 1
    return 0


def export(argv: list[str]) -> int:
    """``spatialbench export``."""
    parser = Parser(
        "export", "the enhanced CLIP of a page as an ordinary checkpoint, compared with the method"
    )
    add = parser.add_argument
    add("folder", metavar="DIR", help="a new folder")
    add("--config", required=True, metavar="PAGE.yaml", help="the page")
    add(
        "--to",
        required=True,
        choices=("open_clip", "hf"),
        help="of which library: open_clip, or transformers (hf)",
    )
    add("--track", default="rooms", help="name or path of the track (default: rooms)")
    add("--budget", default="quick", help="whose run: smoke, quick or full (default: quick)")
    add("--seed", type=int, metavar="N", help="default: the track's first seed")
    add(
        "--ckpt_path",
        metavar="FILE|LAST",
        help="default: the newest run of the seed, where the page needs one",
    )
    add(
        "--runs", default="runs", metavar="FOLDER", help="where the run folders are (default: runs)"
    )
    options = parser.parse_args(argv)
    from spatialbench.training import export_clip as exporting

    exporting.run(options)
    return 0


def subsets(argv: list[str]) -> int:
    """``spatialbench subsets``."""
    parser = Parser(
        "subsets",
        "where a method wins: stored rows on records apart by elevation, gap, size, depth, ...",
    )
    add = parser.add_argument
    add("rows", nargs="*", metavar="ROW", help="stored rows (default: all)")
    add(
        "--than",
        metavar="ROW",
        help="the row that the others are compared with (default: the table's second)",
    )
    add("--track", default="rooms", help="default: rooms")
    add("--budget", default="full", help="default: full, the stored rows")
    add("--results", default="results", metavar="FOLDER", help="default: results")
    add("--benchmarks", default="benchmarks", metavar="FOLDER", help="default: benchmarks")
    add("--format", default="text", choices=FORMATS)
    options = parser.parse_args(argv)
    from spatialbench.cli import subsets as command

    command.run(options)
    return 0
