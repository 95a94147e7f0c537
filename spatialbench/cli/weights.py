"""The commands on a page's weights: controls and export."""

import sys
from pathlib import Path

from spatialbench.cli.parser import Parser


def controls(argv: list[str]) -> int:
    """Run ``spatialbench controls``; 1 if an exact control does not hold."""
    parser = Parser("controls", "blind scorers, and changes of the test whose effect is known")
    default = "benchmarks/clip_zeroshot.yaml"
    parser.add("--config", f"default: {default}", "PAGE.yaml", default=default)
    parser.flag("--write", "store them beside the track's rows, for the table")
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
    parser = Parser("export", "the enhanced CLIP of a page as an ordinary checkpoint, compared")
    parser.add("folder", "a new folder", "DIR")
    parser.add("--config", "the page", "PAGE.yaml", required=True)
    text = "the library: open_clip, or transformers (hf)"
    parser.add("--to", text, required=True, choices=("open_clip", "hf"))
    parser.common("track", "seed", "ckpt_path", "runs", budget="quick")
    options = parser.parse_args(argv)
    from spatialbench.training import export_clip

    export_clip.run(options)
    return 0
