"""What'sUp, the controlled pictures: two objects in four arrangements, a caption for each (Kamath et al. 2023).

The folder of the authors' loader holds

    controlled_images_dataset.json   A: on, under, left, right      controlled_images/
    controlled_clevr_dataset.json    B: front, behind, left, right  controlled_clevr/

each a list of {image_path, caption_options}, four captions of which the first is true. ``image_path`` begins with a
folder ``data/`` of the authors' own; the arrangement and both objects are in the file's name, for instance
``mug_left_of_plate.jpeg``. The pair is the true caption and the one with the opposite preposition; the authors' numbers
compare all four. A set are the four pictures of two objects.

Source: amitakamath/whatsup_vlms @ 447c169, dataset_zoo/aro_datasets.py; arXiv 2310.19785.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from spatialbench.data.captions.caption_set import CaptionSet, Measure, micro
from spatialbench.data.captions.fields import Fields, listed

OPPOSITE = {"on": "under", "left": "right", "front": "behind"}
OPPOSITE |= {b: a for a, b in OPPOSITE.items()}
SUBSETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "A": ("controlled_images_dataset.json", ("on", "under", "left", "right")),
    "B": ("controlled_clevr_dataset.json", ("front", "behind", "left", "right")),
}
"""Subset -> its file, and its arrangements: first one pair of opposites, then the other."""
ODD = "the four captions do not name the four arrangements, the first that of the picture's file"


class WhatsUp(CaptionSet):
    """Subsets A and B."""

    name = "whatsup"
    source = "the What'sUp files: controlled_images_dataset.json, controlled_clevr_dataset.json and their pictures"

    def read(self) -> None:
        self._sets: dict[tuple[str, str], dict[str, int]] = defaultdict(
            dict
        )  # subset, objects -> arrangement -> row
        for part, (name, _) in SUBSETS.items():
            path = self.file(name)
            for number, data in enumerate(listed(self, path)):
                self.account.read += 1
                self._add(part, f"{part}-{number}", Fields(self, f"{path} record {number}", data))
        for (part, objects), rows in self._sets.items():
            if len(rows) < len(SUBSETS[part][1]):
                why = f"only {', '.join(rows)}"
                self.account.flag(
                    "a set without all four pictures, not among the sets", f"{part} {objects}", why
                )

    def _add(self, part: str, record: str, fields: Fields) -> None:
        given = Path(fields.text("image_path"))
        captions = fields.texts("caption_options", count=4)
        words = given.stem.split("_")  # mug_left_of_plate, mug_in-front_of_plate, mug_on_plate
        said = [preposition(caption) for caption in captions]
        true = words[1].removeprefix("in-") if len(words) > 2 else ""
        if set(said) != set(SUBSETS[part][1]) or said[0] != true:
            self.account.drop(ODD, record, f"{given.name}: {captions}")
            return
        second = said.index(OPPOSITE[true])
        others = [caption for place, caption in enumerate(captions) if place not in (0, second)]
        objects = f"{words[0]}, {words[-1]}"
        rows = self._sets[part, objects]
        if true in rows:
            self.account.flag(
                "a second picture of its arrangement, not among the sets", record, objects
            )
        rows.setdefault(true, len(self.records))
        picture = self.picture(self._file(given))
        self.add(
            record,
            part,
            true,
            picture,
            [captions[0], captions[second], *others],
            f"{part} {objects}",
        )

    def _file(self, given: Path) -> Path:
        """In the folder, with the authors' ``data/`` or without."""
        whole, without = (
            self.folder / given,
            self.folder / Path(*given.parts[given.parts[0] == "data" :]),
        )
        return whole if whole.is_file() else without

    def measures(self) -> list[Measure]:
        """Of each subset: the pair, one of four, both pictures of opposites, all four of a set."""
        found = []
        for part, (_, names) in SUBSETS.items():
            low, rows = part.lower(), self.rows(part)
            found.append(micro(f"{low}_pair", f"{part}: opposite preposition", rows))
            found.append(
                micro(f"{low}_four", f"{part}: one of four", rows, options=None, chance=25.0)
            )
            sets = [found for (subset, _), found in self._sets.items() if subset == part]
            both = [
                (s[a], s[b]) for s in sets for a, b in (names[:2], names[2:]) if a in s and b in s
            ]
            whole = [tuple(s[name] for name in names) for s in sets if len(s) == len(names)]
            for name, title, units, chance in (
                (f"{low}_both", f"{part}: both of a pair, each of four", both, 100 / 4**2),
                (f"{low}_set", f"{part}: all of a set, each of four", whole, 100 / 4**4),
            ):
                found.append(Measure(name, title, units, [""] * len(units), None, chance))
        return [measure for measure in found if measure.units]


def preposition(caption: str) -> str | None:
    """The only one of the arrangements that a caption has as a word; None where there is none or more than one."""
    found = [word for word in caption.lower().rstrip(".").split() if word in OPPOSITE]
    return found[0] if len(found) == 1 else None
