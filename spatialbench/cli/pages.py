"""The commands on one page: fit, validate, test and predict."""

from __future__ import annotations

import argparse
import json
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
    from spatialbench.training.build import Built

_STARTED = time.perf_counter()
VERBS = {
    "fit": "train a page, test its last checkpoint, print the table, write the run folder",
    "validate": "score the validation set with a checkpoint of a page",
    "test": "score the test set, or --data.path FILE.json, with a checkpoint of a page",
    "predict": "an image of your own (--image, --caption), or the test set record by record",
}
OPTIONS = (
    *("--config", "--track", "--budget", "--seed", "--runs", "--ckpt_path", "--force"),
    *("--evaluation", "--evaluation_path"),
    *("--image", "--caption", "--format", "--print_config", "--help"),
)


def run(name: str, argv: list[str]) -> int:
    """Run one of ``VERBS``.

    Raises:
        SpatialbenchError: something the user gave is wrong; one line.
    """
    parser = _parser(name)
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
            "fit resumes from its run folder by itself; --ckpt_path is for validate, test, predict"
        )
    resolved = _resolve(name, options, flags)
    if options.help or options.print_config:
        from spatialbench.training.build import describe, dump_config

        if options.help:
            parser.print_help()
            print(f"\nEvery flag of {resolved.page.path}:\n\n{describe(resolved.config)}")
        else:
            print(dump_config(resolved), end="")
        return 0
    if name == "fit":
        from spatialbench.training.fit import fit

        fit(resolved, force=options.force, started=_STARTED)
    elif name == "test" and (options.evaluation or options.evaluation_path):
        _evaluate(resolved, options)
    else:
        _score(name, resolved, options)
    return 0


def _parser(name: str) -> Parser:
    parser = Parser(
        name,
        VERBS[name],
        add_help=False,
        epilog="Any LightningCLI flag may follow: --trainer.max_steps 100 "
        "--model.init_args.finetuning.lr 1e-3 --data.path FILE.json; with --config PAGE, --help "
        "lists them all.",
    )
    add = parser.add_argument
    text = "the page; further files are laid over it"
    add("--config", action="append", metavar="PAGE.yaml", help=text)
    parser.common("track", "seed", "runs", budget="quick")
    if name == "fit":
        add("--ckpt_path", help=argparse.SUPPRESS)
        add("--force", action="store_true", help="start from nothing, whatever was run before")
    else:
        parser.common("ckpt_path", format="json|text")
    if name == "test":
        text = (
            "one evaluation in place of the pairs: one that the track lists, controls, or a "
            "published benchmark: mmvp, whatsup, vsr, sugarcrepe, aro, cvbench, cocoqa, vgqa, "
            "spatialsense (docs/benchmarks.md)"
        )
        add("--evaluation", metavar="NAME", help=text)
        text = "the downloaded benchmark (default: data/NAME, where 'data download' puts it)"
        add("--evaluation_path", metavar="FOLDER", help=text)
    if name == "predict":
        text = "an image; may be repeated"
        add("--image", action="append", default=[], metavar="FILE", help=text)
        text = "'The A is left of the B.'; may be repeated"
        add("--caption", action="append", default=[], metavar="TEXT", help=text)
    text = "print the complete configuration, itself a page, and stop"
    add("--print_config", action="store_true", help=text)
    text = "this text; with --config, every flag of that page"
    add("-h", "--help", action="store_true", help=text)
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

        overrides = deep_merge(overrides, flag_overrides(resolved, flags, OPTIONS))
        resolved = resolve(*arguments, overrides, options.runs)
    return resolved


def _layer(path: str) -> Config:
    """Read a second --config: trainer, model and data to lay over the page."""
    from spatialbench.config.pages import LAYER_KEYS, parse_yaml

    try:
        config = parse_yaml(Path(path).read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpatialbenchError(f"cannot read {path}: {reason}") from error
    if not isinstance(config, dict):
        raise SpatialbenchError(f"{path}: must be a mapping with the keys {', '.join(LAYER_KEYS)}")
    for key in config:
        if key not in LAYER_KEYS:
            near = did_you_mean(str(key), LAYER_KEYS)
            raise SpatialbenchError(f"unknown key {key!r} ({path}){near}")
    return config


def _check_words(name: str, flags: Sequence[str]) -> None:
    """Refuse a word that is neither a flag nor its value: a page without --config, a lost dash."""
    value_expected = False
    for word in flags:
        if word.startswith("--"):
            value_expected = "=" not in word
        elif value_expected:
            value_expected = False
        else:
            page = word.endswith((".yaml", ".yml"))
            hint = f": did you mean 'spatialbench {name} --config {word}'?" if page else ""
            raise SpatialbenchError(f"unexpected {word!r}{hint}")


def _score(name: str, resolved: Resolved, options: argparse.Namespace) -> None:
    """Validate, test or predict."""
    from spatialbench.methods.base import Method
    from spatialbench.results.run_folder import checkpoint_of
    from spatialbench.training.build import build
    from spatialbench.training.callbacks import Interruptions, StepProgress
    from spatialbench.training.score import readable_errors, validate
    from spatialbench.utils.say import say

    checkpoint, notes = checkpoint_of(resolved, options.ckpt_path, Path(options.runs))
    for note in notes:
        say(note)
    with Interruptions(), readable_errors(resolved):
        built = build(resolved, [StepProgress(resolved.page.name)])
        if name == "validate":
            metrics = validate(built, checkpoint)
            lines = (f"{metric:<12} {value:8.3f}" for metric, value in metrics.items())
            as_json = options.format == "json"
            print(json.dumps(metrics, indent=2) if as_json else "\n".join(lines))
        elif not isinstance(built.model, Method):
            raise SpatialbenchError(
                f"page {resolved.page.path} has no pair test; 'spatialbench validate' scores it on "
                "its own task"
            )
        elif name == "test":
            _test(resolved, built, checkpoint, options)
        else:
            _predict(built, checkpoint, options)


def _test(
    resolved: Resolved, built: Built, checkpoint: Path | None, options: argparse.Namespace
) -> None:
    from spatialbench.evaluation.base import Evaluation
    from spatialbench.evaluation.evidence import Evidence
    from spatialbench.evaluation.pairs import PairEvaluation
    from spatialbench.report.run_table import evidence_json, print_evidence
    from spatialbench.training.score import evaluate_all, open_evaluations, test

    opened = open_evaluations(resolved)  # missing data is an error before the test
    found: dict[str, tuple[type[Evaluation], Evidence]] = {}
    found["pairs"] = PairEvaluation, test(built, checkpoint)
    for name, seen in evaluate_all(built, opened).items():
        found[name] = opened[name][0].cls, seen
    if options.format == "json":
        made = {name: evidence_json(seen, cls.unit) for name, (cls, seen) in found.items()}
        print(json.dumps(made, indent=2))
        return
    where = resolved.data_arguments.get("path") or "its test set"
    for name, (cls, seen) in found.items():
        print_evidence(f"{resolved.label} on {where}" if name == "pairs" else cls.title, seen, cls)


def _evaluate(resolved: Resolved, options: argparse.Namespace) -> None:
    """One evaluation in place of the pairs, with what is published of OpenAI's CLIP."""
    from spatialbench.config.evaluations import named_evaluation
    from spatialbench.report.published import published_columns, read_published
    from spatialbench.report.run_table import evidence_json, print_evidence
    from spatialbench.training.callbacks import Interruptions
    from spatialbench.training.score import evaluate, load_method, readable_errors

    if options.evaluation is None:
        raise SpatialbenchError("--evaluation_path needs --evaluation NAME: say which")
    spec = named_evaluation(
        options.evaluation, resolved.track, resolved.budget, options.evaluation_path
    )
    published = read_published(Path("results"), options.evaluation)
    with Interruptions(), readable_errors(resolved):
        evaluation = spec.load()
        model, _ = load_method(resolved, options.ckpt_path, Path(options.runs))
        evidence = evaluate(model, spec, evaluation)
    if options.format == "json":
        known = {measure: number.clip for measure, number in published.items()}
        made = {"evaluation": spec.name, **evidence_json(evidence, evaluation.unit)}
        print(json.dumps({**made, "published": known}, indent=2))
        return
    columns, footer = published_columns(published)
    title = f"{resolved.label}: {spec.name}"
    print_evidence(title, evidence, evaluation, columns, footer)


def _predict(built: Built, checkpoint: Path | None, options: argparse.Namespace) -> None:
    from spatialbench.training import predict

    if not options.image:
        if options.caption:
            raise SpatialbenchError("--caption needs an image: --image FILE")
        for record in predict.predict_records(built, checkpoint):
            print(json.dumps(record))
        return
    verdicts = predict.predict(built, checkpoint, options.image, options.caption)
    if options.format == "json":
        print(json.dumps([verdict.as_json() for verdict in verdicts], indent=2))
    else:
        predict.show(verdicts)
