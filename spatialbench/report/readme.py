"""results/README.md: the tables of every track, their resolution, cost and provenance."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from spatialbench.config.pages import FAMILIES, Track
from spatialbench.evaluation.base import Evaluation
from spatialbench.evaluation.pairs import PairEvaluation
from spatialbench.report import audit_table
from spatialbench.report import claims as claims_report
from spatialbench.report import controls as controls_report
from spatialbench.report import steps as steps_report
from spatialbench.report.claims import Claim, read_claims
from spatialbench.report.differences import Differences
from spatialbench.report.evaluation_table import headings_of, table_of
from spatialbench.report.rows import (
    Reported,
    evaluation_classes,
    read_papers,
    read_rows,
)
from spatialbench.report.table_model import interval_cell, markdown_table, number
from spatialbench.report.table_notes import beside_papers
from spatialbench.results.files import STORED_BUDGET, Row
from spatialbench.results.schema import PAIRS, SeedRun
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.suggest import did_you_mean

BASELINES = 2
"""Number of first rows that every row is compared with: zero-shot and fine-tuned CLIP."""

INTRODUCTION = """\
# Results

Written by `make table` from the result files of this folder; the same files give the same bytes.
Do not edit.

Accuracy in percent on pairs (image, caption, caption with the objects swapped): right when the
caption scores higher, a tie one half, chance 50. **All** is the mean over records, *macro* the mean
of the relations. *± s*: standard deviation over seeds; a row without it is one run. Intervals:
bootstrap over scenes and seeds. Rows stand by family and are ranked within it alone; **bold** tells
rows apart as `spatialbench compare` does. A row marked *stale* was made from a page, a track or
captions that have changed since.
"""

_MARKED = re.compile(r"(<!-- table: (\S+)((?: \S+)*) -->\n).*?(<!-- end of table -->)", re.DOTALL)
"""The place of a track's table, or of some of its rows, in another page."""
FRONT = "front"
"""Stands for the rows that the track names as ``front``."""


def write_readme(results: str | Path = "results", benchmarks: str | Path = "benchmarks") -> Path:
    """Write results/README.md, and the tables marked in the README.md above the folder.

    Raises:
        SpatialbenchError: there is no such folder; see also :func:`readme`.
    """
    folders = Path(results), Path(benchmarks)
    path, front = folders[0] / "README.md", folders[0].absolute().parent / "README.md"
    if not path.parent.is_dir():
        raise SpatialbenchError(
            f"no results in {results}, which is no folder; give --results FOLDER"
        )
    read = cache(partial(read_rows, *folders))  # each row is recounted once
    write_atomic(path, readme(*folders, read))
    if front.is_file():
        before = front.read_text(encoding="utf-8")
        if (after := with_tables(before, *folders, read)) != before:
            write_atomic(front, after)
    return path


Reader = Callable[[str], list[Row]]
"""Reads the rows of a track."""


def with_tables(text: str, results: Path, benchmarks: Path, read: Reader | None = None) -> str:
    """Fill in each table below ``<!-- table: TRACK [ROW ...] -->``.

    ``front`` in the place of rows are those of the track's ``front`` that are stored.

    Raises:
        SpatialbenchError: a row that is not stored.
    """
    read = read or partial(read_rows, results, benchmarks)

    def block(match: re.Match[str]) -> str:
        chosen, rows = match[3].split(), read(match[2])
        if chosen == [FRONT]:
            front = front_pages(Today.read(benchmarks), match[2])
            chosen = [row.name for row in rows if row.name in front]
        for name in sorted({*chosen} - {row.name for row in rows}):
            raise SpatialbenchError(f"README.md: no stored row {name!r} of track {match[2]}")
        rows = [row for row in rows if not chosen or row.name in chosen]
        table = table_of(rows, PAIRS, PairEvaluation) if rows else None
        lines = ["No rows yet."] if table is None else table.markdown()
        notes = [] if chosen or table is None else ["", *table.notes]
        return match[1] + "\n".join([*lines, *notes]) + "\n" + match[4]

    return _MARKED.sub(block, text)


def front_pages(today: Today, track: str) -> Sequence[str]:
    """Return the pages that a track names as ``front``.

    Raises:
        SpatialbenchError: there is no such track, or it names none, or what is no page.
    """
    known = today.tracks.get(track)
    if known is None or not known.front:
        raise SpatialbenchError(f"track {track} names no pages of the front table: front: [PAGE]")
    for name in known.front:
        if name not in today.pages:
            near = did_you_mean(name, today.pages)
            raise SpatialbenchError(f"track {known.path}: front names no page {name!r}{near}")
    return known.front


def readme(results: Path, benchmarks: Path, read: Reader | None = None) -> str:
    """Return the text of results/README.md.

    Raises:
        SpatialbenchError: a damaged row, rows of different data, or wrong papers or claims.
    """
    papers, tracks = read_papers(results), Today.read(benchmarks).tracks
    claims = read_claims(results / "claims.yaml", tracks)
    read = read or partial(read_rows, results, benchmarks)
    findings, sections = results / "findings.md", []
    for folder in sorted(path for path in results.glob("*") if any(path.glob("*.npz"))):
        rows = read(folder.name)
        if not rows:  # evidence without result files, which check-results reports
            continue
        own = [claim for claim in claims if claim.track == folder.name]
        controls = controls_report.section(results, benchmarks, folder.name)
        # a track that is gone has the pair test alone; check-results reports it
        known = evaluation_classes(tracks.get(folder.name), STORED_BUDGET)
        audited = audit_table.section(results, benchmarks, folder.name)
        between = [steps_report.section(rows, folder), controls, audited]
        lines = _section(rows, papers, known, own, between, tracks.get(folder.name))
        sections.append("\n".join(lines) + "\n")
    none = "No rows yet: `spatialbench run benchmarks/*.yaml --budget full`.\n"
    head = [INTRODUCTION, *([findings.read_text("utf-8")] if findings.exists() else [])]
    return "\n".join(head + (sections or [none]))


def _section(
    rows: Sequence[Row],
    papers: Sequence[Reported],
    classes: Mapping[str, type[Evaluation]],
    claims: Sequence[Claim],
    between: Sequence[Sequence[str]],
    track: Track | None,
) -> list[str]:
    differences = Differences(rows)
    table = table_of(rows, PAIRS, PairEvaluation, differences)
    lines = [f"## {rows[0].result.track}", "", *table.markdown(), "", *table.notes, ""]
    for block in between:
        lines += [*block, ""] if block else []
    lines += ["### 95 % intervals", "", *_interval_table(rows, PAIRS, PairEvaluation), ""]
    if len(rows) > 1:
        lines += ["### Paired differences on All", "", *_baseline_table(rows, differences), ""]
    for name, cls in classes.items():
        if name != PAIRS and any(name in row.evidence for row in rows):
            lines += [*_evaluation_section(rows, name, cls, differences), ""]
    if claims:
        headings = claims_report.headings_of(classes)
        lines += [*claims_report.section(claims, rows, differences, headings), ""]
    lines += ["### Cost", "", *_cost_table(rows), "", "### Origin", "", *_origin_table(rows)]
    if papers:
        with_papers = table_of(rows, PAIRS, PairEvaluation, differences, papers)
        lines += [
            "",
            "### Beside the papers' numbers",
            "",
            beside_papers(track),
            "",
            *with_papers.markdown(),
        ]
    return lines


def _evaluation_section(
    rows: Sequence[Row], name: str, cls: type[Evaluation], differences: Differences
) -> list[str]:
    """Lines about an evaluation beside the pairs."""
    table = table_of(rows, name, cls, differences)
    lines = [f"### {cls.title}", "", *cls.explanation.splitlines(), "", *table.markdown()]
    if not cls.by_group:
        lines += ["", "95 % intervals:", "", *_interval_table(rows, name, cls)]
    if sum(name in row.evidence for row in rows) > 1:
        lines += ["", "Paired differences:", "", *_difference_table(rows, name, cls, differences)]
    return lines


def _table(
    header: Sequence[str], rows: Sequence[Row], cells: Callable[[Row], Sequence[str]]
) -> list[str]:
    """Lines of a table with a line for each row, by family."""
    lines = [[row.name, *cells(row)] for row in rows]
    return markdown_table(header, lines, sections=[FAMILIES[row.family] for row in rows])


def _interval_table(rows: Sequence[Row], name: str, cls: type[Evaluation]) -> list[str]:
    headings = headings_of(rows, name, cls)

    def cells(row: Row) -> list[str]:
        interval = row.result.evaluations[name].interval
        return [interval_cell(interval.get(measure)) for measure in headings]

    return _table(["", *headings.values()], [row for row in rows if name in row.evidence], cells)


def _difference_table(
    rows: Sequence[Row], name: str, cls: type[Evaluation], differences: Differences
) -> list[str]:
    """Row minus the first row with this evaluation; bold where ``compare`` tells them apart."""
    headings = headings_of(rows, name, cls)
    first, *others = (row for row in rows if name in row.evidence)

    def cells(row: Row) -> list[str]:
        return [differences.cell(row.name, first.name, measure, name) for measure in headings]

    return _table([f"minus {first.name}", *headings.values()], others, cells)


def _baseline_table(rows: Sequence[Row], differences: Differences) -> list[str]:
    """Row minus each of the first rows on All, in points; bold as in ``compare``."""
    bases = rows[:BASELINES]

    def cells(row: Row) -> list[str]:
        return [
            "" if row is base else differences.cell(row.name, base.name, "all") for base in bases
        ]

    return _table(["", *(f"minus {base.name}" for base in bases)], rows[1:], cells)


def _cost_table(rows: Sequence[Row]) -> list[str]:
    """Cost of one seed: the mean time, the largest memory."""
    header = ["", "trainable M", "total M", "steps", "pairs", "minutes", "memory GB"]
    header += ["GPU memory GB", "hardware"]

    def cells(row: Row) -> list[str]:
        runs, parameters = row.result.runs, row.result.parameters
        seconds = [run.wall_seconds.get("total", sum(run.wall_seconds.values())) for run in runs]
        trained = parameters.trainable if runs[0].train_steps else 0
        sizes = [number(count / 1e6, 2) for count in (trained, parameters.total)]
        pairs = "–" if runs[0].train_pairs is None else str(runs[0].train_pairs)
        minutes = number(sum(seconds) / len(seconds) / 60)
        memory = number(max(run.peak_memory_mb for run in runs) / 1000)
        gpu_memory = number(max(run.peak_gpu_memory_mb for run in runs) / 1000)
        machines = "; ".join(dict.fromkeys(_machine(run) for run in runs))
        return [*sizes, str(runs[0].train_steps), pairs, minutes, memory, gpu_memory, machines]

    return _table(header, rows, cells)


def _machine(run: SeedRun) -> str:
    cpu = f"{run.hardware.get('cores', '?')} cores of {run.hardware.get('cpu', 'an unknown CPU')}"
    return str(run.hardware.get("gpu") or cpu)


def _origin_table(rows: Sequence[Row]) -> list[str]:
    def cells(row: Row) -> list[str]:
        result = row.result
        commits = [(c[:10] or "no commit") + " (dirty)" * dirty for c, dirty in result.made]
        versions = [f"torch {run.versions.get('torch', '?')}" for run in result.runs]
        lists = (map(str, result.seeds), [result.page_hash], commits, versions)
        return [", ".join(dict.fromkeys(texts)) for texts in lists]

    return _table(["", "seeds", "page", "commit", "versions"], rows, cells)
