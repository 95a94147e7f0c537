"""What'sUp, the controlled images: two objects in four arrangements (Kamath et al. 2023).

    controlled_images_dataset.json   A: on, under, left, right      controlled_images/
    controlled_clevr_dataset.json    B: front, behind, left, right  controlled_clevr/

Each file is a list of {image_path, caption_options}; the first of the four captions is true.
``image_path`` begins with the authors' own folder ``data/``; its last part names the arrangement
and both objects, as ``mug_left_of_plate.jpeg``. The pair is the true caption and the one with the
opposite preposition; the authors' numbers compare all four captions. The four images of two objects
are a set.

Source: amitakamath/whatsup_vlms @ 447c169, dataset_zoo/aro_datasets.py; arXiv 2310.19785.
"""

from collections import defaultdict
from pathlib import Path

from spatialbench.data.captions.caption_set import CaptionSet, Measure, micro
from spatialbench.data.captions.fields import Fields, records

OPPOSITE = {"on": "under", "left": "right", "front": "behind"}
OPPOSITE |= {b: a for a, b in OPPOSITE.items()}
SUBSETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "A": ("controlled_images_dataset.json", ("on", "under", "left", "right")),
    "B": ("controlled_clevr_dataset.json", ("front", "behind", "left", "right")),
}
"""Subset -> its file and its arrangements, as two pairs of opposites."""
ODD = "the four captions do not name the four arrangements, first the one of the file's name"


class WhatsUp(CaptionSet):
    """Subsets A and B."""

    name = "whatsup"
    source = f"the What'sUp files: {SUBSETS['A'][0]}, {SUBSETS['B'][0]} and their images"

    def read(self) -> None:
        """Read both files and collect their sets."""
        # (subset, objects) -> arrangement -> row
        self._sets: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        for part, (name, _) in SUBSETS.items():
            for record, fields in records(self, self.file(name), part):
                self._add(part, record, fields)
        for (part, objects), rows in self._sets.items():
            if len(rows) < len(SUBSETS[part][1]):
                reason = "a set without all four images, not among the sets"
                self.account.flag(reason, f"{part} {objects}", f"only {', '.join(rows)}")

    def _add(self, part: str, record: str, fields: Fields) -> None:
        given = Path(fields.text("image_path"))
        captions = fields.texts("caption_options", count=4)
        words = given.stem.split("_")  # mug_left_of_plate, mug_in-front_of_plate, mug_on_plate
        said = [preposition(caption) for caption in captions]
        true = words[1].removeprefix("in-") if len(words) > 2 else ""
        if set(said) != set(SUBSETS[part][1]) or said[0] != true:
            return self.account.drop(ODD, record, f"{given.name}: {captions}")
        second = said.index(OPPOSITE[true])
        others = [caption for k, caption in enumerate(captions) if k not in (0, second)]
        options = [captions[0], captions[second], *others]
        objects = f"{words[0]}, {words[-1]}"
        rows = self._sets[part, objects]
        if true in rows:
            reason = "a second image of its arrangement, not among the sets"
            self.account.flag(reason, record, objects)
        rows.setdefault(true, len(self.records))
        whole, inner = self.folder / given, Path(*given.parts[given.parts[0] == "data" :])
        image = self.image(whole if whole.is_file() else self.folder / inner)
        self.add(record, part, true, image, options, f"{part} {objects}")

    def measures(self) -> list[Measure]:
        """Return the pair, one of four, both images of opposites, all four of a set; per subset."""
        measures = []
        for part, (_, names) in SUBSETS.items():
            low, rows = part.lower(), self.rows(part)
            sets = [rows for (subset, _), rows in self._sets.items() if subset == part]
            opposites = (names[:2], names[2:])
            both = [(s[a], s[b]) for s in sets for a, b in opposites if a in s and b in s]
            whole = [tuple(s[name] for name in names) for s in sets if len(s) == len(names)]
            measures.append(micro(f"{low}_pair", f"{part}: opposite preposition", rows))
            for name, title, units, chance in (
                (f"{low}_four", f"{part}: one of four", [(row,) for row in rows], 100 / 4),
                (f"{low}_both", f"{part}: both of a pair, each of four", both, 100 / 4**2),
                (f"{low}_set", f"{part}: all of a set, each of four", whole, 100 / 4**4),
            ):
                measures.append(Measure(name, title, units, [""] * len(units), None, chance))
        return [measure for measure in measures if measure.units]


def preposition(caption: str) -> str | None:
    """Return the arrangement that a caption names; None if it names none, or several."""
    named = [word for word in caption.lower().rstrip(".").split() if word in OPPOSITE]
    return named[0] if len(named) == 1 else None
