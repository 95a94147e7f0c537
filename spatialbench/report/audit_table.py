"""The audit: what each flaw of the poster's protocol is worth, in points.

With a(p, f) the accuracy of page p under flaw f, and a(p) that without any:

    (1)  effect on a page      a(p, f) - a(p)
    (2)  gain                  a(spatial_attn) - a(clip_finetune)
    (3)  effect on the gain    the gain under f, minus (2)

All rows answer the same records. The bootstrap draws scenes once for all rows, and seeds once for
each page: (1) to (3) are paired over scenes, and over seeds with and without a flaw, since seed k
draws the same training batches. What ``recount`` leaves out has no denominator.

Letters: S seeds, N records, B resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spatialbench.config.flaws import PAGES, Flaw, Recount, read_flaws
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.bootstrap import RESAMPLES, Interval, percentiles
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.ratio import Ratio, correctness
from spatialbench.report.differences import Gain, stream
from spatialbench.report.evaluation_table import shown_name
from spatialbench.report.table_model import Column, Record, Table, interval_cell, number
from spatialbench.results.files import AUDIT, STORED_BUDGET, Row, result_path
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError

COLUMNS = {"all": RELATIONS, "side": ("left", "right")}
TITLES = {"all": "All", "side": "left, right"}
"""Column -> the relations that it counts, and its title."""
GAIN = "gain"
BUDGETS = (STORED_BUDGET, "quick")
"""The first with an audit is in results/README.md."""
NONE = Flaw("none", "the corrected protocol: the track as it is.")
INTRODUCTION = """\
The poster's protocol, flaw by flaw, in miniature. The line *none* has the accuracy of both rows
under the corrected protocol, and the gain: the second minus the first. Every other line has the
effect of one flaw on these, in points. Nothing here is made to come near the poster's numbers
([docs/audit.md](../docs/audit.md))."""
METHOD = (
    "In brackets: 95 % intervals, bootstrap over scenes and seeds. All rows answer the same "
    "records, so effects are paired over scenes, and over seeds with and without a flaw. "
    "Recounted: from the stored margins, without training. 0: the flaw changes nothing."
)

Rows = Mapping[tuple[str, str], Row]
"""Stored rows by flaw and page."""


def audit_table(results: str | Path, benchmarks: str | Path, track: str, budget: str) -> Table:
    """Make the table of the stored rows of an audit.

    Raises:
        SpatialbenchError: the rows without a flaw are missing, or a row is damaged.
    """
    flaws = [NONE, *read_flaws(Path(benchmarks))]
    rows = _read(Path(results), Path(benchmarks), track, budget, flaws)
    if not _begun(rows):
        command = f"spatialbench audit --track {track} --budget {budget}"
        raise SpatialbenchError(f"no audit of {track} at budget {budget} in {results}: {command}")
    return table_of(rows, flaws)


def section(results: Path, benchmarks: Path, track: str) -> list[str]:
    """Lines of results/README.md; none without a stored audit of the track."""
    flaws = [NONE, *read_flaws(benchmarks)]
    for budget in BUDGETS:
        if _begun(rows := _read(results, benchmarks, track, budget, flaws)):
            table = table_of(rows, flaws)
            lines = [*INTRODUCTION.splitlines(), "", *table.markdown(), "", *table.notes]
            return [f"### Audit of the poster, budget {budget}", "", *lines]
    return []


def _begun(rows: Rows) -> bool:
    return all((NONE.name, page) in rows for page in PAGES)


def _read(results: Path, benchmarks: Path, track: str, budget: str, flaws: Sequence[Flaw]) -> Rows:
    """Read the rows that are stored; those of a flaw count only with the seeds of its page."""
    rows: dict[tuple[str, str], Row] = {}
    if not (results / AUDIT).is_dir():
        return rows
    today = Today.read(benchmarks, audit=True)
    for flaw in flaws:
        name = track if flaw is NONE else f"{track}+{flaw.name}"
        for page in PAGES:
            path = result_path(results / AUDIT, name, budget, page)
            row = today.read_row(path) if path.is_file() else None
            plain = rows.get((NONE.name, page), row)
            if row and plain and row.result.seeds == plain.result.seeds:
                rows[flaw.name, page] = row
    return rows


def counted(evidence: Evidence, recount: Recount, relations: Sequence[str]) -> Ratio:
    """Accuracy of some relations, counted in the way of a flaw; [S, N, 1] each."""
    margins, group = evidence.answers(), evidence.known_margins.group
    correct = margins > 0 if recount.ties_wrong else correctness(margins)
    counts = np.isin(group, relations)
    for relation in RELATIONS if recount.drop_last else ():
        own = np.flatnonzero(group == relation)
        counts[own[len(own) // recount.drop_last * recount.drop_last :]] = False
    above = (correct * counts).astype(np.float32)[..., None]
    return Ratio(above, np.broadcast_to(counts.astype(np.float32)[:, None], above.shape))


def levels(rows: Rows, flaw: Flaw, column: str) -> dict[str, np.ndarray]:
    """Accuracy of both pages under a flaw, and the gain (2): [1 + B], in every resample after all.

    NaN where a row is missing.
    """
    first, found = rows[NONE.name, PAGES[0]].pairs, []
    for page in PAGES:
        trained = flaw.layer and page in flaw.pages
        row = rows.get((flaw.name if trained else NONE.name, page))
        if row is None:
            found.append(np.full(1 + RESAMPLES, np.nan))
            continue
        ratio = counted(row.pairs.aligned(first), flaw.recount, COLUMNS[column])
        samples = first.resampler.samples(ratio, stream(page))
        found.append(np.append(np.mean(ratio.seeds), samples))
    return dict(zip((*PAGES, GAIN), (*found, found[1] - found[0]), strict=True))


def table_of(rows: Rows, flaws: Sequence[Flaw]) -> Table:
    """Make the table of the rows without a flaw, which must be there, and of those with one."""
    records = []
    for column in COLUMNS:
        plain = levels(rows, NONE, column)
        for flaw in flaws:
            values = plain if flaw is NONE else levels(rows, flaw, column)
            own = [rows[key].stale for key in rows if key[0] == flaw.name]
            record: dict[str, Any] = {"name": flaw.name, "about": flaw.about, "column": column}
            record["stale"] = "; ".join(dict.fromkeys(why for row in own for why in row))
            for name, samples in values.items():
                samples = samples if flaw is NONE else samples - plain[name]
                record |= _rounded(name, samples)
            records.append(record)
    columns = [
        Column("", lambda r: shown_name(r["name"], r["stale"]), "name"),
        Column("of", lambda r: TITLES[r["column"]], "column"),
        *(Column(name, partial(_cell, name=name), name) for name in (*PAGES, GAIN)),
    ]
    result = rows[NONE.name, PAGES[0]].result
    title = f"{result.track}, budget {result.budget}: the poster's flaws, in points"
    return Table(title, columns, records, _notes(rows, flaws, records), left=2)


def _rounded(name: str, samples: np.ndarray) -> dict[str, float | None]:
    interval = percentiles(samples[1:])
    keys = (name, f"{name}_low", f"{name}_high")
    if interval is None:
        return dict.fromkeys(keys)
    values = (float(samples[0]), *interval)
    return {key: round(value, 4) for key, value in zip(keys, values, strict=True)}


def _cell(record: Record, name: str) -> str:
    points, low, high = (record[f"{name}{end}"] for end in ("", "_low", "_high"))
    if points is None:
        return "–"
    if record["name"] == NONE.name and name != GAIN:
        return f"{number(points)} ({interval_cell((low, high))})"
    return Gain(points, Interval(low, high)).text if points or low or high else "0"


def _notes(rows: Rows, flaws: Sequence[Flaw], records: Sequence[Record]) -> list[str]:
    first = rows[NONE.name, PAGES[0]].result
    about = [
        f"- {flaw.name}: {flaw.about}{' Recounted.' if not flaw.layer and flaw is not NONE else ''}"
        for flaw in flaws
    ]
    left = [f"{_gain(rows, flaw)} under {flaw.name}" for flaw in flaws if flaw.of]
    gains = ", ".join([f"Gain on All: {_gain(rows, NONE)} under the corrected protocol", *left])
    command = f"spatialbench audit --track {first.track} --budget {first.budget}"
    missing = any(record[GAIN] is None for record in records)
    data = f"{first.pairs.units} records, data {first.pairs.data}, seeds {first.seeds}."
    lines = [*about, "", f"{gains}.", "", f"{METHOD} {data}"]
    return [*lines, "", f"A dash: not made yet; {command}"] if missing else lines


def _gain(rows: Rows, flaw: Flaw) -> str:
    values = _rounded(GAIN, levels(rows, flaw, "all")[GAIN])
    return _cell({"name": NONE.name, **values}, GAIN)
