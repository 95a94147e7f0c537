"""COCO-QA of What'sUp: photos of COCO, a true caption and its opposite, strings as they are (Kamath et al. 2023).

    coco_qa_one_obj.json   [picture, true, false]: one object, left, right, top or bottom
    coco_qa_two_obj.json   two objects: left of, right of, above, below
    val2017/<picture with 12 digits>.jpg

Source: amitakamath/whatsup_vlms @ 447c169, dataset_zoo/aro_datasets.py; arXiv 2310.19785.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from spatialbench.data.captions.triples import Triples


class CocoQa(Triples):
    """Both files."""

    name = "cocoqa"
    source = "What'sUp's coco_qa_one_obj.json and coco_qa_two_obj.json beside COCO's folder val2017"
    files: ClassVar[Mapping[str, str]] = {
        "one": "coco_qa_one_obj.json",
        "two": "coco_qa_two_obj.json",
    }
    phrases = ("left of", "right of", "above", "below")

    def path(self, number: str) -> Path:
        return self.folder / "val2017" / f"{number.zfill(12)}.jpg"
