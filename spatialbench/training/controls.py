"""The controls of a page: scored on its track's test, and stored beside the rows."""

from pathlib import Path

from spatialbench.config.experiment import Resolved
from spatialbench.config.signatures import prune
from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.records import RecordSet
from spatialbench.evaluation.controls.suite import Controls
from spatialbench.results.files import Row, make_row, result_path, write_row
from spatialbench.results.schema import Parameters, SeedRun
from spatialbench.training.callbacks import Interruptions
from spatialbench.training.collect import identity
from spatialbench.training.score import load_method, readable_errors, stamped
from spatialbench.utils import provenance


def test_set(resolved: Resolved) -> tuple[RecordSet, int]:
    """Return the track's test, and the number of its images scored at once.

    Raises:
        SpatialbenchError: the data cannot be read, or hold nothing to score.
    """
    data = PairDataModule(**prune(resolved.data_arguments, PairDataModule))
    data.setup("test")
    return data.test_set, data.eval_batch_images


def make_controls(resolved: Resolved, given: str | None, runs: Path) -> Row:
    """Score the controls of a page; ``given``, ``runs``: see ``run_folder.checkpoint_of``.

    Raises:
        BrokenControl: an exact control does not hold.
        SpatialbenchError: something the user gave is wrong; one line.
    """
    with Interruptions(), readable_errors(resolved):
        record_set, batch_images = test_set(resolved)
        controls = Controls(record_set, batch_images, resolved.page.name)
        model, _ = load_method(resolved, given, runs)
        evidence = controls.run(model)
        parameters = list(model.parameters())
    commit, dirty = provenance.commit()
    run = SeedRun(  # nothing was trained
        resolved.seed,
        resolved.config_hash,
        commit,
        dirty,
        provenance.versions(),
        provenance.hardware(),
        wall_seconds={},
        peak_memory_mb=0.0,
        peak_gpu_memory_mb=0.0,
        train_steps=0,
        train_pairs=None,
    )
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    return make_row(
        [run],
        {controls.name: [stamped(evidence)]},
        parameters=Parameters(sum(p.numel() for p in parameters), trainable),
        **identity(resolved.page, resolved.track, resolved.budget),
    )


def store(row: Row, results: Path) -> Path:
    """Write the controls of a page beside the rows of its track; return the path."""
    path = result_path(results, row.result.track, Controls.name, row.name)
    write_row(path, row)
    return path
