"""ARO's VG-Relation and VG-Attribution: two objects or attributes exchanged in the caption (Yuksekgonul et al. 2023).

    visual_genome_relation.json      a list of {image_path, bbox_x, bbox_y, bbox_w, bbox_h, true_caption, false_caption,
                                     relation_name}
    visual_genome_attribution.json   the same, with attributes, a list of two, in the place of relation_name
    images/<image_path>

The picture is the box, cut out before it is resized. The paper's number is the mean over relations without those that
its script leaves out (``UNCOUNTED``), and over pairs of attributes with 25 records or more; later work often gives the
mean over records. The authors put the true caption second, so that their argmax counts a tie as wrong; here it is half.
Attributes are counted by the pair as it stands: "black_white" and "white_black" are two.

Source: mertyg/vision-language-models-are-bows @ 81fdd20, dataset_zoo/aro_datasets.py and notebooks/; arXiv 2210.01936.
"""

from __future__ import annotations

from collections import Counter

from spatialbench.data.captions.aro_relations import UNCOUNTED
from spatialbench.data.captions.caption_set import CaptionSet, Corners, Measure, macro, micro
from spatialbench.data.captions.fields import Fields, listed

FILES = {"relation": "visual_genome_relation.json", "attribution": "visual_genome_attribution.json"}
FEWEST = 25
"""Records of a pair of attributes that is counted."""


class Aro(CaptionSet):
    """Both files."""

    name = "aro"
    source = "ARO's visual_genome_relation.json and visual_genome_attribution.json beside their folder images"

    def read(self) -> None:
        for part, name in FILES.items():
            path = self.file(name)
            for number, data in enumerate(listed(self, path)):
                self.account.read += 1
                self._add(part, f"{part}-{number}", Fields(self, f"{path} record {number}", data))

    def _add(self, part: str, record: str, fields: Fields) -> None:
        said = (
            [fields.text("relation_name")]
            if part == "relation"
            else fields.texts("attributes", count=2)
        )
        captions = [fields.text("true_caption"), fields.text("false_caption")]
        path = self.folder / "images" / fields.text("image_path")
        self.add(
            record,
            part,
            "_".join(said),
            self.picture(path, self._crop(fields)),
            captions,
            str(path),
        )

    def _crop(self, fields: Fields) -> Corners:
        x, y, w, h = (fields.number(f"bbox_{side}") for side in "xywh")
        crop = round(x), round(y), round(x + w), round(y + h)
        if crop[2] <= crop[0] or crop[3] <= crop[1]:
            self.refuse(fields.where, f"an empty box, x {x}, y {y}, w {w}, h {h}")
        return crop

    def measures(self) -> list[Measure]:
        """Of each file the paper's macro average and the mean over records."""
        found = []
        for part in FILES:
            rows = self.rows(part)
            counts = Counter(self.records[row].relation for row in rows)
            if part == "relation":
                counted = [row for row in rows if self.records[row].relation not in UNCOUNTED]
            else:
                counted = [row for row in rows if counts[self.records[row].relation] >= FEWEST]
            groups = [self.records[row].relation for row in counted]
            title, what = (
                f"VG-{part.capitalize()}",
                "relations" if part == "relation" else "attribute pairs",
            )
            found.append(
                macro(
                    f"{part}_macro", f"{title}, mean of {len(set(groups))} {what}", counted, groups
                )
            )
            found.append(micro(f"{part}_micro", f"{title}, all records", rows))
        return [measure for measure in found if measure.units]
