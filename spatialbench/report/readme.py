"""results/README.md: every track's table, what the numbers can bear, what they cost, and where they come from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from spatialbench.evaluation.measures import Measures
from spatialbench.evaluation.statistics import COLUMNS
from spatialbench.report import claims as claims_report
from spatialbench.report import controls as controls_report
from spatialbench.report import measures as measures_report
from spatialbench.report import selection as selection_report
from spatialbench.report.claims import Claim, read_claims
from spatialbench.report.differences import Differences
from spatialbench.report.stored_rows import Reported, Row, read_rows
from spatialbench.report.table import TITLES, read_papers, sheet_of
from spatialbench.report.table_model import interval_cell, markdown, markdown_table, number, write
from spatialbench.results.files import STORED_BUDGET
from spatialbench.results.schema import SeedRun
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError, write_atomic

BASELINES = 2
"""Every row is compared with so many first rows: zero-shot and fine-tuned CLIP."""

INTRODUCTION = """\
# Results

Written by `make table` from the result files of this folder; the same files give the same bytes. Do not edit.

Accuracy in percent on pairs (image, caption, caption with the objects exchanged): right when the caption scores
higher, a tie one half, chance 50. **All** is the mean over records, *macro* the mean of the relations. *± s*: standard
deviation over seeds. Intervals: bootstrap over scenes and seeds. A row marked *stale* was made from a page, a track or
captions that have changed since.
"""


_MARKED = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
"""Where another page takes a track's table."""


def write_readme(results: str | Path = "results", benchmarks: str | Path = "benchmarks") -> Path:
    """Writes results/README.md, and the tables marked in the README.md beside the folder; returns the former's path."""
    path = Path(results) / "README.md"
    if not Path(results).is_dir():
        raise SpatialbenchError(
            f"no results in {results}, which is no folder; give --results FOLDER"
        )
    write_atomic(path, readme(Path(results), Path(benchmarks)))
    front = Path(results).absolute().parent / "README.md"
    if front.is_file():
        before = front.read_text(encoding="utf-8")
        after = with_tables(before, Path(results), Path(benchmarks))
        if after != before:
            write_atomic(front, after)
    return path


def with_tables(text: str, results: Path, benchmarks: Path) -> str:
    """``text`` with today's table of TRACK between every ``<!-- table: TRACK -->`` and ``<!-- end of table -->``."""

    def block(match: re.Match[str]) -> str:
        papers = read_papers(results)
        rows = read_rows(
            results, benchmarks, match[2], STORED_BUDGET, [paper.name for paper in papers]
        )
        text = write(sheet_of(rows), "md") if rows else "No rows yet.\n"
        return f"{match[1]}{text}{match[3]}"

    return _MARKED.sub(block, text)


def readme(results: Path, benchmarks: Path) -> str:
    """The text of results/README.md.

    Raises:
        SpatialbenchError: a damaged row, rows of different data, or a wrong file of papers or claims.
    """
    papers = read_papers(results)
    today = Today.read(benchmarks)
    claims = read_claims(results / "claims.yaml", today.tracks)
    sections = [INTRODUCTION]
    for folder in sorted(path for path in results.glob("*") if any(path.glob("*.outcomes.npz"))):
        rows = read_rows(
            results, benchmarks, folder.name, STORED_BUDGET, [paper.name for paper in papers]
        )
        if not rows:  # outcomes without their result files, which check-results tells
            continue
        measures = measures_report.measures_of(results, rows)
        selection = measures_report.measures_of(results, rows, "selection")
        own = [claim for claim in claims if claim.track == folder.name]
        controls = controls_report.section(results, folder.name, today)
        sections.append(
            "\n".join(_section(folder.name, rows, papers, measures, selection, own, controls))
            + "\n"
        )
    if len(sections) == 1:
        sections.append("No rows yet: `spatialbench run benchmarks/*.yaml --budget full`.\n")
    return "\n".join(sections)


def _section(
    track: str,
    rows: Sequence[Row],
    papers: Sequence[Reported],
    measures: Mapping[str, Measures],
    selection: Mapping[str, Measures],
    claims: Sequence[Claim],
    controls: Sequence[str],
) -> list[str]:
    differences = Differences(rows, measures, selection)
    sheet = sheet_of(rows, (), differences)
    lines = [f"## {track}", "", *markdown(sheet), "", *sheet.notes, ""]
    lines += [*controls, ""] if controls else []
    lines += ["### 95 % intervals", "", *_interval_table(rows), ""]
    if len(rows) > 1:
        lines += ["### Paired differences on All", "", *_difference_table(rows, differences), ""]
    if measures:
        lines += [*measures_report.section(rows, measures, differences), ""]
    if selection:
        lines += [*selection_report.section(rows, selection, differences), ""]
    if claims:
        lines += [*claims_report.section(claims, rows, differences), ""]
    lines += ["### Cost", "", *_cost_table(rows), "", "### Origin", "", *_origin_table(rows)]
    if papers:
        text = "As printed there (other data, other models); their macro is the mean of the printed relations."
        lines += [
            "",
            "### Beside the papers' numbers",
            "",
            text,
            "",
            *markdown(sheet_of(rows, papers, differences)),
        ]
    return lines


def _interval_table(rows: Sequence[Row]) -> list[str]:
    header = ["", *TITLES.values()]
    return markdown_table(
        header,
        [
            [row.result.name, *(interval_cell(row.result.interval[c]) for c in COLUMNS)]
            for row in rows
        ],
    )


def _difference_table(rows: Sequence[Row], differences: Differences) -> list[str]:
    """Row minus each of the first rows on All, in points, with its paired 95 % interval; bold when that excludes 0."""
    names = [row.result.name for row in rows]
    lines = []
    for place, name in enumerate(names[1:], start=1):
        gains = [differences.between(name, base, "all") for base in names[: min(BASELINES, place)]]
        cells = ["–" if gain is None else gain.cell for gain in gains]
        lines.append([name, *cells, *[""] * (min(BASELINES, len(names)) - len(cells))])
    return markdown_table(["", *(f"minus {name}" for name in names[:BASELINES])], lines)


def _cost_table(rows: Sequence[Row]) -> list[str]:
    """Of one seed: the mean time, the largest memory."""
    header = [
        "",
        "trainable M",
        "total M",
        "steps",
        "pairs",
        "minutes",
        "memory GB",
        "GPU memory GB",
        "hardware",
    ]
    lines = []
    for row in rows:
        runs, parameters = row.result.runs, row.result.parameters
        seconds = [run.wall_seconds.get("total", sum(run.wall_seconds.values())) for run in runs]
        lines.append(
            [
                row.result.name,
                number(parameters.trainable / 1e6 if runs[0].train_steps else 0.0, 2),
                number(parameters.total / 1e6, 2),
                str(runs[0].train_steps),
                "–" if runs[0].train_pairs is None else str(runs[0].train_pairs),
                number(sum(seconds) / len(seconds) / 60),
                number(max(run.peak_memory_mb for run in runs) / 1000),
                number(max(run.peak_gpu_memory_mb for run in runs) / 1000),
                "; ".join(dict.fromkeys(_machine(run) for run in runs)),
            ]
        )
    return markdown_table(header, lines)


def _machine(run: SeedRun) -> str:
    hardware = run.hardware
    return str(
        hardware.get("gpu")
        or f"{hardware.get('cores', '?')} cores of {hardware.get('cpu', 'an unknown CPU')}"
    )


def _origin_table(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in rows:
        runs = row.result.runs
        commits = dict.fromkeys(
            (run.commit[:10] or "no commit") + (" (dirty)" if run.dirty else "") for run in runs
        )
        versions = dict.fromkeys(f"torch {run.versions.get('torch', '?')}" for run in runs)
        seeds = ", ".join(map(str, row.result.seeds))
        lines.append(
            [row.result.name, seeds, row.result.page_hash, ", ".join(commits), ", ".join(versions)]
        )
    return markdown_table(["", "seeds", "page", "commit", "versions"], lines)
