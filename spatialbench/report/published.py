"""Published scores of OpenAI's CLIP on benchmarks, which a run of its weights must reproduce."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spatialbench.report.rows import ADVICE, published_items
from spatialbench.utils.typed_files import parse

BACKBONES = ("B/32", "B/16", "L/14", "L/14@336")
"""OpenAI's ViTs, as the tables call them."""


@dataclass(frozen=True)
class Published:
    """One number of a benchmark; see results/reported.yaml.

    Attributes:
        benchmark: as ``--evaluation`` has it.
        measure: name of the measure.
        paper, table, row: where it stands.
        clip: backbone -> percent, as printed.
        note: what differs from what is measured here; empty where nothing does.
    """

    benchmark: str
    measure: str
    paper: str
    table: str
    row: str
    clip: dict[str, float]
    note: str = ""

    def __post_init__(self) -> None:
        name = f"{self.benchmark} {self.measure}"
        for backbone, value in self.clip.items():
            if backbone not in BACKBONES:
                raise ValueError(
                    f"unknown backbone {backbone!r} of {name}; known: {', '.join(BACKBONES)}"
                )
            if not 0 <= value <= 100:
                raise ValueError(f"{backbone} of {name} is {value}, not a percentage")


@dataclass(frozen=True)
class _File:
    benchmarks: list[Published]

    def __post_init__(self) -> None:
        seen: set[tuple[str, str]] = set()
        for row in self.benchmarks:
            if (row.benchmark, row.measure) in seen:
                raise ValueError(f"{row.benchmark} {row.measure} stands there twice")
            seen.add((row.benchmark, row.measure))


def read_published(results: Path, benchmark: str) -> Mapping[str, Published]:
    """Read the published numbers of a benchmark: measure -> number; none without the file.

    Args:
        results: the folder of reported.yaml.

    Raises:
        SpatialbenchError: the file is wrong.
    """
    path = results / "reported.yaml"
    if not path.exists():
        return {}
    rows = parse(_File, {"benchmarks": published_items(path)}, str(path), ADVICE).benchmarks
    return {row.measure: row for row in rows if row.benchmark == benchmark}


def published_columns(
    published: Mapping[str, Published],
) -> tuple[dict[str, dict[str, str]], str]:
    """Return columns (backbone -> measure -> text) for a run's table, and the lines below it."""
    columns: dict[str, dict[str, str]] = {}
    notes: dict[str, list[str]] = {}
    for backbone in BACKBONES:
        for name, row in published.items():
            if backbone in row.clip:
                mark = "*" if row.note else ""
                columns.setdefault(backbone, {})[name] = f"{row.clip[backbone]:.1f}{mark}"
    for name, row in published.items():
        notes.setdefault(row.note, []).append(name)
    if not columns:
        return {}, ""
    places = dict.fromkeys(f"{row.paper}, {row.table}" for row in published.values())
    but = ", except for what differs (*)" if any(notes) else ""
    lines = [f"Published: OpenAI CLIP, which a run of its weights must reproduce{but}.", *places]
    lines += [f"* {', '.join(names)}: {note}" for note, names in notes.items() if note]
    return columns, "\n".join(lines)
