"""SpatialSense: relations that people found true or false of hard photos (Yang et al. 2019).

    annotations.json               a list of {url, nsid, height, width, split, annotations}
    images/flickr/  images/nyu/    photos by the last part of their url; Flickr's have http

An annotation is {_id, predicate, subject, object, label}; subject and object are {name, x, y, bbox}
with bbox = [y0, y1, x0, x1] in pixels. A true relation of the test split gives a pair if its
predicate turns false when the objects are swapped. SpatialSense's own number, true or false by
predicate, needs a threshold; the measures here are pair accuracy by predicate, its mean, and the
pairs whose boxes show the relation in the viewer's frame.

Source: princeton-vl/SpatialSense @ ecfee4e, README.md and visualize.py; Zenodo 8104370.
"""

from spatialbench.data.captions.caption_set import CaptionSet, Measure, macro, micro
from spatialbench.data.captions.fields import Fields, listed
from spatialbench.data.records import Box

INVERTIBLE = ("to the left of", "to the right of", "above", "under", "in front of", "behind")
OTHERS = ("on", "in", "next to")
"""Predicates from which nothing follows about the swapped objects."""


class SpatialSense(CaptionSet):
    """The test split."""

    name = "spatialsense"
    source = "SpatialSense's annotations.json beside its folder images (Zenodo 8104370)"

    def read(self) -> None:
        """Read the annotations of all images."""
        self._shown: list[int] = []  # rows whose boxes show the relation
        path = self.file("annotations.json")
        for number, data in enumerate(listed(self, path)):
            photo = Fields(self, f"{path} image {number}", data)
            split, annotations = photo.text("split"), photo.any("annotations")
            if not isinstance(annotations, list):
                kind = type(annotations).__name__
                self.refuse(photo.where, f"field 'annotations' is a {kind}, not a list")
            for place, annotation in enumerate(annotations):
                self.account.read += 1
                where = f"{photo.where}, annotation {place}"
                self._add(photo, split, Fields(self, where, annotation))

    def _add(self, photo: Fields, split: str, fields: Fields) -> None:
        record, predicate, label = fields.text("_id"), fields.text("predicate"), fields.any("label")
        if not isinstance(label, bool):
            self.refuse(fields.where, f"label {label!r} is neither true nor false")
        if predicate not in (*INVERTIBLE, *OTHERS):
            self.refuse(fields.where, f"unknown predicate {predicate!r}")
        subject, other = fields.inner("subject"), fields.inner("object")
        a, b = subject.text("name"), other.text("name")
        reasons = {
            "of another split than test": split != "test",
            "a false relation, which has no true caption": not label,
            "its predicate has no opposite": predicate in OTHERS,
            "both objects have one name": a.strip().lower() == b.strip().lower(),
        }
        for reason, holds in reasons.items():
            if holds:
                return self.account.drop(reason, record, f"{a} {predicate} {b}")
        if _shows(predicate, self._box(subject, photo), self._box(other, photo)):
            self._shown.append(len(self.records))
        captions = [f"The {a} is {predicate} the {b}.", f"The {b} is {predicate} the {a}."]
        url = photo.text("url")
        site = "flickr" if url.startswith("http") else "nyu"
        image = self.image(self.folder / "images" / site / url.rpartition("/")[2])
        self.add(record, "test", predicate, image, captions)

    def _box(self, fields: Fields, photo: Fields) -> Box:
        value = fields.any("bbox")
        numbers = value if isinstance(value, list) and len(value) == 4 else [None]
        if not all(isinstance(number, int | float) for number in numbers):
            self.refuse(fields.where, f"bbox {value!r} is not [y0, y1, x0, x1]")
        y0, y1, x0, x1 = value
        height, width = photo.number("height"), photo.number("width")
        if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
            why = f"bbox {value} is not [y0, y1, x0, x1] inside {width} x {height} pixels"
            self.account.flag("a box that is not inside its image", fields.where, why)
        return Box(x0, y0, x1 - x0, y1 - y0)

    def measures(self) -> list[Measure]:
        """Return the mean over predicates, over pairs, and over pairs that the boxes show."""
        rows = self.rows()
        measures = [
            macro("macro", "mean of predicates", rows, self.relations(rows)),
            micro("micro", "all pairs", rows),
            micro("shown", "pairs that the boxes show", self._shown),
        ]
        return [measure for measure in measures if measure.units]


def _shows(predicate: str, subject: Box, other: Box) -> bool:
    """Return whether the centres lie as the predicate says for the viewer; boxes show no depth."""
    (ax, ay), (bx, by) = subject.centre, other.centre
    shown = {"to the left of": ax < bx, "to the right of": ax > bx}
    return (shown | {"above": ay < by, "under": ay > by}).get(predicate, False)
