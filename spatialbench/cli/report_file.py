"""``spatialbench report``: the HTML report, with the maps of the models that are there."""

from pathlib import Path

import numpy as np

from spatialbench.cli.maps import both_maps
from spatialbench.cli.parser import Parser, count
from spatialbench.config.experiment import resolve
from spatialbench.methods.base import Method
from spatialbench.report.html.inputs import ReportInputs
from spatialbench.report.html.page import html
from spatialbench.report.html.record_browser import RowMaps, Sample, sample
from spatialbench.results.files import Row
from spatialbench.results.run_folder import RunRecord
from spatialbench.results.stale import Today
from spatialbench.training.score import load_method, readable_errors
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.progress import progress


def report(argv: list[str]) -> int:
    """Run ``spatialbench report``."""
    parser = Parser("report", "one offline HTML file: tables, figures, records, provenance")
    parser.common("track", "runs", "results", "benchmarks", budget="full")
    out = "results/report.html"
    parser.add("--out", f"default: {out}", "FILE.html", default=out)
    text = "records of each relation with images; 0: none (default: 12)"
    parser.add("--records", text, "N", type=count, default=12)
    parser.flag("--no-maps", "leave out the relevance maps, which need the models")
    o = parser.parse_args(argv)
    results, benchmarks, runs = (Path(path) for path in (o.results, o.benchmarks, o.runs))
    inputs = ReportInputs.read(results, benchmarks, o.track, o.budget, runs)
    chosen: Sample | str | None = None
    if o.records:
        try:
            chosen = sample(inputs, o.records)
        except SpatialbenchError as error:
            chosen = " ".join(str(error).split())
    maps: dict[str, RowMaps | str] | None = None
    if o.records and not o.no_maps:
        maps = row_maps(inputs, chosen) if isinstance(chosen, Sample) else {}
    write_atomic(o.out, html(inputs, chosen, maps))
    print(f"{o.out}: {Path(o.out).stat().st_size / 1e6:.1f} MB")
    return 0


def row_maps(inputs: ReportInputs, sample: Sample) -> dict[str, RowMaps | str]:
    """Compute both maps of every row for the records of the report, or say why there are none."""
    maps: dict[str, RowMaps | str] = {}
    with progress("computing maps", len(inputs.rows), "rows") as advance:
        for row in inputs.rows:
            try:
                model = _model_of_row(inputs, row)
                own: dict[str, list[np.ndarray]] = {"attention": [], "relevance": []}
                for record in sample.mapped:
                    pixels = np.array(sample.test.images[record.image])
                    for kind, values in both_maps(model, pixels, record.statement.caption).items():
                        own[kind].append(values)
                maps[row.name] = own
            except SpatialbenchError as error:
                maps[row.name] = " ".join(str(error).split())
            advance(1)
    return maps


def _model_of_row(inputs: ReportInputs, row: Row) -> Method:
    """Load the method with the weights of the row's first seed."""
    today, result = Today.read(inputs.benchmarks), row.result
    if row.stale:
        raise SpatialbenchError(f"the row is stale ({', '.join(row.stale)}): no map")
    page, track = today.pages[result.name], today.tracks[result.track]
    resolved = resolve(page, track, result.budget, result.seeds[0], runs=inputs.runs)
    checkpoint = None
    if resolved.needs_training or resolved.init_from is not None:
        folder = inputs.run_folder(row, 0)
        scored = RunRecord(folder, {}).scored
        if not scored.is_file():
            raise SpatialbenchError(f"no checkpoint in {folder}: no map")
        checkpoint = str(scored)
    with readable_errors(resolved):
        return load_method(resolved, checkpoint, inputs.runs)[0]
