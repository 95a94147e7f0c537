"""results/README.md: every track's table, what the numbers can bear, what they cost, and where they come from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from spatialbench.errors import write_atomic
from spatialbench.evaluation.statistics import COLUMNS, Difference, Resampler
from spatialbench.report.rows import Reported, Row, read_rows
from spatialbench.report.table import (
    TITLES,
    interval_cell,
    markdown,
    markdown_table,
    notes,
    number,
    read_papers,
)
from spatialbench.results import STORED_BUDGET, SeedRun

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
        rows = read_rows(results, benchmarks, match[2], STORED_BUDGET, [paper.name for paper in papers])
        lines = [*markdown(rows), "", *notes(rows)] if rows else ["No rows yet."]
        return f"{match[1]}{chr(10).join(lines)}\n{match[3]}"

    return _MARKED.sub(block, text)


def readme(results: Path, benchmarks: Path) -> str:
    """The text of results/README.md.

    Raises:
        SpatialbenchError: a damaged row, or rows of different data.
    """
    papers = read_papers(results)
    sections = [INTRODUCTION]
    for folder in sorted(path for path in results.glob("*") if any(path.glob("*.outcomes.npz"))):
        rows = read_rows(results, benchmarks, folder.name, STORED_BUDGET, [paper.name for paper in papers])
        sections.append("\n".join(_section(folder.name, rows, papers)) + "\n")
    if len(sections) == 1:
        sections.append("No rows yet: `spatialbench run benchmarks/*.yaml --budget full`.\n")
    return "\n".join(sections)


def _section(track: str, rows: Sequence[Row], papers: Sequence[Reported]) -> list[str]:
    lines = [f"## {track}", "", *markdown(rows), "", *notes(rows), ""]
    lines += ["### 95 % intervals", "", *_interval_table(rows), ""]
    if len(rows) > 1:
        lines += ["### Paired differences on All", "", *_difference_table(rows), ""]
    lines += ["### Cost", "", *_cost_table(rows), "", "### Origin", "", *_origin_table(rows)]
    if papers:
        text = "As printed there (other data, other models); their macro is the mean of the printed relations."
        lines += ["", "### Beside the papers' numbers", "", text, "", *markdown(rows, papers)]
    return lines


def _interval_table(rows: Sequence[Row]) -> list[str]:
    header = ["", *TITLES.values()]
    return markdown_table(
        header, [[row.result.name, *(interval_cell(row.result.interval[c]) for c in COLUMNS)] for row in rows]
    )


def _difference_table(rows: Sequence[Row]) -> list[str]:
    """Row minus each of the first rows on All, in points, with its paired 95 % interval; bold when that excludes 0."""
    first = rows[0].outcomes
    draws = Resampler(first.relation, first.cluster)
    margins = [row.outcomes.aligned(first) for row in rows]
    lines = []
    for place, row in enumerate(rows):
        cells = [row.result.name]
        for base in range(min(BASELINES, len(rows))):
            cells.append(
                _difference_cell(draws.difference(margins[place], margins[base], (place, base))) if base < place else ""
            )
        lines.append(cells)
    return markdown_table(["", *(f"minus {row.result.name}" for row in rows[:BASELINES])], lines[1:])


def _difference_cell(found: Difference) -> str:
    interval = found.interval["all"]
    assert interval is not None, "a row has records"
    text = f"{found.gain['all']:+.1f} ({interval.low:+.1f} to {interval.high:+.1f})"
    return text if found.verdict() == "not distinguishable" else f"**{text}**"


def _cost_table(rows: Sequence[Row]) -> list[str]:
    """Of one seed: the mean time, the largest memory."""
    header = ["", "trainable M", "total M", "steps", "pairs", "minutes", "memory GB", "GPU memory GB", "hardware"]
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
    return str(hardware.get("gpu") or f"{hardware.get('cores', '?')} cores of {hardware.get('cpu', 'an unknown CPU')}")


def _origin_table(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in rows:
        runs = row.result.runs
        commits = dict.fromkeys((run.commit[:10] or "no commit") + (" (dirty)" if run.dirty else "") for run in runs)
        versions = dict.fromkeys(f"torch {run.versions.get('torch', '?')}" for run in runs)
        seeds = ", ".join(map(str, row.result.seeds))
        lines.append([row.result.name, seeds, row.result.page_hash, ", ".join(commits), ", ".join(versions)])
    return markdown_table(["", "seeds", "page", "commit", "versions"], lines)
