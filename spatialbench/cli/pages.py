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

if TYPE_CHECKING:
    from spatialbench.config.experiment import Resolved
    from spatialbench.evaluation.base import Evaluation
    from spatialbench.training.build import Built

_STARTED = time.perf_counter()
VERBS = {
    "fit": "train a page, test its last checkpoint, print the table, write the run folder",
    "validate": "score the validation set with a checkpoint of a page",
    "test": "score the test set, or --data.path FILE.json, with a checkpoint of a page",
    "predict": "an image of your own (--image, --caption), or the test set record by record",
}


def run(name: str, argv: list[str]) -> int:
    """Run one of ``VERBS``."""
    parser = _parser(name)
    options, flags = parser.parse_known_args(argv)
    _check_words(name, flags)
    if not options.config and not options.help:
        raise SpatialbenchError(
            f"spatialbench {name} needs --config PAGE.yaml; 'spatialbench list' shows the pages"
        )
    if name == "fit" and options.ckpt_path:
        raise SpatialbenchError(
            "fit resumes from its run folder by itself; --ckpt_path is for validate, test, predict"
        )
    if options.help:
        parser.print_help()
    if not options.config:
        return 0
    resolved = _resolve(options, flags, parser.flags)
    if options.help or options.print_config:
        from spatialbench.training.build import describe, dump_config

        every = f"\nEvery flag of {resolved.page.path}:\n\n{describe(resolved.config)}"
        print(every if options.help else dump_config(resolved).rstrip("\n"))
    elif name == "fit":
        from spatialbench.training.fit import fit

        fit(resolved, force=options.force, started=_STARTED)
    elif name == "test" and (options.evaluation or options.evaluation_path):
        _evaluate(resolved, options)
    else:
        _score(name, resolved, options)
    return 0


def _parser(name: str) -> Parser:
    example = "--trainer.max_steps 100 --model.init_args.finetuning.lr 1e-3 --data.path FILE.json"
    more = (
        f"Any LightningCLI flag may follow: {example}; with --config PAGE, --help lists them all."
    )
    parser = Parser(name, VERBS[name], add_help=False, epilog=more)
    parser.add("--config", "the page; further files are laid over it", "PAGE.yaml", action="append")
    parser.common("track", "seed", "runs", budget="quick")
    if name == "fit":
        parser.add("--ckpt_path", argparse.SUPPRESS)
        parser.flag("--force", "start from nothing, whatever was run before")
    else:
        parser.common("ckpt_path", format="json|text")
    if name == "test":
        text = (
            "one evaluation in place of the pairs: one that the track lists, controls, or a "
            "published benchmark: mmvp, whatsup, vsr, sugarcrepe, aro, cvbench, cocoqa, vgqa, "
            "spatialsense (docs/benchmarks.md)"
        )
        parser.add("--evaluation", text, "NAME")
        text = "the downloaded benchmark (default: data/NAME, where 'data download' puts it)"
        parser.add("--evaluation_path", text, "FOLDER")
    if name == "predict":
        parser.add("--image", "an image; may be repeated", "FILE", action="append", default=[])
        text = "'The A is left of the B.'; may be repeated"
        parser.add("--caption", text, "TEXT", action="append", default=[])
    parser.flag("--print_config", "print the complete configuration, itself a page, and stop")
    text = "this text; with --config, every flag of that page"
    parser.add_argument("-h", "--help", action="store_true", help=text)
    return parser


def _resolve(options: argparse.Namespace, flags: list[str], known: list[str]) -> Resolved:
    from spatialbench.config.experiment import deep_merge, resolve
    from spatialbench.config.pages import LAYER_KEYS, read_mapping

    page, *layers = options.config
    files = (read_mapping(Path(path), "file", LAYER_KEYS)[1] for path in layers)
    overrides = deep_merge(*files)
    arguments = (page, options.track, options.budget, options.seed)
    resolved = resolve(*arguments, overrides, options.runs)
    if flags:
        from spatialbench.training.build import flag_overrides

        overrides = deep_merge(overrides, flag_overrides(resolved, flags, known))
        resolved = resolve(*arguments, overrides, options.runs)
    return resolved


def _check_words(name: str, flags: Sequence[str]) -> None:
    """Refuse a word that is neither a flag nor its value: a page without --config, a lost dash."""
    value_expected = False
    for word in flags:
        if not word.startswith("--") and not value_expected:
            page = word.endswith((".yaml", ".yml"))
            hint = f": did you mean 'spatialbench {name} --config {word}'?" if page else ""
            raise SpatialbenchError(f"unexpected {word!r}{hint}")
        value_expected = word.startswith("--") and "=" not in word


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
                f"page {resolved.page.path} has no pair test; 'spatialbench validate' scores it"
            )
        elif name == "test":
            _test(resolved, built, checkpoint, options)
        else:
            _predict(built, checkpoint, options)


def _test(
    resolved: Resolved, built: Built, checkpoint: Path | None, options: argparse.Namespace
) -> None:
    from spatialbench.evaluation.pairs import PairEvaluation
    from spatialbench.report.run_table import evidence_json, print_evidence
    from spatialbench.results.schema import PAIRS
    from spatialbench.training.score import evaluate_all, open_evaluations, test

    opened = open_evaluations(resolved)  # missing data is an error before the test
    evidence = {PAIRS: test(built, checkpoint), **evaluate_all(built, opened)}
    classes: dict[str, type[Evaluation]] = {PAIRS: PairEvaluation}
    classes |= {name: spec.cls for name, (spec, _) in opened.items()}
    if options.format == "json":
        made = {name: evidence_json(own, classes[name].unit) for name, own in evidence.items()}
        print(json.dumps(made, indent=2))
        return
    where = resolved.data_arguments.get("path") or "its test set"
    for name, own in evidence.items():
        title = f"{resolved.label} on {where}" if name == PAIRS else classes[name].title
        print_evidence(title, own, classes[name])


def _evaluate(resolved: Resolved, options: argparse.Namespace) -> None:
    """One evaluation in place of the pairs, with what is published of OpenAI's CLIP."""
    from spatialbench.report.published import published_columns, read_published
    from spatialbench.report.run_table import evidence_json, print_evidence
    from spatialbench.training.callbacks import Interruptions
    from spatialbench.training.score import load_method, readable_errors, stamped

    if options.evaluation is None:
        raise SpatialbenchError("--evaluation_path needs --evaluation NAME")
    published = read_published(Path("results"), options.evaluation)
    with Interruptions(), readable_errors(resolved):
        evaluation, settings = _opened(resolved, options.evaluation, options.evaluation_path)
        model, _ = load_method(resolved, options.ckpt_path, Path(options.runs))
        evidence = stamped(evaluation.run(model), settings)
    details = evaluation.details(evidence)
    if options.format == "json":
        known = {measure: number.clip for measure, number in published.items()}
        made = {"evaluation": options.evaluation, **evidence_json(evidence, evaluation.unit)}
        print(json.dumps({**made, **details.facts, "published": known}, indent=2))
        return
    columns, footer = published_columns(published)
    title = f"{resolved.label}: {options.evaluation}"
    more, lines = {**details.columns, **columns}, [*details.lines, footer]
    print_evidence(title, evidence, evaluation, more, "\n".join(lines))


def _opened(resolved: Resolved, name: str, path: str | None) -> tuple[Evaluation, str]:
    """Open an evaluation; also return the hash of its settings."""
    from spatialbench.config.evaluations import named_evaluation
    from spatialbench.evaluation.controls.suite import Controls
    from spatialbench.training.controls import test_set

    if name == Controls.name and path is None:
        return Controls(*test_set(resolved), resolved.page.name), ""
    spec = named_evaluation(name, resolved.track, resolved.budget, path)
    return spec.load(), spec.settings


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
