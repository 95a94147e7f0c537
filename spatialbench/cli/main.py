"""The command line: LightningCLI's verbs on a page, and the commands around the table.

Everything heavy is imported where it is used, so that ``spatialbench --help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spatialbench.cli.parser import Parser
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

if TYPE_CHECKING:
    from spatialbench.config.experiment import Resolved
    from spatialbench.config.pages import Config

_STARTED = time.perf_counter()

VERBS = {
    "fit": "train a page, test its last checkpoint, print the table, write the run folder",
    "validate": "score the validation set with a checkpoint of a page",
    "test": "score the test set, or --data.path FILE.json, with a checkpoint of a page",
    "predict": "a picture of your own (--image, --caption), or the test set record by record",
}
COMMANDS = {
    "run": "pages x seeds: fit, test and result file; what is done is skipped",
    "table": "the table of the stored rows",
    "compare": "two stored rows record by record: difference, interval, exact tests, verdict; --all: every pair",
    "report": "all of it as one HTML file that needs no network: table, figures, verdicts, records, provenance",
    "check-results": "are the stored rows current, and do smoke runs repeat?",
    "reproduce": "run again what made a stored row, and say whether it came out",
    "list": "the pages, their paper, command, cost, and the state of the stored row",
    "data": "data check FILE.json | data export --out FILE.json | data download NAME: published data sets",
    "doctor": "what this machine can run, and the commands that fetch what is missing; offline",
    "maps": "a figure: what the token under a point of a picture is alike to, page beside page",
    "controls": "scorers that know nothing, exchanged captions, mirrored pictures: a broken one fails",
    "export": "the enhanced CLIP of a page as an ordinary checkpoint of open_clip or transformers",
    "subsets": "where a method wins: stored rows by elevation, gap, size, visibility, training pairs",
}
VERB_OPTIONS = (
    *("--config", "--track", "--budget", "--seed", "--runs", "--ckpt_path", "--force"),
    *("--evaluation", "--evaluation_path"),
    *("--image", "--caption", "--format", "--print_config", "--help"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0; 2 after a mistake of the user (one line on the standard error); 130 after Ctrl-C, 143 after SIGTERM. With
        SPATIALBENCH_DEBUG=1 mistakes show their stack trace.
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
        if type(error).__name__ == "Interrupted":
            return _interrupted(argv, error.signum, error.step)  # type: ignore[attr-defined]
        raise


def _interrupted(argv: Sequence[str], signum: int, step: int | None) -> int:
    where = "" if step is None else f" at step {step}, which is saved"
    resumable = argv[:1] in (["fit"], ["run"], ["reproduce"]) or argv[:2] == ["data", "download"]
    again = "; the same command goes on from there: " if resumable else ""
    command = (
        f"spatialbench {shlex.join(word for word in argv if word != '--force')}" if again else ""
    )
    print(f"\nspatialbench: stopped{where}{again}{command}", file=sys.stderr)
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
        return _verb(name, rest)
    if name in COMMANDS:
        from spatialbench.cli import commands

        return commands.RUN[name](rest)

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
    lines += [f"  {name:<14} {text}" for name, text in COMMANDS.items()]
    lines += [
        "",
        "spatialbench COMMAND --help says more; spatialbench fit --config PAGE --help lists every flag of a page.",
    ]
    return "\n".join(lines)


# ---- the verbs


def _verb(name: str, argv: list[str]) -> int:
    parser = _verb_parser(name)
    options, flags = parser.parse_known_args(argv)
    if options.help and not options.config:
        parser.print_help()
        return 0
    if not options.config:
        _check_words(name, flags)
        raise SpatialbenchError(
            f"spatialbench {name} needs --config PAGE.yaml; 'spatialbench list' shows the pages"
        )
    if name == "fit" and options.ckpt_path:
        raise SpatialbenchError(
            "fit goes on by itself from its run folder; --ckpt_path is for validate, test, predict"
        )
    resolved = _resolve(name, options, flags)
    if options.help:
        from spatialbench.training.build import describe

        parser.print_help()
        print(f"\nEvery flag of {resolved.page.path}:\n\n{describe(resolved.config)}")
        return 0
    if options.print_config:
        from spatialbench.training.build import dump_config

        print(dump_config(resolved), end="")
        return 0
    if name == "fit":
        from spatialbench.training.fit import fit

        fit(resolved, force=options.force, started=_STARTED)
        return 0
    if name == "test" and (options.evaluation or options.evaluation_path):
        from spatialbench.cli import evaluation as evaluations

        evaluations.run(resolved, options)
        return 0
    from spatialbench.cli import score as evaluate

    evaluate.run(name, resolved, options)
    return 0


def _verb_parser(name: str) -> Parser:
    parser = Parser(
        name,
        VERBS[name],
        add_help=False,
        epilog="Any LightningCLI flag may follow: --trainer.max_steps 100 --model.init_args.finetuning.lr 1e-3 "
        "--data.path FILE.json; with --config PAGE, --help lists them all.",
    )
    add = parser.add_argument
    add(
        "--config",
        action="append",
        metavar="PAGE.yaml",
        help="the page; further files are laid over it",
    )
    add("--track", default="rooms", help="name or path of the track (default: rooms)")
    add(
        "--budget",
        default="quick",
        help="smoke, quick or full, as the track names them (default: quick)",
    )
    add(
        "--seed", "--seed_everything", type=int, metavar="N", help="default: the track's first seed"
    )
    add(
        "--runs", default="runs", metavar="FOLDER", help="where the run folders are (default: runs)"
    )
    if name == "fit":
        add("--ckpt_path", help=argparse.SUPPRESS)
        add(
            "--force", action="store_true", help="begin from nothing, whatever the run folder holds"
        )
    else:
        text = "last.ckpt of a run, or LAST: the newest of page, track, budget and seed (default, where one is needed)"
        add("--ckpt_path", metavar="FILE|LAST", help=text)
        add(
            "--format",
            choices=("text", "json"),
            default="text",
            help="how the result is printed (default: text)",
        )
    if name == "test":
        text = (
            "one benchmark in the place of the pairs: counterfactual (the rooms' own), mmvp, whatsup, vsr, sugarcrepe, "
            "aro, cvbench, cocoqa, vgqa, spatialsense (docs/selection.md, docs/benchmarks.md)"
        )
        add("--evaluation", metavar="NAME", help=text)
        add(
            "--evaluation_path",
            metavar="FOLDER",
            help="the downloaded benchmark (default: data/NAME, where 'data download' puts it)",
        )
    if name == "predict":
        add(
            "--image",
            action="append",
            default=[],
            metavar="FILE",
            help="a picture; may be repeated",
        )
        add(
            "--caption",
            action="append",
            default=[],
            metavar="TEXT",
            help="'The A is left of the B.'; may be repeated",
        )
    add(
        "--print_config",
        action="store_true",
        help="print the complete configuration, itself a page, and stop",
    )
    add(
        "-h",
        "--help",
        action="store_true",
        help="this text; with --config, every flag of that page",
    )
    return parser


def _resolve(name: str, options: argparse.Namespace, flags: list[str]) -> Resolved:
    from spatialbench.config.experiment import deep_merge, resolve

    page, *layers = options.config
    overrides: Config = deep_merge(*(_layer(path) for path in layers))
    _check_words(name, flags)
    arguments = (page, options.track, options.budget, options.seed)
    resolved = resolve(*arguments, overrides, options.runs)
    if flags:
        from spatialbench.training.build import flag_overrides

        overrides = deep_merge(overrides, flag_overrides(resolved, flags, VERB_OPTIONS))
        resolved = resolve(*arguments, overrides, options.runs)
    return resolved


def _layer(path: str) -> Config:
    """A second --config: trainer, model and data to lay over the page."""
    from spatialbench.config.pages import LAYER_KEYS, parse_yaml

    try:
        config = parse_yaml(Path(path).read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise SpatialbenchError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
        ) from error
    if not isinstance(config, dict):
        raise SpatialbenchError(f"{path}: must be a mapping with the keys {', '.join(LAYER_KEYS)}")
    for key in config:
        if key not in LAYER_KEYS:
            raise SpatialbenchError(
                f"unknown key {key!r} ({path}){did_you_mean(str(key), LAYER_KEYS)}"
            )
    return config


def _check_words(name: str, flags: Sequence[str]) -> None:
    """Refuses a word that is neither a flag nor the value of one: a page without --config, a forgotten dash."""
    value_expected = False
    for word in flags:
        if word.startswith("--"):
            value_expected = "=" not in word
        elif value_expected:
            value_expected = False
        elif word.endswith((".yaml", ".yml")):
            raise SpatialbenchError(
                f"unexpected {word!r}: did you mean 'spatialbench {name} --config {word}'?"
            )
        else:
            raise SpatialbenchError(f"unexpected {word!r}: options are --name VALUE")
