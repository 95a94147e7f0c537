"""What OpenAI's CLIP scores in published runs of the benchmarks of ``--evaluation``: what a run must reproduce."""

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

    def line(self) -> str:
        """All of it, for people."""
        values = ", ".join(f"{name} {value}" for name, value in self.clip.items())
        text = f"Published, OpenAI CLIP, {self.measure}: {values} ({self.paper}, {self.row})"
        return f"{text}; {self.note}" if self.note else text


NOTHING_PUBLISHED: Mapping[str, Published] = {}


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
    """The published numbers of a benchmark: measure -> number. None where there is no results/reported.yaml.

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


def sources(published: Mapping[str, Published], measures: list[str]) -> list[str]:
    """Lines that say where the shown numbers are from, and what differs in them."""
    shown = [published[name] for name in measures if name in published]
    notes: dict[str, list[str]] = {}
    for row in shown:
        notes.setdefault(row.note, []).append(row.measure)
    places = dict.fromkeys(f"{row.paper}, {row.table}" for row in shown)
    text = "Published: OpenAI CLIP, which a run of its weights must reproduce, but for what differs (*)."
    text = text if any(notes) else text.replace(", but for what differs (*)", "")
    return [
        text,
        *places,
        *(f"* {', '.join(names)}: {note}" for note, names in notes.items() if note),
    ]
