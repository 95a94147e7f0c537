"""SugarCrepe: captions of COCO and fluent false ones, in seven files (Hsieh et al. 2023).

    add_att.json add_obj.json replace_att.json replace_obj.json replace_rel.json swap_att.json swap_obj.json
    val2017/<filename>

The files lie in the folder or in its ``data``. Each is an object of number -> {filename, caption, negative_caption};
the numbers have gaps (swap_obj has no 108), so what is there is read and nothing is counted through.

Source: RAIVNLab/sugar-crepe @ 0047054, data/ and main_eval.py; arXiv 2306.14610.
"""

from __future__ import annotations

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
        for part in FILES:
            path = self.file(f"{part}.json", f"data/{part}.json")
            found = load_json(path, f"give {self.source}")
            if not isinstance(found, dict):
                self.refuse(
                    str(path), f"a {type(found).__name__}, not an object of number -> record"
                )
            for number, data in found.items():
                self.account.read += 1
                self._add(part, number, Fields(self, f"{path} record {number}", data))

    def _add(self, part: str, number: str, fields: Fields) -> None:
        captions = [fields.text(name) for name in ("caption", "negative_caption")]
        path = self.folder / "val2017" / Path(fields.text("filename")).name
        self.add(f"{part}-{number}", part, part, self.picture(path), captions)

    def measures(self) -> list[Measure]:
        """Each file, their mean, and the mean over records."""
        groups = [record.part for record in self.records]
        found = [micro(part, part, self.rows(part)) for part in FILES]
        found.append(macro("macro", "mean of the files", self.rows(), groups))
        found.append(micro("micro", "all records", self.rows()))
        return [measure for measure in found if measure.units]
