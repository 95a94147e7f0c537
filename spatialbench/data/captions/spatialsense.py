"""SpatialSense: relations that people found true or false of photos, chosen to be hard (Yang et al. 2019).

    annotations.json               a list of {url, nsid, height, width, split, annotations}
    images/flickr/  images/nyu/    pictures by the last part of their url; those with http are Flickr's

An annotation is {_id, predicate, subject, object, label}; subject and object are {name, x, y, bbox} with
bbox = [y0, y1, x0, x1] in pixels. A true relation of the test split whose predicate turns false when its objects are
exchanged gives a pair. SpatialSense's own number, true or false by predicate, needs a threshold; here it is pair
accuracy by predicate, its mean, and that of the pairs whose boxes show the relation from where the viewer stands.

Source: princeton-vl/SpatialSense @ ecfee4e, README.md and visualize.py; Zenodo 8104370.
"""

from __future__ import annotations

from pathlib import Path

from spatialbench.data.captions.caption_set import CaptionSet, Measure, macro, micro
from spatialbench.data.captions.fields import Fields, listed
from spatialbench.data.records import Box

INVERTIBLE = ("to the left of", "to the right of", "above", "under", "in front of", "behind")
OTHERS = ("on", "in", "next to")
"""No statement about the objects exchanged follows from these."""


class SpatialSense(CaptionSet):
    """The test split."""

    name = "spatialsense"
    source = (
        "SpatialSense's annotations.json beside its folder images (Zenodo 10.5281/zenodo.8104370)"
    )

    def read(self) -> None:
        self._shown: list[int] = []  # rows whose boxes show the relation
        path = self.file("annotations.json")
        for number, data in enumerate(listed(self, path)):
            photo = Fields(self, f"{path} picture {number}", data)
            split, found = photo.text("split"), photo.any("annotations")
            if not isinstance(found, list):
                self.refuse(
                    photo.where, f"field 'annotations' is a {type(found).__name__}, not a list"
                )
            for place, annotation in enumerate(found):
                self.account.read += 1
                self._add(
                    photo, split, Fields(self, f"{photo.where}, annotation {place}", annotation)
                )

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
                self.account.drop(reason, record, f"{a} {predicate} {b}")
                return
        boxes = [self._box(part, photo) for part in (subject, other)]
        if _shows(predicate, *boxes):
            self._shown.append(len(self.records))
        captions = [f"The {a} is {predicate} the {b}.", f"The {b} is {predicate} the {a}."]
        self.add(record, "test", predicate, self.picture(self._file(photo.text("url"))), captions)

    def _file(self, url: str) -> Path:
        return (
            self.folder
            / "images"
            / ("flickr" if url.startswith("http") else "nyu")
            / url.rpartition("/")[2]
        )

    def _box(self, fields: Fields, photo: Fields) -> Box:
        """[y0, y1, x0, x1] as a box inside the picture."""
        value = fields.any("bbox")
        if (
            not isinstance(value, list)
            or len(value) != 4
            or not all(isinstance(v, int | float) for v in value)
        ):
            self.refuse(fields.where, f"bbox {value!r} is not [y0, y1, x0, x1]")
        y0, y1, x0, x1 = value
        if not (0 <= y0 < y1 <= photo.number("height") and 0 <= x0 < x1 <= photo.number("width")):
            why = f"bbox {value} is not [y0, y1, x0, x1] inside {photo.data['width']} x {photo.data['height']} pixels"
            self.account.flag("a box that is not inside its picture", fields.where, why)
        return Box(x0, y0, x1 - x0, y1 - y0)

    def measures(self) -> list[Measure]:
        """The mean over predicates, over pairs, and over pairs that the boxes show."""
        rows = self.rows()
        found = [
            macro(
                "macro", "mean of predicates", rows, [record.relation for record in self.records]
            ),
            micro("micro", "all pairs", rows),
            micro("shown", "pairs that the boxes show", self._shown),
        ]
        return [measure for measure in found if measure.units]


def _shows(predicate: str, subject: Box, other: Box) -> bool:
    """Whether the centres lie as the predicate says from where the viewer stands; depth, boxes do not show."""
    (ax, ay), (bx, by) = subject.centre, other.centre
    return {
        "to the left of": ax < bx,
        "to the right of": ax > bx,
        "above": ay < by,
        "under": ay > by,
    }.get(predicate, False)
