"""The section of relevance: for a record of each relation, what every row attends to, and where it looks to read the
caption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from spatialbench.data.records import Record, RecordSet
from spatialbench.report.html.elements import Html, data_uri, join, missing, tag
from spatialbench.report.html.inputs import Material
from spatialbench.report.html.record_choice import Chosen, boxes, by_id, jpeg, picture
from spatialbench.report.relevance import overlay
from spatialbench.report.stored_rows import Row
from spatialbench.results.run_folder import BEST
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError

if TYPE_CHECKING:
    from spatialbench.methods.base import Method


def maps(
    material: Material,
    records: RecordSet,
    chosen: Sequence[Chosen],
    advance: Callable[[float], None] = lambda count: None,
) -> Html:
    """Maps of the rows whose weights are here, and a line for each other row.

    Args:
        records: the test set. chosen: which of them.
        advance: told of every row that is done.
    """
    known = by_id(records.records)
    shown = [known[str(material.rows[0].outcomes.record_ids[one.place])] for one in chosen]
    pictures = [picture(records, record) for record in shown]
    columns: dict[str, dict[str, list[Image.Image]]] = {}
    gone = []
    for row in material.rows:
        try:
            columns[row.result.name] = {
                kind: [overlay(*pair) for pair in zip(pictures, found, strict=True)]
                for kind, found in _row(material, row, records, shown).items()
            }
        except SpatialbenchError as error:
            gone.append(f"{row.result.name}: {' '.join(str(error).split())}")
        advance(1)
    parts = []
    for place, record in enumerate(shown if columns else []):
        figures = [_figure("picture", pictures[place], record)]
        for name, kinds in columns.items():
            pair = [_figure(f"{name}, {kind}", made[place], record) for kind, made in kinds.items()]
            figures.append(tag("div", pair, class_="pair"))
        parts += [tag("h3", f"“{record.statement.caption}”"), tag("div", figures, class_="maps")]
    count = f"{len(gone)} of {len(material.rows)} rows without a map"
    summary = f"{count}: mostly as their checkpoints are not on this machine"
    return join(parts, missing(summary, gone))


def _row(
    material: Material, row: Row, records: RecordSet, shown: Sequence[Record]
) -> dict[str, list[np.ndarray]]:
    """Attention and relevance of every record, by the weights of the row's first seed.

    Raises:
        SpatialbenchError: the weights are not here, or not those of the page.
    """
    import torch

    from spatialbench.evaluation.relevance import attention, relevance

    model = _model(material, row)
    found: dict[str, list[np.ndarray]] = {"attention": [], "relevance": []}
    for record in shown:
        pixels = torch.tensor(np.array(records.images[record.image])).permute(2, 0, 1)[None]
        found["attention"].append(attention(model, pixels)[0].numpy())
        found["relevance"].append(relevance(model, pixels, record.statement.caption)[0].numpy())
    return found


def _model(material: Material, row: Row) -> Method:
    from spatialbench.config.experiment import resolve
    from spatialbench.training.score import load_method, readable_errors

    today, result = Today.read(material.benchmarks), row.result
    if row.stale:
        raise SpatialbenchError(f"the row is stale ({', '.join(row.stale)}): no map")
    page, track = today.pages[result.name], today.tracks[result.track]
    resolved = resolve(page, track, result.budget, result.seeds[0], runs=material.runs)
    checkpoint = None
    if resolved.needs_training or resolved.init_from is not None:
        folder = material.run_folder(row, 0)
        known = [path for path in (folder / BEST, folder / "last.ckpt") if path.is_file()]
        if not known:
            raise SpatialbenchError(f"no checkpoint in {folder}: no map")
        checkpoint = str(known[0])
    with readable_errors(resolved):
        return load_method(resolved, checkpoint, material.runs)[0]


def _figure(name: str, image: Image.Image, record: Record) -> Html:
    """A picture with the boxes of the subject and the object."""
    width, height = 100 * image.width / image.height, 100.0
    drawn = [
        tag(
            "rect",
            **{
                "x": round(x * width / 100, 2),
                "y": y,
                "width": round(w * width / 100, 2),
                "height": h,
            },
            class_=f"box box{place}",
        )
        for place, (_, x, y, w, h) in enumerate(boxes(record))
    ]
    content = tag(
        "image", href=data_uri(jpeg(image), "image/jpeg"), width=round(width, 2), height=height
    )
    label = f"{name}: {record.statement.caption}"
    svg = tag(
        "svg", content, drawn, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=label
    )
    return tag("figure", svg, tag("figcaption", name))
