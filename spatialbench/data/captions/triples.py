"""Files of [picture, true caption, false caption], the form of COCO-QA and VG-QA."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from spatialbench.data.captions.caption_set import CaptionSet, Measure, macro, micro
from spatialbench.data.captions.fields import listed


class Triples(CaptionSet):
    """Two files, of captions with one object and with two.

    Attributes:
        files: part -> file.
        phrases: prepositions as the captions with two objects have them, in the order in which they are looked for.
    """

    files: ClassVar[Mapping[str, str]]
    phrases: ClassVar[tuple[str, ...]]

    @abstractmethod
    def path(self, number: str) -> Path:
        """The file of a picture."""

    def read(self) -> None:
        for part, name in self.files.items():
            path = self.file(name)
            for position, item in enumerate(listed(self, path)):
                self.account.read += 1
                number, true, false = self._triple(f"{path} record {position}", item)
                picture = self.picture(self.path(number))
                self.add(
                    f"{part}-{position}",
                    part,
                    self._preposition(part, true),
                    picture,
                    [true, false],
                )

    def _triple(self, where: str, item: Any) -> tuple[str, str, str]:
        right = isinstance(item, list) and len(item) == 3 and type(item[0]) in (int, str)
        if not right or not all(
            isinstance(caption, str) and caption.strip() for caption in item[1:]
        ):
            self.refuse(where, f"{str(item)[:60]!r} is not [picture, true caption, false caption]")
        return str(item[0]), item[1], item[2]

    def _preposition(self, part: str, caption: str) -> str:
        """The last word where one object is named ("A dog on the left"), else the phrase."""
        if part == "one":
            return caption.rstrip(" .").split()[-1].lower()
        return next((phrase for phrase in self.phrases if phrase in caption), "other")

    def measures(self) -> list[Measure]:
        """Of each file: the mean over records, and over prepositions."""
        found = []
        for part in self.files:
            rows = self.rows(part)
            if rows:
                groups = [self.records[row].relation for row in rows]
                found.append(micro(f"{part}_pair", f"{part} object{'s' * (part == 'two')}", rows))
                found.append(macro(f"{part}_macro", f"{part}, mean of prepositions", rows, groups))
        return found
