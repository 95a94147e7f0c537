"""VG-QA of What'sUp: photos of Visual Genome, a true caption and its opposite (Kamath et al. 2023).

    vg_qa_one_obj.json   [picture, true, false]: one object
    vg_qa_two_obj.json   two objects, with a grammar of their own ("to the behind of"), kept as it is
    vg_images/<picture>.jpg

Source: amitakamath/whatsup_vlms @ 447c169, dataset_zoo/aro_datasets.py; arXiv 2310.19785.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from spatialbench.data.captions.triples import Triples


class VgQa(Triples):
    """Both files."""

    name = "vgqa"
    source = "What'sUp's vg_qa_one_obj.json and vg_qa_two_obj.json beside their folder vg_images"
    files: ClassVar[Mapping[str, str]] = {"one": "vg_qa_one_obj.json", "two": "vg_qa_two_obj.json"}
    phrases = ("left of", "right of", "front of", "behind", "top of", "bottom of", "above", "below")

    def path(self, number: str) -> Path:
        return self.folder / "vg_images" / f"{number}.jpg"
