"""``spatialbench controls``: a page's controls on its track's test, printed and, where asked for, stored."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from spatialbench.config.experiment import Resolved, resolve
from spatialbench.config.signatures import prune
from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.records import RecordSet
from spatialbench.evaluation.controls.row import ControlRow, check
from spatialbench.evaluation.controls.suite import Made, of_model, relations, without_model
from spatialbench.report.controls import controls_sheet
from spatialbench.report.table_model import write
from spatialbench.results.controls_file import (
    SCHEMA_VERSION,
    ControlsFile,
    Margins,
    controls_path,
    outcomes_file,
    write_controls,
)
from spatialbench.results.files import STORED_BUDGET
from spatialbench.results.stale import ancestors, grammar_hash, page_hash, track_hash
from spatialbench.training.callbacks import Interruptions
from spatialbench.training.score import load_method, readable_errors, say
from spatialbench.utils import provenance
from spatialbench.utils.errors import SpatialbenchError


def run(options: argparse.Namespace, command: str) -> None:
    """Prints the controls, and writes them where asked to.

    Args:
        options: config, track, budget, seed, ckpt_path, runs, results, write and format, as
            ``spatialbench.cli.trust`` parses them.
        command: the whole command line, for the file.

    Raises:
        BrokenControl: an exact control does not hold; nothing is printed or written.
        SpatialbenchError: something the user gave is wrong; one line.
    """
    if options.write and options.budget != STORED_BUDGET:
        raise SpatialbenchError(
            f"--write stores the controls of the table: --budget {STORED_BUDGET}"
        )
    resolved = resolve(
        options.config, options.track, options.budget, options.seed, runs=options.runs
    )
    with Interruptions(), readable_errors(resolved):
        record_set, batch_images = test_set(resolved)
        made, absent = without_model(record_set)
        check(_rows(made, record_set))  # before a model is asked for anything
        model, _ = load_method(resolved, options.ckpt_path, Path(options.runs))
        more, missing = of_model(model, resolved.page.name, record_set, batch_images)
        file, margins = controls_of(resolved, [*made, *more], absent | missing, record_set, command)
    check(file.rows)
    if options.write:
        path = controls_path(Path(options.results), file.track, file.name)
        write_controls(path, file, margins)
        say(f"wrote {path}")
    print(write(controls_sheet([file]), options.format), end="")


def test_set(resolved: Resolved) -> tuple[RecordSet, int]:
    """The track's test, and how many pictures of it are scored at once.

    Raises:
        SpatialbenchError: the data cannot be read, or hold nothing to score.
    """
    arguments = prune(resolved.data_arguments, PairDataModule)
    data = PairDataModule(**arguments)
    data.setup("test")
    return data.test_set, data.eval_batch_images


def controls_of(
    resolved: Resolved,
    made: list[Made],
    absent: dict[str, str],
    record_set: RecordSet,
    command: str,
) -> tuple[ControlsFile, Margins]:
    """The file of these controls, and the margins that go beside it."""
    margins = _margins(made, record_set)
    page, track, budget = resolved.page, resolved.track, resolved.budget
    commit, dirty = provenance.commit()
    file = ControlsFile(
        schema_version=SCHEMA_VERSION,
        name=page.name,
        page=str(page.path),
        page_hash=page_hash(page, budget),
        track=track.name,
        track_hash=track_hash(track, budget, page),
        init_from=ancestors(page, budget, track),
        budget=budget,
        grammar=grammar_hash(),
        data_fingerprint=record_set.fingerprint,
        seed=resolved.seed,
        command=command,
        commit=commit,
        dirty=dirty,
        versions=provenance.versions(),
        outcomes=outcomes_file(page.name, margins),
        absent=absent,
        rows=[margins.row(each) for each in made],
    )
    return file, margins


def _margins(made: list[Made], record_set: RecordSet) -> Margins:
    records = record_set.records
    return Margins.of(
        made,
        np.asarray([record.record_id for record in records], dtype=np.str_),
        relations(record_set),
        np.asarray(
            [record.scene_id or f"image {record.image}" for record in records], dtype=np.str_
        ),
    )


def _rows(made: list[Made], record_set: RecordSet) -> list[ControlRow]:
    margins = _margins(made, record_set)
    return [margins.row(each) for each in made]
