"""The commands on stored rows: run, table, compare, subsets, list, check-results, reproduce."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from spatialbench.cli.parser import Parser, count, integers


def run(argv: list[str]) -> int:
    """Run ``spatialbench run``; 1 where a page failed."""
    parser = Parser(
        "run", "pages x seeds: fit, test, result file; skips what is done, resumes what was stopped"
    )
    parser.add_argument("pages", nargs="+", metavar="PAGE.yaml")
    text = "default: the track's"
    parser.add_argument("--seeds", type=integers, metavar="0,1,2", help=text)
    parser.common("track", "runs", "results", budget="full")
    text = "make runs and rows again, finished or not"
    parser.add_argument("--force", action="store_true", help=text)
    if any(word.partition("=")[0] == "--config" for word in argv):
        parser.error("pages stand without --config: spatialbench run benchmarks/clip_finetune.yaml")
    o = parser.parse_args(argv)
    from spatialbench.training.plan import run as run_plan

    return run_plan(o.pages, o.track, o.budget, o.seeds, out=o.results, force=o.force, runs=o.runs)


def table(argv: list[str]) -> int:
    """Run ``spatialbench table``."""
    parser = Parser("table", "the table of the stored rows")
    add = parser.add_argument
    add("--reported", action="store_true", help="add the papers' own numbers")
    text = "an evaluation of the track, or controls (default: pairs)"
    add("--evaluation", default="pairs", metavar="NAME", help=text)
    for flag, name in (("measures", "regions"), ("selection", "selection"), ("controls", None)):
        text = f"the same as --evaluation {name or flag}"
        add(f"--{flag}", dest="evaluation", action="store_const", const=name or flag, help=text)
    parser.common("format", "track", "results", "benchmarks", budget="full")
    add("--write", action="store_true", help="write README.md in the folder of results instead")
    o = parser.parse_args(argv)
    if o.reported and o.evaluation != "pairs":
        parser.error(f"--reported has no numbers for {o.evaluation}: leave one out")
    if o.write:
        from spatialbench.report.readme import write_readme

        print(write_readme(o.results, o.benchmarks))
        return 0
    from spatialbench.report.controls import below_table, controls_table
    from spatialbench.report.evaluation_table import table as make

    if o.evaluation == "controls":
        if o.budget != "full":
            parser.error("controls are those of budget full: leave --budget out")
        print(controls_table(o.results, o.benchmarks, o.track, o.format), end="")
        return 0
    where = (o.results, o.benchmarks, o.track, o.format, o.reported, o.budget, o.evaluation)
    print(make(*where), end="")
    if o.evaluation == "pairs":
        print(below_table(o.results, o.benchmarks, o.track, o.budget, o.format), end="")
    return 0


def compare(argv: list[str]) -> int:
    """Run ``spatialbench compare``."""
    parser = Parser(
        "compare", "two stored rows record by record: difference, interval, exact tests, verdict"
    )
    text = "two rows: is the first better than the second?"
    parser.add_argument("rows", nargs="*", metavar="ROW", help=text)
    text = "every pair of rows as one matrix"
    parser.add_argument("--all", action="store_true", help=text)
    text = "column of the matrix: a relation, or all (default)"
    parser.add_argument("--column", metavar="RELATION", help=text)
    text = "an evaluation of the track (default: pairs)"
    parser.add_argument("--evaluation", default="pairs", metavar="NAME", help=text)
    parser.common("format", "track", "results", "benchmarks", budget="full")
    o = parser.parse_args(argv)
    if len(o.rows) != (0 if o.all else 2):
        parser.error(
            "give two rows (spatialbench compare spatial_attn clip_finetune), or --all alone"
        )
    if o.column and not o.all:
        parser.error("--column belongs to --all: two rows are compared in every column")
    from spatialbench.report import compare as report

    where = (o.results, o.benchmarks, o.track, o.format, o.budget)
    if o.all:
        print(report.compare_all(*where, o.column or "all"), end="")
    else:
        print(report.compare(o.rows[0], o.rows[1], *where, o.evaluation), end="")
    return 0


def subsets(argv: list[str]) -> int:
    """Run ``spatialbench subsets``."""
    parser = Parser("subsets", "stored rows by elevation, gap, size, depth, visibility, ...")
    text = "stored rows (default: all)"
    parser.add_argument("rows", nargs="*", metavar="ROW", help=text)
    text = "the row to compare with (default: the second of the table)"
    parser.add_argument("--than", metavar="ROW", help=text)
    parser.common("format", "track", "results", "benchmarks", budget="full")
    options = parser.parse_args(argv)
    from spatialbench.cli.subsets import show

    show(options)
    return 0


def report(argv: list[str]) -> int:
    """Run ``spatialbench report``."""
    parser = Parser(
        "report", "one offline HTML file: tables, figures, verdicts, records, provenance"
    )
    add = parser.add_argument
    parser.common("track", "runs", "results", "benchmarks", budget="full")
    text = "default: results/report.html"
    add("--out", default="results/report.html", metavar="FILE.html", help=text)
    text = "records of each relation with images; 0: none (default: 12)"
    add("--records", type=count, default=12, metavar="N", help=text)
    add(
        "--no-maps", action="store_true", help="leave out the relevance maps, which need the models"
    )
    o = parser.parse_args(argv)
    from spatialbench.cli.maps import write_report

    path = write_report(o)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def listing(argv: list[str]) -> int:
    """Run ``spatialbench list``."""
    parser = Parser(
        "list", "the pages, their paper, command, cost, and the state of the stored row"
    )
    parser.common("track", "benchmarks", "results", format="json|text")
    o = parser.parse_args(argv)
    from spatialbench.report import listing as pages

    benchmarks = Path(o.benchmarks)
    rows = pages.listing(benchmarks, Path(o.results), o.track)
    if o.format == "json":
        print(json.dumps(rows, indent=2))
    else:
        pages.show(rows, benchmarks, o.track)
    return 0


def check_results(argv: list[str]) -> int:
    """Run ``spatialbench check-results``; 1 where something does not hold."""
    parser = Parser(
        "check-results", "are the stored rows current and sound, and do their smoke runs repeat?"
    )
    text = "only the rows of these pages, without the table (default: all)"
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=text)
    text = "look at the files only: seconds instead of minutes"
    parser.add_argument("--no-smoke", action="store_true", help=text)
    parser.common("results", "benchmarks")
    o = parser.parse_args(argv)
    from spatialbench.verify import check_results as check

    problems = check.check_results(o.results, o.benchmarks, smoke=not o.no_smoke, pages=o.pages)
    for problem in problems:
        print(f"spatialbench: {problem}", file=sys.stderr)
    of = f" of {', '.join(o.pages)}" if o.pages else ""
    many = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    print(many if problems else f"the stored results{of} hold")
    return 1 if problems else 0


def reproduce(argv: list[str]) -> int:
    """Run ``spatialbench reproduce``; 1 where the row did not come out."""
    parser = Parser("reproduce", "run again what made a stored row, and say whether it came out")
    text = "the stored row, as results/rooms/clip_finetune.json"
    parser.add_argument("row", metavar="RESULT.json", help=text)
    text = "one of the row's (default: its first)"
    parser.add_argument("--seed", type=int, metavar="N", help=text)
    text = "for the run and its row (default: runs/reproduced)"
    parser.add_argument("--out", default="runs/reproduced", metavar="FOLDER", help=text)
    parser.common("benchmarks")
    o = parser.parse_args(argv)
    from spatialbench.verify.reproduce import reproduce as again

    return again(o.row, o.seed, o.benchmarks, o.out)
