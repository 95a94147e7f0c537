"""The command line: LightningCLI's verbs on a page, and the commands around the table.

Heavy modules are imported where they are used, so that ``spatialbench --help`` answers at once.
"""

import importlib
import os
import shlex
import sys
from collections.abc import Sequence

from spatialbench.cli import pages
from spatialbench.cli.pages import VERBS
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

COMMANDS = {
    "run": ("stored.run", "pages x seeds: fit, test and result file; what is done is skipped"),
    "table": ("stored.table", "the table of the stored rows"),
    "compare": ("stored.compare", "two stored rows record by record; --all: every pair"),
    "report": ("report_file.report", "one offline HTML file: tables, figures, records, provenance"),
    "check-results": (
        "stored.check_results",
        "are the stored rows current, and do smoke runs repeat?",
    ),
    "reproduce": ("stored.reproduce", "run again what made a row, and say whether it came out"),
    "list": ("stored.listing", "the pages, their cost, and the state of the stored row"),
    "subsets": ("subsets.subsets", "where a method wins: rows by elevation, gap, size, ..."),
    "controls": ("weights.controls", "blind scorers and mirrored images: a broken one fails"),
    "export": ("weights.export", "the enhanced CLIP as a checkpoint of open_clip or transformers"),
    "maps": ("maps.maps", "a figure: what a token is similar to, or where a page looks"),
    "premises": ("premises.premises", "what a student and a VFM hold of what the methods need"),
    "data": ("data.data", "data check FILE | data export --out FILE | data download NAME"),
    "audit": ("stored.audit", "the poster's protocol, flaw by flaw: what is each worth?"),
    "doctor": ("doctor.doctor", "what this machine can run, what is missing; offline"),
}
"""Command -> function of this folder, and its help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 2 after a user's mistake (one line on standard error, or a stack trace with
        SPATIALBENCH_DEBUG=1); 130 after Ctrl-C, 143 after SIGTERM.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(argv)
    except SpatialbenchError as error:
        if os.environ.get("SPATIALBENCH_DEBUG") == "1":
            raise
        print(f"spatialbench: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of a pipe (head, less) left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as error:  # argparse after --help
        if error.code:
            raise
        return 0
    except KeyboardInterrupt:
        return _interrupted(argv, 2, None)
    except BaseException as error:
        from spatialbench.training.callbacks import Interrupted

        if isinstance(error, Interrupted):
            return _interrupted(argv, error.signum, error.step)
        raise


def _interrupted(argv: Sequence[str], signum: int, step: int | None) -> int:
    where = "" if step is None else f" at step {step}, which is saved"
    resumable = argv[:2] == ["data", "download"] or argv[0] in ("fit", "run", "audit", "reproduce")
    command = shlex.join(["spatialbench", *(word for word in argv if word != "--force")])
    again = f"; the same command goes on from there: {command}" if resumable else ""
    print(f"\nspatialbench: stopped{where}{again}", file=sys.stderr)
    return 128 + signum


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if argv[0] == "--version":
        from spatialbench import __version__

        print(__version__)
        return 0
    name, rest = argv[0], argv[1:]
    if name in VERBS:
        return pages.run(name, rest)
    if name in COMMANDS:
        module, _, function = COMMANDS[name][0].partition(".")
        return getattr(importlib.import_module(f"spatialbench.cli.{module}"), function)(rest)
    if name.startswith("-"):
        verb = next((word for word in rest if word in VERBS), "fit")
        others = [word for word in argv if word != verb]
        raise SpatialbenchError(
            f"the command comes first: spatialbench {shlex.join([verb, *others])}"
        )
    raise SpatialbenchError(f"unknown command {name!r}{did_you_mean(name, [*VERBS, *COMMANDS])}")


def _usage() -> str:
    lines = [
        "usage: spatialbench COMMAND ...",
        "",
        "On one page (LightningCLI; --config PAGE.yaml and any of its flags):",
    ]
    lines += [f"  {name:<14} {text}" for name, text in VERBS.items()]
    lines += ["", "Around the table:"]
    lines += [f"  {name:<14} {text}" for name, (_, text) in COMMANDS.items()]
    lines += [
        "",
        "spatialbench COMMAND --help says more; spatialbench fit --config PAGE --help lists every "
        "flag of a page.",
    ]
    return "\n".join(lines)
