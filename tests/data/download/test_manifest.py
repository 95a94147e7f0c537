"""Contents of the shipped declarations, without loading anything."""

import re
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import pytest

from spatialbench.config.evaluations import PUBLISHED
from spatialbench.data.captions import aro, mmvp, sugarcrepe, whatsup
from spatialbench.data.download.manifest import DataSet, data_sets

PARTS = ("train", "dev", "test")
NAMES = "embspatial whatsup vsr sugarcrepe aro mmvp cvbench cocoqa vgqa spatialsense"


def test_the_data_sets() -> None:
    assert " ".join(data_sets()) == NAMES


@pytest.mark.parametrize("data_set", data_sets().values(), ids=lambda data_set: data_set.name)
def test_every_declaration_is_sound(data_set: DataSet) -> None:
    assert data_set.title
    assert data_set.licence
    assert data_set.terms
    assert urlsplit(data_set.homepage).scheme == "https"
    assert data_set.after.format(name="x", folder="y").startswith("spatialbench ")
    assert len({item.placed for item in data_set.items}) == len(data_set.items)
    for item in data_set.items:
        assert not PurePosixPath(item.name).is_absolute()
        assert ".." not in PurePosixPath(item.name).parts
        assert re.fullmatch(r"[0-9a-f]{64}|", item.sha256)
        assert re.fullmatch(r"[0-9a-f]{32}|", item.md5)
        assert bool(item.folder) == item.name.endswith((".zip", ".tar.gz"))
        assert sum(map(bool, (item.repository, item.url, item.drive))) == 1
        assert re.fullmatch(r"[\w-]{33}|", item.drive)
        if item.repository:
            assert re.fullmatch(r"[0-9a-f]{40}|main", item.revision)
            assert bool(item.files) == item.path.endswith("/*")
        if item.url:
            assert urlsplit(item.url).scheme == "https"
            assert item.known_hash, "a hash is given where the source has one"


def test_names_are_those_of_the_readers_and_tracks() -> None:
    placed = {
        name: {item.placed for item in data_set.items} for name, data_set in data_sets().items()
    }
    assert set(PUBLISHED) == set(placed) - {"embspatial"}
    assert placed["embspatial"] == {"EmbSpatial-Bench.json", "EmbSpatial-SFT.json"}
    assert placed["mmvp"] == {"Questions.csv", mmvp.FOLDERS[0]}
    assert placed["sugarcrepe"] == {f"{name}.json" for name in sugarcrepe.FILES}
    assert placed["whatsup"] == {
        "controlled_images",
        "controlled_clevr",
        *(f for f, _ in whatsup.SUBSETS.values()),
    }
    assert placed["aro"] == {"images", *aro.FILES.values()}
    assert placed["cocoqa"] == {"coco_qa_one_obj.json", "coco_qa_two_obj.json"}
    assert placed["vgqa"] == {"vg_images", "vg_qa_one_obj.json", "vg_qa_two_obj.json"}
    assert placed["cvbench"] == {"test_2d.parquet", "test_3d.parquet"}
    assert placed["spatialsense"] == {"annotations.json", "images"}
    assert placed["vsr"] == {
        f"{split}/{name}.jsonl" for split in ("random", "zeroshot") for name in PARTS
    }
