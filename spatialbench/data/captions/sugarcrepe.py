"""SugarCrepe: captions of COCO and fluent false ones, in seven files (Hsieh et al. 2023).

    <name of FILES>.json   in the folder or in its ``data``
    val2017/<filename>

A file is an object of number -> {filename, caption, negative_caption}. The numbers have gaps
(swap_obj has no 108).

Source: RAIVNLab/sugar-crepe @ 0047054, data/ and main_eval.py; arXiv 2306.14610.
"""

from pathlib import Path

from spatialbench.data.captions.caption_set import CaptionSet, Measure, macro, micro
from spatialbench.data.captions.fields import Fields
from spatialbench.utils.typed_files import load_json

FILES = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")


class SugarCrepe(CaptionSet):
    """All seven files."""

    name = "sugarcrepe"
    source = "SugarCrepe's seven files (RAIVNLab/sugar-crepe, data/) beside COCO's folder val2017"

    def read(self) -> None:
        """Read all files."""
        for part in FILES:
            path = self.file(f"{part}.json", f"data/{part}.json")
            items = load_json(path, f"give {self.source}")
            if not isinstance(items, dict):
                kind = type(items).__name__
                self.refuse(str(path), f"a {kind}, not an object of number -> record")
            for number, data in items.items():
                self.account.read += 1
                fields = Fields(self, f"{path} record {number}", data)
                captions = [fields.text("caption"), fields.text("negative_caption")]
                file = self.folder / "val2017" / Path(fields.text("filename")).name
                self.add(f"{part}-{number}", part, part, self.image(file), captions)

    def measures(self) -> list[Measure]:
        """Return each file, their mean, and the mean over records."""
        rows = self.rows()
        measures = [micro(part, part, self.rows(part)) for part in FILES]
        measures.append(macro("macro", "mean of the files", rows, self.relations(rows)))
        measures.append(micro("micro", "all records", rows))
        return [measure for measure in measures if measure.units]
