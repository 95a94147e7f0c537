"""One account of what a reader leaves out: each reason with a count and its first item."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spatialbench.utils.errors import SpatialbenchError


class Rejected(Exception):
    """An item that cannot be used: the reason that is counted, and what exactly is wrong."""

    def __init__(self, reason: str, why: str = "") -> None:
        super().__init__(why or reason)
        self.reason, self.why = reason, why or reason


@dataclass
class Account:
    """Fate of the items of one source: each is kept, or dropped for one reason."""

    source: Path  # the file or folder, for messages
    strict: bool = False  # the first damaged item is an error
    harmless: tuple[str, ...] = ()  # prefixes of the reasons that are not damage, never an error
    read: int = 0  # items in the source
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> items left out
    flagged: Counter[str] = field(default_factory=Counter)  # reason -> items kept with a note
    first: dict[str, str] = field(default_factory=dict)  # reason -> its first "<item>: <why>"

    def drop(self, reason: str, item: str, why: str) -> None:
        """Count an item that is left out.

        Raises:
            SpatialbenchError: ``strict``, and the item is damaged.
        """
        self.dropped[reason] += 1
        self.first.setdefault(reason, f"{item}: {why}")
        if self.strict and not reason.startswith(self.harmless):
            remedy = "repair or remove it, or read without strict to leave it out"
            raise SpatialbenchError(f"{self.source}: {item}: {why}; {remedy}")

    def flag(self, reason: str, item: str, why: str) -> None:
        """Count an item that is kept."""
        self.flagged[reason] += 1
        self.first.setdefault(reason, f"{item}: {why}")

    @contextmanager
    def dropping(self, item: str) -> Iterator[None]:
        """Drop ``item`` when the block raises :class:`Rejected`."""
        try:
            yield
        except Rejected as rejected:
            self.drop(rejected.reason, item, rejected.why)

    @property
    def first_damage(self) -> str:
        """The first damaged item; empty when there is none."""
        firsts = self.first.items()
        return next((why for name, why in firsts if not name.startswith(self.harmless)), "")

    def lines(self, width: int = 80) -> list[str]:
        """One line for each reason; first items are cut at ``width`` characters."""
        return [
            f"{count} {verb}: {reason} "
            f"(first {textwrap.shorten(self.first[reason], width, placeholder=' ...')})"
            for verb, counts in (("dropped", self.dropped), ("kept", self.flagged))
            for reason, count in counts.items()
        ]

    def print(self, header: Sequence[str], rows: Sequence[Sequence[object]], note: str) -> None:
        """Print a table whose last row is the total, a note, and a line for each reason."""
        console = Console()
        table = Table(header[0], title=Text(str(self.source)), title_justify="left")
        for name in header[1:]:
            table.add_column(name, justify="right")
        for number, row in enumerate(rows, start=2):
            table.add_row(*(Text(str(cell)) for cell in row), end_section=number == len(rows))
        console.print(table)
        for line in [note, *self.lines(width=1000)]:
            console.print(Text(line), soft_wrap=True)

    def require(self, kept: int, items: str, advice: str = "") -> None:
        """Refuse a source of which nothing usable is left."""
        if not kept:
            why = f"among {self.read} ({'; '.join(self.lines()) or 'it is empty'}){advice}"
            raise SpatialbenchError(f"{self.source}: no usable {items} {why}")
