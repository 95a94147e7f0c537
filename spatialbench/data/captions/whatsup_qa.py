"""COCO-QA and VG-QA of What'sUp: photos, a true caption and its opposite (Kamath et al. 2023).

    coco_qa_one_obj.json  vg_qa_one_obj.json   lists of [image, true, false] about one object
    coco_qa_two_obj.json  vg_qa_two_obj.json   the same about two objects
    val2017/<image with 12 digits>.jpg         COCO's photos
    vg_images/<image>.jpg                      Visual Genome's photos

Captions are kept as written; VG-QA has a grammar of its own ("to the behind of").

Source: amitakamath/whatsup_vlms @ 447c169, dataset_zoo/aro_datasets.py; arXiv 2310.19785.
"""

from typing import Any, ClassVar

from spatialbench.data.captions.caption_set import CaptionSet, Measure, macro, micro
from spatialbench.data.captions.fields import listed


class Triples(CaptionSet):
    """Two files of [image, true caption, false caption], about one object and about two."""

    files: ClassVar[str]  # name of a file, with ``{}`` for the part, one or two
    photos: ClassVar[str]  # name of an image file, with ``{}`` for the image
    phrases: ClassVar[tuple[str, ...]]  # prepositions of two objects, in the order of the search

    def read(self) -> None:
        """Read both files."""
        for part in ("one", "two"):
            path = self.file(self.files.format(part))
            for number, item in enumerate(listed(self, path)):
                self.account.read += 1
                image, true, false = self._triple(f"{path} record {number}", item)
                row = self.image(self.folder / self.photos.format(image))
                preposition = self._preposition(part, true)
                self.add(f"{part}-{number}", part, preposition, row, [true, false])

    def _triple(self, where: str, item: Any) -> tuple[str, str, str]:
        match item:
            case [image, str(true), str(false)] if true.strip() and false.strip():
                if type(image) in (int, str):
                    return str(image), true, false
        self.refuse(where, f"{str(item)[:60]!r} is not [image, true caption, false caption]")

    def _preposition(self, part: str, caption: str) -> str:
        """Return the last word for one object ("A dog on the left"), the phrase for two."""
        if part == "one":
            return caption.rstrip(" .").split()[-1].lower()
        return next((phrase for phrase in self.phrases if phrase in caption), "other")

    def measures(self) -> list[Measure]:
        """Return the mean over records and over prepositions of each file."""
        measures = []
        for part, title in (("one", "one object"), ("two", "two objects")):
            rows, mean = self.rows(part), f"{part}, mean of prepositions"
            measures.append(micro(f"{part}_pair", title, rows))
            measures.append(macro(f"{part}_macro", mean, rows, self.relations(rows)))
        return [measure for measure in measures if measure.units]


class CocoQa(Triples):
    """COCO-QA."""

    name = "cocoqa"
    source = "What'sUp's coco_qa_one_obj.json and coco_qa_two_obj.json beside COCO's folder val2017"
    files = "coco_qa_{}_obj.json"
    photos = "val2017/{:0>12}.jpg"
    phrases = ("left of", "right of", "above", "below")


class VgQa(Triples):
    """VG-QA."""

    name = "vgqa"
    source = "What'sUp's vg_qa_one_obj.json and vg_qa_two_obj.json beside their folder vg_images"
    files = "vg_qa_{}_obj.json"
    photos = "vg_images/{}.jpg"
    phrases = ("left of", "right of", "front of", "behind", "top of", "bottom of", "above", "below")
