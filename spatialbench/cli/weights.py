"""The commands on a page's weights: controls and export."""

from __future__ import annotations

import sys
from pathlib import Path

from spatialbench.cli.parser import Parser


def controls(argv: list[str]) -> int:
    """Run ``spatialbench controls``; 1 where an exact control does not hold."""
    parser = Parser(
        "controls", "blind scorers, and changes to the test set whose effect is known beforehand"
    )
    add = parser.add_argument
    default = "benchmarks/clip_zeroshot.yaml"
    add("--config", default=default, metavar="PAGE.yaml", help="default: clip_zeroshot's")
    add("--write", action="store_true", help="store them beside the track's rows, for the table")
    parser.common("track", "seed", "ckpt_path", "runs", "results", "format", budget="full")
    o = parser.parse_args(argv)
    from spatialbench.config.experiment import resolve
    from spatialbench.evaluation.controls.checks import BrokenControl
    from spatialbench.report.controls import table_of_controls
    from spatialbench.training.controls import make_controls, store
    from spatialbench.utils.say import say

    if o.write and o.budget != "full":
        parser.error("--write stores the controls of the table: --budget full")
    resolved = resolve(o.config, o.track, o.budget, o.seed, runs=o.runs)
    try:
        row = make_controls(resolved, o.ckpt_path, Path(o.runs))
    except BrokenControl as error:
        print(f"spatialbench: {error}", file=sys.stderr)
        return 1
    if o.write:
        say(f"wrote {store(row, Path(o.results))}")
    print(table_of_controls([row]).write(o.format), end="")
    return 0


def export(argv: list[str]) -> int:
    """Run ``spatialbench export``."""
    parser = Parser(
        "export", "the enhanced CLIP of a page as an ordinary checkpoint, compared with the method"
    )
    add = parser.add_argument
    add("folder", metavar="DIR", help="a new folder")
    add("--config", required=True, metavar="PAGE.yaml", help="the page")
    text = "the library: open_clip, or transformers (hf)"
    add("--to", required=True, choices=("open_clip", "hf"), help=text)
    parser.common("track", "seed", "ckpt_path", "runs", budget="quick")
    options = parser.parse_args(argv)
    from spatialbench.training import export_clip as exporting

    exporting.run(options)
    return 0
