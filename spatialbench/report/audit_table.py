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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

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
from spatialbench.results.schema import Result
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError

COLUMNS = {"all": RELATIONS, "side": ("left", "right")}
TITLES = {"all": "All", "side": "left, right"}
"""Column -> the relations that it counts, and its title."""
GAIN = "gain"
BUDGETS = (STORED_BUDGET, "quick")
"""The first with an audit is in results/README.md."""
INTRODUCTION = """\
The poster's protocol, flaw by flaw, in miniature. The first line has the accuracy of both rows
under the corrected protocol, and the gain: the second minus the first. Every other line has the
effect of one flaw on these, in points. Nothing here is made to come near the poster's numbers
([docs/audit.md](../docs/audit.md))."""
METHOD = (
    "In brackets: 95 % intervals, bootstrap over scenes and seeds. All rows answer the same "
    "records, so effects are paired over scenes, and over seeds with and without a flaw. "
    "Recounted: from stored margins, without training. 0: the flaw changes nothing."
)


@dataclass(frozen=True)
class Audit:
    """The stored rows of an audit."""

    flaws: Sequence[Flaw]  # the first is none
    rows: Mapping[tuple[str, str], Row]  # by flaw and page; those of the first are there

    @classmethod
    def read(cls, results: Path, benchmarks: Path, track: str, budget: str) -> Self | None:
        """Read what is stored; None without the rows of the first flaw.

        Rows of other seeds than those of the first are left out: they are being made again.

        Raises:
            SpatialbenchError: a damaged row or file of flaws.
        """
        flaws, rows = read_flaws(benchmarks), dict[tuple[str, str], Row]()
        if not flaws or not (results / AUDIT).is_dir():
            return None
        today = Today.read(benchmarks, audit=True)
        for flaw in flaws:
            for page in PAGES:
                path = result_path(results / AUDIT, f"{track}+{flaw.name}", budget, page)
                if not path.is_file():
                    continue
                row = today.read_row(path)
                if rows.get((flaws[0].name, page), row).result.seeds == row.result.seeds:
                    rows[flaw.name, page] = row
        begun = all((flaws[0].name, page) in rows for page in PAGES)
        return cls(flaws, rows) if begun else None

    def levels(self, flaw: Flaw, column: str) -> dict[str, np.ndarray]:
        """Accuracy of both pages under a flaw, and the gain (2), then of every resample: [1 + B].

        NaN where a row is missing.
        """
        first, found = self.rows[self.flaws[0].name, PAGES[0]].pairs, []
        for page in PAGES:
            own = flaw if flaw.trained and page in flaw.pages else self.flaws[0]
            row = self.rows.get((own.name, page))
            if row is None:
                found.append(np.full(1 + RESAMPLES, np.nan))
                continue
            ratio = counted(row.pairs.aligned(first), flaw.recount, COLUMNS[column])
            samples = first.resampler.samples(ratio, stream(page))
            found.append(np.append(np.mean(ratio.seeds), samples))
        return dict(zip((*PAGES, GAIN), (*found, found[1] - found[0]), strict=True))

    def record(self, flaw: Flaw, column: str) -> Record:
        """One line: levels of the first flaw, effects of another."""
        levels = self.levels(flaw, column)
        if flaw is not self.flaws[0]:
            plain = self.levels(self.flaws[0], column)
            levels = {name: samples - plain[name] for name, samples in levels.items()}
        stale = [why for key, row in self.rows.items() if key[0] == flaw.name for why in row.stale]
        facts: dict[str, Any] = {"name": flaw.name, "about": flaw.about, "column": column}
        facts |= {"stale": "; ".join(dict.fromkeys(stale)), "effect": flaw is not self.flaws[0]}
        return facts | {key: x for name in levels for key, x in _rounded(name, levels[name])}

    def table(self) -> Table:
        """Return the table."""
        result = self.rows[self.flaws[0].name, PAGES[0]].result
        columns = [
            Column("", lambda r: shown_name(r["name"], r["stale"]), "name"),
            Column("of", lambda r: TITLES[r["column"]], "column"),
            *(Column(name, partial(_cell, name=name), name) for name in (*PAGES, GAIN)),
        ]
        records = [self.record(flaw, column) for column in COLUMNS for flaw in self.flaws]
        track = result.track.partition("+")[0]
        title = f"{track}, budget {result.budget}: the poster's protocol, flaw by flaw"
        return Table(title, columns, records, self._notes(result, records), left=2)

    def _notes(self, result: Result, records: Sequence[Record]) -> list[str]:
        about = [
            f"- {flaw.name}: {flaw.about}{'' if flaw.trained else ' Recounted.'}"
            for flaw in self.flaws
        ]
        gains = []
        for flaw in (each for each in self.flaws if each is self.flaws[0] or each.of):
            gain = dict(_rounded(GAIN, self.levels(flaw, "all")[GAIN]))
            gains.append(f"{_cell({**gain, 'effect': True}, GAIN)} under {flaw.name}")
        seeds = ", ".join(map(str, result.seeds))
        data = f"{result.pairs.units} records, data {result.pairs.data}; seeds {seeds}."
        lines = [*about, "", f"Gain on All: {', '.join(gains)}.", "", f"{METHOD} {data}"]
        if any(record[GAIN] is None for record in records):
            lines += ["", f"A dash: not made yet; {result.command}"]
        return lines


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


def _rounded(name: str, samples: np.ndarray) -> Iterator[tuple[str, float | None]]:
    """Yield a value and the bounds of its interval, by their keys in a record."""
    interval = percentiles(samples[1:])
    values = (None, None, None) if interval is None else (float(samples[0]), *interval)
    for end, value in zip(("", "_low", "_high"), values, strict=True):
        yield f"{name}{end}", None if value is None else round(value, 4)


def _cell(record: Record, name: str) -> str:
    points, low, high = (record[f"{name}{end}"] for end in ("", "_low", "_high"))
    if points is None:
        return "–"
    if not record["effect"] and name != GAIN:
        return f"{number(points)} ({interval_cell((low, high))})"
    return Gain(points, Interval(low, high)).text if points or low or high else "0"


def audit_table(results: str | Path, benchmarks: str | Path, track: str, budget: str) -> Table:
    """Make the table of a stored audit.

    Raises:
        SpatialbenchError: there is none, or a row is damaged.
    """
    audit = Audit.read(Path(results), Path(benchmarks), track, budget)
    if audit is None:
        command = f"spatialbench audit --track {track} --budget {budget}"
        raise SpatialbenchError(f"no audit of {track} at budget {budget} in {results}: {command}")
    return audit.table()


def section(results: Path, benchmarks: Path, track: str) -> list[str]:
    """Lines of results/README.md; none without a stored audit of the track."""
    for budget in BUDGETS:
        if audit := Audit.read(results, benchmarks, track, budget):
            table = audit.table()
            lines = [*INTRODUCTION.splitlines(), "", *table.markdown(), "", *table.notes]
            return [f"### Audit of the poster, budget {budget}", "", *lines]
    return []
