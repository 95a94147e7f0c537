"""ARO's VG-Relation and VG-Attribution: objects or attributes swapped in the caption (2023).

    visual_genome_relation.json      a list of {image_path, bbox_x, bbox_y, bbox_w, bbox_h,
                                     true_caption, false_caption, relation_name}
    visual_genome_attribution.json   the same, with attributes (two) instead of relation_name
    images/<image_path>

The image is the box, cropped before it is resized. The paper's number is the mean over relations
without those that its script leaves out (``UNCOUNTED``), and over pairs of attributes with 25
records or more; later work often gives the mean over records. The authors put the true caption
second, so that their argmax counts a tie as wrong; here a tie counts one half. Attributes are
counted by the pair as written: "black_white" and "white_black" are two.

Source: Yuksekgonul et al., arXiv 2210.01936; mertyg/vision-language-models-are-bows @ 81fdd20,
dataset_zoo/aro_datasets.py and notebooks/.
"""

from collections import Counter

from spatialbench.data.captions.caption_set import CaptionSet, Measure, macro, micro
from spatialbench.data.captions.fields import Fields, records

FILES = {"relation": "visual_genome_relation.json", "attribution": "visual_genome_attribution.json"}
FEWEST = 25  # records of a pair of attributes that is counted

_UNCOUNTED = """\
adjusting, around, attached to, beside, between, bigger than, biting, boarding, brushing, by,
chewing, cleaning, climbing, close to, coming from, coming out of, contain, crossing, dragging,
draped over, drinking, drinking from, driving, driving down, driving on, eating from, eating in,
enclosing, exiting, facing, filled with, floating in, floating on, flying, flying above, flying in,
flying over, flying through, full of, going down, going into, going through, grazing in, growing in,
growing on, guiding, hanging from, hanging in, hanging off, hanging over, higher than, holding onto,
hugging, in between, jumping off, jumping on, jumping over, kept in, larger than, leading, leaning
over, leaving, licking, longer than, looking in, looking into, looking out, looking over, looking
through, lying next to, lying on top of, making, mixed with, mounted on, moving, near, next to, of,
on the back of, on the edge of, on the front of, on the other side of, on the side of, opening,
painted on, parked at, parked beside, parked by, parked in, parked in front of, parked near, parked
next to, perched on, petting, piled on, playing, playing in, playing on, playing with, pouring,
reaching for, reading, reflected on, riding on, running in, running on, running through, seen
through, sitting behind, sitting beside, sitting by, sitting in front of, sitting near, sitting next
to, sitting under, skiing down, skiing on, sleeping in, sleeping on, smiling at, sniffing,
splashing, sprinkled on, stacked on, standing against, standing around, standing behind, standing
beside, standing in front of, standing near, standing next to, staring at, stuck in, surrounding,
swimming in, swinging, talking to, topped with, touching, traveling down, traveling on, tying,
typing on, underneath, wading in, waiting for, walking across, walking by, walking down, walking
next to, walking through, with, working in, working on, worn on, wrapped around, wrapped in"""
UNCOUNTED = frozenset(" ".join(_UNCOUNTED.split()).split(", "))
"""Relations that the macro average of VG-Relation leaves out (notebooks/, cell of the macro
accuracy). The authors call them symmetric, but most are only rare."""


class Aro(CaptionSet):
    """VG-Relation and VG-Attribution."""

    name = "aro"
    source = f"ARO's {FILES['relation']} and {FILES['attribution']} beside their folder images"

    def read(self) -> None:
        """Read both files."""
        for part, name in FILES.items():
            for record, fields in records(self, self.file(name), part):
                self._add(part, record, fields)

    def _add(self, part: str, record: str, fields: Fields) -> None:
        if part == "relation":
            relation = fields.text("relation_name")
        else:
            relation = "_".join(fields.texts("attributes", count=2))
        captions = [fields.text("true_caption"), fields.text("false_caption")]
        path = self.folder / "images" / fields.text("image_path")
        x, y, w, h = (fields.number(f"bbox_{side}") for side in "xywh")
        crop = round(x), round(y), round(x + w), round(y + h)
        if crop[2] <= crop[0] or crop[3] <= crop[1]:
            self.refuse(fields.where, f"an empty box, x {x}, y {y}, w {w}, h {h}")
        self.add(record, part, relation, self.image(path, crop), captions, str(path))

    def measures(self) -> list[Measure]:
        """Return the paper's macro average and the mean over records of each file."""
        measures = []
        for part, unit in (("relation", "relations"), ("attribution", "attribute pairs")):
            rows = self.rows(part)
            counts = Counter(self.relations(rows))
            rare = {relation for relation in counts if counts[relation] < FEWEST}
            counted = set(counts) - (UNCOUNTED if part == "relation" else rare)
            kept = [row for row in rows if self.records[row].relation in counted]
            title = f"VG-{part.capitalize()}"
            mean = f"{title}, mean of {len(counted)} {unit}"
            measures.append(macro(f"{part}_macro", mean, kept, self.relations(kept)))
            measures.append(micro(f"{part}_micro", f"{title}, all records", rows))
        return [measure for measure in measures if measure.units]
