"""The average over contexts: what it is for one context, where tokens go, what is nested, and what is measured."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.cli import main
from spatialbench.data.region_sets import Regions, RegionSet
from spatialbench.errors import SpatialbenchError
from spatialbench.evaluation import contexts
from spatialbench.evaluation.contexts import (
    context_average,
    context_averages,
    context_boxes,
    measure_contexts,
)
from spatialbench.methods.clip import Clip
from tests import tiny
from tests.models import SIZE, images, student

WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
LEFT, RIGHT, TOP = (torch.tensor([box]) for box in ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 0.5)))


def local(crops: Tensor) -> Tensor:
    """A token of each 4 x 4 pixels: their mean colour, unit norm."""
    return F.normalize(F.avg_pool2d(crops.float(), 4).permute(0, 2, 3, 1) + 1, dim=-1)


def mixed(crops: Tensor) -> Tensor:
    """A token that is nothing but its context: the mean colour of the crop at every place, unit norm, 8 x 8."""
    return F.normalize(crops.float().mean((2, 3)) + 1, dim=-1)[:, None, None].expand(-1, 8, 8, -1)


def slopes(size: int = 64) -> Tensor:
    """Red rises with x, green with the square of y, blue is the same everywhere: uint8 [3, size, size]."""
    y, x = torch.meshgrid(*[(torch.arange(size) + 0.5) / size] * 2, indexing="ij")
    return torch.stack([255 * x, 255 * y**2, torch.full_like(x, 128)]).round().to(torch.uint8)


def halves() -> Tensor:
    """Left red, right blue; 32 x 32."""
    pixels = torch.zeros(3, 32, 32, dtype=torch.uint8)
    pixels[0, :, :16], pixels[2, :, 16:] = 255, 255
    return pixels


RED, BLUE, BOTH = (F.normalize(torch.tensor(v) + 1, dim=0) for v in ([255.0, 0, 0], [0, 0, 255.0], [127.5, 0, 127.5]))


# ---- the average


def test_one_context_of_the_whole_picture_is_the_plain_map() -> None:
    method = Clip(student()).eval()
    pixels = images(1)[0]
    with torch.no_grad():
        plain = method.dense(pixels[None])[0]
        found = context_average(method.dense, pixels, WHOLE, SIZE, (4, 4))
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-5)
    assert not torch.allclose(plain[0, 0], plain[3, 3], atol=1e-3)


def test_tokens_go_where_they_were_seen() -> None:
    pixels, grid = slopes(), (16, 16)  # the grid is twice as fine as the 8 x 8 tokens of a whole picture
    x, y = (torch.arange(16) + 0.5) / 16, (torch.arange(16) + 0.5) / 16
    true = torch.stack(torch.broadcast_tensors(255 * x[None], 255 * y[:, None] ** 2, torch.tensor(128.0)), -1)
    true = F.normalize(true + 1, dim=-1)
    boxes = torch.tensor([[0.25, 0.5, 0.75, 1.0], [0.5, 0.125, 1.0, 0.75], [0.0, 0.0, 0.625, 0.5]])
    for chosen in (boxes[:1], boxes[1:2], boxes[2:], boxes):
        found = context_average(local, pixels, chosen, 32, grid)
        assert (found * true).sum(-1).min() > 0.99  # the clamped half token at a border
        # and nowhere else: a neighbour two cells on, in either direction, is further than the token itself
        for axis in (0, 1):
            shifted = true.roll(2, axis)
            inner = (slice(3, 13), slice(3, 13))
            assert ((found - true).norm(dim=-1) < (found - shifted).norm(dim=-1))[inner].all()


def test_a_place_is_the_mean_of_the_contexts_that_cover_it() -> None:
    found = context_average(mixed, halves(), torch.cat([LEFT, WHOLE, WHOLE]), 32, (4, 4))
    torch.testing.assert_close(found[:, :2], F.normalize(RED + 2 * BOTH, dim=0).expand(4, 2, 3))
    torch.testing.assert_close(found[:, 2:], BOTH.expand(4, 2, 3))
    found = context_average(mixed, halves(), torch.cat([LEFT, RIGHT]), 32, (4, 4))
    torch.testing.assert_close(found[:, :2], RED.expand(4, 2, 3))
    torch.testing.assert_close(found[:, 2:], BLUE.expand(4, 2, 3))


def test_what_no_context_covers_is_the_plain_map() -> None:
    found = context_average(mixed, halves(), LEFT, 32, (4, 4))
    torch.testing.assert_close(found[:, :2], RED.expand(4, 2, 3))
    torch.testing.assert_close(found[:, 2:], BOTH.expand(4, 2, 3))
    found = context_average(mixed, halves(), TOP, 32, (5, 4))  # the middle row's centre lies on the border: outside
    assert found.norm(dim=-1).sub(1).abs().max() < 1e-6


def test_the_centre_of_a_cell_decides_what_is_covered() -> None:
    boxes = torch.tensor([[0.0, 0.0, 0.375, 1.0]])  # 12 of 32 pixels: the centres at 4 and, just not, at 12
    found = context_average(mixed, halves(), boxes, 32, (4, 4))
    torch.testing.assert_close(found[:, 0], RED.expand(4, 3))
    torch.testing.assert_close(found[:, 1:], BOTH.expand(4, 3, 3))


def test_small_boxes_and_many_contexts() -> None:
    boxes = torch.cat([WHOLE, torch.tensor([[0.999, 0.999, 1.0, 1.0]]), LEFT.expand(38, 4)])  # more than one batch
    found = context_average(mixed, halves(), boxes, 32, (4, 4))
    torch.testing.assert_close(found[:, :2], F.normalize(38 * RED + BOTH, dim=0).expand(4, 2, 3))
    torch.testing.assert_close(found[0, 2:], BOTH.expand(2, 3))


# ---- the contexts


def test_contexts_are_nested() -> None:
    many = context_boxes(3, 7, 32)
    for count in (1, 2, 4, 16):
        torch.testing.assert_close(context_boxes(3, 7, count), many[:count], rtol=0, atol=0)
    pixels, counts = slopes(32), (1, 3, 20)
    together = context_averages(mixed, pixels, many, 32, (4, 4), counts)
    for count, found in zip(counts, together, strict=True):
        torch.testing.assert_close(found, context_average(mixed, pixels, many[:count], 32, (4, 4)))
    assert not torch.allclose(together[0], together[2], atol=1e-3)


def test_contexts_are_at_least_a_quarter_and_the_first_is_whole() -> None:
    boxes = context_boxes(0, 0, 400)
    torch.testing.assert_close(boxes[:1], WHOLE)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    assert area.min() >= 0.25 - 1e-6
    assert area[1:].min() < 0.3
    assert area[1:].max() > 0.9
    narrow = context_boxes(0, 0, 400, (1.0, 0.5))
    assert narrow[1:, 3].max() <= 0.5
    torch.testing.assert_close(narrow[:1], WHOLE)


def test_seed_and_picture_decide_the_contexts() -> None:
    first = context_boxes(1, 2, 8)
    assert torch.equal(first, context_boxes(1, 2, 8))
    assert not torch.equal(first, context_boxes(2, 1, 8))
    assert not torch.equal(first, context_boxes(1, 3, 8))


# ---- the measures


class Scenes(RegionSet):
    """Red left, blue right with yellow above it, with some noise; the lowest quarter is in no region, or is padding.

    Every other picture tells its regions in another order.
    """

    def __init__(self, count: int = 3, padded: bool = False) -> None:
        self.name, self.size, self.classes, self.things = "fake/val", 32, ("a", "b", "c"), (True,) * 3
        self.templates, self.fingerprint, self.skipped = ("a {}",), "fake", Counter()
        self.count, self.padded = count, padded

    def __len__(self) -> int:
        return self.count

    def scene(self, row: int) -> str:
        return str(row)

    def __getitem__(self, row: int) -> Regions:
        noise = np.random.default_rng(row).integers(0, 40, (3, 32, 32), dtype=np.uint8)
        pixels = torch.maximum(halves(), torch.from_numpy(noise))
        pixels[:, :8, 16:] = torch.tensor([255, 255, 0], dtype=torch.uint8)[:, None, None]
        pixels[:, 24:] = torch.tensor([0, 255, 0], dtype=torch.uint8)[:, None, None]
        if self.padded:
            pixels[0, 24:, ::2] = 255  # stripes that no measure may see
        boxes = torch.tensor([[0.0, 0.0, 0.5, 0.75], [0.5, 0.0, 1.0, 0.25], [0.5, 0.25, 1.0, 0.75]])
        masks = torch.zeros(3, 32, 32, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, (boxes * 32).int().tolist(), strict=True):
            mask[y0:y1, x0:x1] = True
        order = [0, 1, 2] if row % 2 else [0, 2, 1]
        extent = (1.0, 0.75 if self.padded else 1.0)
        return Regions(pixels, extent, boxes[order], torch.tensor([0, 1, 2])[order], masks[order])


def measured(dense: object, regions: RegionSet, *counts: int, seed: int = 0) -> dict[int, dict[str, float]]:
    return measure_contexts(
        dense,
        regions,
        counts,
        pictures=len(regions),
        native_size=32,
        grid=(8, 8),
        seed=seed,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("padded", [False, True])
def test_a_map_that_is_right_scores_a_hundred(padded: bool) -> None:
    found = measured(local, Scenes(padded=padded), 1)
    assert found == {1: {"same_mask": pytest.approx(100), "cluster": pytest.approx(100)}}


def test_what_lies_in_no_region_is_a_segment_of_its_own() -> None:
    def blind(crops: Tensor) -> Tensor:  # takes the lowest quarter for a part of the left half
        tokens = local(crops).clone()
        tokens[:, 6:] = tokens[:, :1, :1]
        return tokens

    found = measured(blind, Scenes(), 1)[1]
    assert found["same_mask"] < 90
    assert found["cluster"] == pytest.approx(100)  # which leaves it out
    assert measured(blind, Scenes(padded=True), 1)[1]["same_mask"] == pytest.approx(100)


def test_a_map_that_depends_on_its_context_gets_better_with_more_of_them() -> None:
    def polluted(crops: Tensor) -> Tensor:  # what a token is, and noise that every crop has anew
        tokens = local(crops)
        noise = [torch.randn(tokens.shape[1:], generator=torch.Generator().manual_seed(int(c.sum()))) for c in crops]
        return F.normalize(tokens + 0.8 * torch.stack(noise), dim=-1)

    found = measured(polluted, Scenes(8), 1, 4, 16, 1)
    assert list(found) == [1, 4, 16]
    for name in ("same_mask", "cluster"):
        assert found[1][name] + 3 < found[4][name]
        assert found[4][name] + 3 < found[16][name]
    assert found == measured(polluted, Scenes(8), 16, 4, 1)
    alone = measured(polluted, Scenes(8), 4)
    assert alone[4] == found[4]
    assert measured(polluted, Scenes(8), 4, seed=1)[4] != found[4]


def test_more_pictures_than_there_are() -> None:
    with pytest.raises(SpatialbenchError, match="4 pictures of fake/val, which has 3"):
        measure_contexts(local, Scenes(3), (1,), pictures=4, native_size=32, grid=(8, 8))


def test_there_are_as_many_clusters_as_classes_present(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watch(tokens: Tensor, label: Tensor, clusters: int, seed: int) -> float:
        seen.append((len(tokens), clusters, seed))
        return 1.0

    monkeypatch.setattr(contexts, "cluster_overlap", watch)
    measured(local, Scenes(2), 1, 2, seed=4)
    assert seen == [(2 * 48, 3, 4)] * 2  # 6 of 8 rows of 8 tokens lie on a region

    class Two(Scenes):
        def __getitem__(self, row: int) -> Regions:
            whole = super().__getitem__(row)
            return whole._replace(label=torch.tensor([2, 1, 1]))

    measured(local, Two(1), 1)
    assert seen[2:] == [(48, 2, 0)]


def test_pictures_of_one_segment_have_no_value() -> None:
    class Nothing(Scenes):
        def __getitem__(self, row: int) -> Regions:
            whole = super().__getitem__(row)
            return whole._replace(boxes=whole.boxes[:0], label=whole.label[:0], masks=whole.masks[:0])

    found = measured(local, Nothing(), 1)[1]
    assert math.isnan(found["same_mask"])
    assert math.isnan(found["cluster"])


# ---- the command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.benchmark(tmp_path_factory.mktemp("tiny") / "benchmarks")
    tiny.page(folder, "zeroshot", rest="trainer: {max_steps: 0}\n")
    return folder


@pytest.fixture
def base(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(folder.parent / "cache"))
    monkeypatch.delenv("SPATIALBENCH_DEBUG", raising=False)
    return ["contexts", "--config", str(folder / "zeroshot.yaml"), "--track", "tiny", "--budget", "smoke"]


def test_the_command_says_what_it_measured(base: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*base, "--pictures", "3", "--counts", "2,1", "--seed", "5"]
    assert main([*argv, "--out", "found.json", "--format", "json"]) == 0
    out = capsys.readouterr().out
    found = json.loads(Path("found.json").read_text())
    assert json.loads(out) == found
    assert found["command"] == " ".join(["spatialbench", *argv, "--out", "found.json", "--format", "json"])
    assert (found["page"], found["checkpoint"]) == (base[2], None)
    assert (found["seed"], found["pictures"], found["data"]) == (5, 3, "rooms/val")
    assert (found["size"], found["native_size"], found["grid"]) == (64, 32, [4, 4])
    assert len(found["commit"]) in (0, 40)
    assert "torch" in found["versions"]
    assert list(found["measures"]) == ["1", "2"]
    for values in found["measures"].values():
        assert 0 <= values["same_mask"] <= 100
        assert 0 < values["cluster"] <= 100
    assert main([*argv, "--size", "70"]) == 0
    text, err = capsys.readouterr()
    assert "note: --size 70 is not a multiple of the patch of 16 pixels; 64 is used" in err
    lines = [line.split() for line in text.splitlines()]
    assert [line[0] for line in lines] == ["contexts", "1", "2"]
    assert float(lines[1][1]) == pytest.approx(found["measures"]["1"]["same_mask"], abs=0.0051)


def test_mistakes_of_the_command(base: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        ("--counts", "0,1"): "--counts: needs a whole number, 1 or more; got '0'",
        ("--counts", "1,,2"): "got ''",
        ("--pictures", "0"): "--pictures: needs a whole number, 1 or more; got '0'",
        ("--seed", "-1"): "--seed must be 0 or more, got -1",
        ("--out", "found.txt"): "give a name that ends in .json: found.txt",
        ("--config", str(folder / "clip.yaml")): "no run of page",
    }
    for argv, part in cases.items():
        capsys.readouterr()
        assert main([*base, *argv]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("spatialbench: ")]
        assert len(lines) == 1
        assert part in lines[0], argv
