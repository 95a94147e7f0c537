"""The commands on stored rows, from ``run`` to ``reproduce``."""

import json
import sys
from pathlib import Path

from spatialbench.cli.parser import Parser, count, integers


def run(argv: list[str]) -> int:
    """Run ``spatialbench run``; 1 if a page failed."""
    parser = Parser("run", "pages x seeds: fit, test, result file; skips what is done")
    parser.add("pages", "pages to run", "PAGE.yaml", nargs="+")
    parser.add("--seeds", "default: the track's", "0,1,2", type=integers)
    parser.common("track", "runs", "results", budget="full")
    parser.flag("--force", "make runs and rows again, finished or not")
    if any(word.partition("=")[0] == "--config" for word in argv):
        parser.error("pages stand without --config: spatialbench run benchmarks/clip_finetune.yaml")
    o = parser.parse_args(argv)
    from spatialbench.training.plan import run as run_plan

    return run_plan(o.pages, o.track, o.budget, o.seeds, out=o.results, force=o.force, runs=o.runs)


def audit(argv: list[str]) -> int:
    """Run ``spatialbench audit``; 1 if a run failed."""
    parser = Parser("audit", "the poster's protocol, flaw by flaw; what is done is only printed")
    parser.add("--seeds", "default: the track's", "0,1,2", type=integers)
    parser.common("track", "runs", "results", "benchmarks", "format", budget="quick")
    parser.flag("--force", "make runs and rows again, finished or not")
    o = parser.parse_args(argv)
    from spatialbench.report.audit_table import audit_table
    from spatialbench.training.audit import audit as make

    where = (o.results, o.benchmarks, o.track, o.budget)
    failed = make(*where, o.seeds, runs=o.runs, force=o.force)
    print(audit_table(*where).write(o.format), end="")
    return failed


def table(argv: list[str]) -> int:
    """Run ``spatialbench table``."""
    parser = Parser("table", "the table of the stored rows")
    parser.flag("--reported", "add the papers' own numbers")
    text = "an evaluation of the track, or controls (default: pairs)"
    parser.add("--evaluation", text, "NAME", default="pairs")
    short = {"measures": "regions", "selection": "selection", "controls": "controls"}
    for flag, name in short.items():
        text = f"the same as --evaluation {name}"
        parser.add_argument(
            f"--{flag}", action="store_const", dest="evaluation", const=name, help=text
        )
    parser.common("format", "track", "results", "benchmarks", budget="full")
    parser.flag("--write", "write README.md in the folder of results instead")
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
    parser = Parser("compare", "two rows record by record: difference, interval, tests, verdict")
    parser.add("rows", "two rows: is the first better than the second?", "ROW", nargs="*")
    parser.flag("--all", "every pair of rows as one matrix")
    parser.add("--column", "column of the matrix: a relation, or all (default)", "RELATION")
    text = "an evaluation of the track (default: pairs)"
    parser.add("--evaluation", text, "NAME", default="pairs")
    parser.common("format", "track", "results", "benchmarks", budget="full")
    o = parser.parse_args(argv)
    if len(o.rows) != (0 if o.all else 2):
        parser.error("give two rows, as compare spatial_attn clip_finetune, or --all alone")
    if o.column and not o.all:
        parser.error("--column belongs to --all: two rows are compared in every column")
    if o.all and o.evaluation != "pairs":
        parser.error("--evaluation belongs to two rows: --all compares them in the pairs")
    from spatialbench.report import compare as report

    where = (o.results, o.benchmarks, o.track, o.format, o.budget)
    if o.all:
        print(report.compare_all(*where, o.column or "all"), end="")
    else:
        print(report.compare(o.rows[0], o.rows[1], *where, o.evaluation), end="")
    return 0


def listing(argv: list[str]) -> int:
    """Run ``spatialbench list``."""
    parser = Parser("list", "the pages: paper, command, cost, and the state of the stored row")
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
    """Run ``spatialbench check-results``; 1 if something does not hold."""
    parser = Parser("check-results", "are the stored rows current, and do their smoke runs repeat?")
    parser.add("pages", "only their rows, without the table (default: all)", "PAGE", nargs="*")
    parser.flag("--no-smoke", "look at the files only: seconds instead of minutes")
    text = "for the smoke runs; set OMP_NUM_THREADS to the threads of each (default: 1)"
    parser.add("--processes", text, "N", type=count, default=1)
    text = "smoke runs to repeat, drawn by the commit, so that all have their turn (default: all)"
    parser.add("--sample", text, "N", type=count, default=0)
    parser.common("results", "benchmarks")
    o = parser.parse_args(argv)
    from spatialbench.verify import check_results as check

    problems = check.check_results(
        o.results,
        o.benchmarks,
        not o.no_smoke,
        pages=o.pages,
        processes=o.processes,
        sample=o.sample,
    )
    for problem in problems:
        print(f"spatialbench: {problem}", file=sys.stderr)
    of = f" of {', '.join(o.pages)}" if o.pages else ""
    many = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    print(many if problems else f"the stored results{of} hold")
    return 1 if problems else 0


def reproduce(argv: list[str]) -> int:
    """Run ``spatialbench reproduce``; 1 if the row did not come out."""
    parser = Parser("reproduce", "run again what made a stored row, and say whether it came out")
    parser.add("row", "the stored row, as results/rooms/clip_finetune.json", "RESULT.json")
    parser.add("--seed", "one of the row's (default: its first)", "N", type=int)
    out = "runs/reproduced"
    parser.add("--out", f"for the run and its row (default: {out})", "FOLDER", default=out)
    parser.common("benchmarks")
    o = parser.parse_args(argv)
    from spatialbench.verify.reproduce import reproduce as again

    return again(o.row, o.seed, o.benchmarks, o.out)
