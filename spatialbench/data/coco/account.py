"""What is left out of a COCO file, why, and the first one of each reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from spatialbench.utils.errors import SpatialbenchError

CROWD = "crowd"
TOO_THIN = "mask is empty at this size"
FILTERED = (CROWD, TOO_THIN, "box is smaller")
"""How the reasons begin that are no damage: left out and counted, strict or not."""

REMEDY = "repair or remove it, or read without strict to leave it out"


class Rejected(Exception):
    """A picture, region or caption that cannot be used: the reason it is counted under, and what exactly is wrong."""

    def __init__(self, reason: str, why: str = "") -> None:
        super().__init__(why or reason)
        self.reason = reason
        self.why = why or reason


@dataclass
class Account:
    """What was left out of one file.

    Attributes:
        path: the file.
        strict: damage is an error.
        skipped: reason -> how many.
        first: reason -> one line about the first one.
    """

    path: Path
    strict: bool = False
    skipped: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def note(self, where: str, rejected: Rejected) -> None:
        """Counts one.

        Args:
            where: picture or annotation, by its id.

        Raises:
            SpatialbenchError: ``strict``, and it is damage.
        """
        line = f"{self.path}: {where}: {rejected.why}"
        if self.strict and not rejected.reason.startswith(FILTERED):
            raise SpatialbenchError(f"{line}; {REMEDY}")
        self.skipped[rejected.reason] += 1
        self.first.setdefault(rejected.reason, line)
