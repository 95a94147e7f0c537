"""Contents and faults of a file in EmbSpatial's schema, counted and printed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spatialbench.data.account import Account
from spatialbench.data.records import ELEVATION_TAGS
from spatialbench.data.relations import RELATIONS

FILTERS = ("placeholder_name", "duplicate_options", "same_name", "duplicate_pair")
"""Reasons of sound questions and pairs that no caption can describe: dropped, strict or not."""

DOUBTS = ("nested_names", "box_disagrees")
"""Reasons of doubtful pairs: kept and flagged, and dropped with ``strict``. Others are damage."""


def _per_relation() -> Counter[str]:
    return Counter(dict.fromkeys(RELATIONS, 0))


@dataclass
class CheckReport(Account):
    """The account of one file: items are questions, or single pairs of a question of several."""

    harmless: tuple[str, ...] = FILTERS + DOUBTS
    kept: int = 0  # questions that gave at least one pair
    relations: Counter[str] = field(default_factory=_per_relation)  # relation -> questions kept
    pairs: Counter[str] = field(default_factory=_per_relation)  # relation -> pairs
    images: int = 0  # distinct ones of the kept questions
    elevation: Counter[str] = field(default_factory=Counter)  # tag -> close and far pairs

    @property
    def elevation_baseline(self) -> float | None:
        """Accuracy in [0, 1] of "higher in the image = farther" on the unambiguous pairs."""
        decided = self.elevation["consistent"] + self.elevation["counter"]
        return self.elevation["consistent"] / decided if decided else None

    def summary(self) -> str:
        """One line: what was kept, what was dropped and why, and the first damaged record."""
        line = f"{self.source}: {self.kept} of {self.read} questions kept, "
        line += f"{self.pairs.total()} pairs on {self.images} images"
        if self.dropped:
            line += f"; dropped: {', '.join(f'{kind} {n}' for kind, n in self.dropped.items())}"
        return line + (f"; first bad record: {self.first_damage}" if self.first_damage else "")


def print_report(report: CheckReport, console: Console | None = None) -> None:
    """Print counts per relation, each reason with its first record, and the elevation shortcut."""
    console = console or Console()
    table = Table("relation", title=Text(str(report.source)), title_justify="left")
    for column in ("questions", "pairs"):
        table.add_column(column, justify="right")
    for relation in RELATIONS:
        table.add_row(relation, str(report.relations[relation]), str(report.pairs[relation]))
    table.add_section()
    table.add_row("kept", f"{report.kept} of {report.read}", str(report.pairs.total()))
    console.print(table)
    lines = [f"{report.images} distinct images", *report.lines(width=1000)]
    if report.elevation.total():
        tags = ", ".join(f"{tag} {report.elevation[tag]}" for tag in ELEVATION_TAGS)
        lines.append(f"elevation of the close and far pairs: {tags}")
    if report.elevation_baseline is not None:
        percent = 100 * report.elevation_baseline
        lines[-1] += f'; "higher in the image = farther" is right on {percent:.1f} %'
    for line in lines:
        console.print(Text(line), soft_wrap=True)
