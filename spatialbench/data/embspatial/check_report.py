"""Contents and faults of a file in EmbSpatial's schema, counted and printed."""

from collections import Counter
from dataclasses import dataclass, field

from spatialbench.data.account import Account
from spatialbench.data.records import ELEVATION_TAGS
from spatialbench.data.relations import RELATIONS

HARMLESS = (
    # sound questions and pairs that no caption can describe: dropped, strict or not
    *("placeholder_name", "duplicate_options", "same_name", "duplicate_pair"),
    # doubtful pairs: kept and flagged, and dropped with strict
    *("nested_names", "box_disagrees"),
)
"""Reasons that are not damage."""


@dataclass
class CheckReport(Account):
    """The account of one file: items are questions, or single pairs of a question of several."""

    harmless: tuple[str, ...] = HARMLESS
    kept: int = 0  # questions that gave at least one pair
    relations: Counter[str] = field(default_factory=Counter)  # relation -> questions kept
    pairs: Counter[str] = field(default_factory=Counter)  # relation -> pairs
    images: int = 0  # distinct ones of the kept questions
    elevation: Counter[str] = field(default_factory=Counter)  # tag -> close and far pairs

    def summary(self) -> str:
        """One line: what was kept, what was dropped and why, and the first damaged record."""
        line = f"{self.source}: {self.kept} of {self.read} questions kept, "
        line += f"{self.pairs.total()} pairs on {self.images} images"
        if self.dropped:
            line += f"; dropped: {', '.join(f'{kind} {n}' for kind, n in self.dropped.items())}"
        return line + (f"; first bad record: {self.first_damage}" if self.first_damage else "")

    def print_counts(self) -> None:
        """Print counts per relation, each reason with its first record, the elevation shortcut."""
        rows = [(name, self.relations[name], self.pairs[name]) for name in RELATIONS]
        total = ("kept", f"{self.kept} of {self.read}", self.pairs.total())
        note = f"{self.images} distinct images"
        if self.elevation:
            tags = ", ".join(f"{tag} {self.elevation[tag]}" for tag in ELEVATION_TAGS)
            note += f"\nelevation of the close and far pairs: {tags}"
        if decided := self.elevation["consistent"] + self.elevation["counter"]:
            percent = 100 * self.elevation["consistent"] / decided
            note += f'; "higher in the image = farther" is right on {percent:.1f} %'
        self.print(("relation", "questions", "pairs"), [*rows, total], note)
