"""Published scores of OpenAI's CLIP on benchmarks, which a run of its weights must reproduce."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spatialbench.report.rows import ADVICE, REPORTED, check_printed, reported_items
from spatialbench.utils.typed_files import parse

BACKBONES = ("B/32", "B/16", "L/14", "L/14@336")
"""OpenAI's ViTs, as the tables call them."""


@dataclass(frozen=True)
class Published:
    """One number of a benchmark; see results/reported.yaml."""

    benchmark: str  # as --evaluation has it
    measure: str
    paper: str
    table: str
    row: str
    clip: dict[str, float]  # backbone -> percent, as printed
    note: str = ""  # what differs from what is measured here, if anything

    def __post_init__(self) -> None:
        check_printed(f"{self.benchmark} {self.measure}", "backbone", self.clip, BACKBONES)


@dataclass(frozen=True)
class _File:
    benchmarks: list[Published]

    def __post_init__(self) -> None:
        names = Counter(f"{row.benchmark} {row.measure}" for row in self.benchmarks)
        for name, count in names.items():
            if count > 1:
                raise ValueError(f"{name} stands there twice")


def read_published(results: Path, benchmark: str) -> Mapping[str, Published]:
    """Read the published numbers of a benchmark: measure -> number; none without the file.

    Raises:
        SpatialbenchError: the file is wrong.
    """
    items = {"benchmarks": reported_items(results, of_benchmarks=True)}
    rows = parse(_File, items, str(results / REPORTED), ADVICE).benchmarks
    return {row.measure: row for row in rows if row.benchmark == benchmark}


Columns = dict[str, dict[str, str]]
"""Backbone -> measure -> text."""


def published_columns(published: Mapping[str, Published]) -> tuple[Columns, str]:
    """Return further columns for a run's table, and the lines below it."""
    columns: Columns = {}
    notes: dict[str, list[str]] = {}
    for name, row in published.items():
        notes.setdefault(row.note, []).append(name)
        for backbone in (name for name in BACKBONES if name in row.clip):
            mark = "*" if row.note else ""
            columns.setdefault(backbone, {})[name] = f"{row.clip[backbone]:.1f}{mark}"
    if not columns:
        return {}, ""
    columns = {backbone: columns[backbone] for backbone in BACKBONES if backbone in columns}
    places = dict.fromkeys(f"{row.paper}, {row.table}" for row in published.values())
    but = ", except for what differs (*)" if any(notes) else ""
    lines = [f"Published: OpenAI CLIP, which a run of its weights must reproduce{but}.", *places]
    lines += [f"* {', '.join(names)}: {note}" for note, names in notes.items() if note]
    return columns, "\n".join(lines)
