"""The readout of the patches, the probe of the embedding: equations, and what they can answer."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from spatialbench.data.records import Box, Record
from spatialbench.data.relations import RELATIONS
from spatialbench.data.rooms import RoomsSet
from spatialbench.data.rooms.facts import SceneView, View, records
from spatialbench.evaluation import located
from spatialbench.evaluation.controls.transforms import swapped
from spatialbench.evaluation.located import LEAST, PENALTIES, Located, Probe
from spatialbench.models.towers import Attend
from tests.support.checks import refused

NAMES = ("sofa", "lamp", "bed")
SIZE, IMAGES = 16, 240


def rooms(split: str, seed: int, names: tuple[str, ...] = NAMES) -> RoomsSet:
    """Scenes without pixels: one object of each name, somewhere."""
    rng = np.random.default_rng(seed)
    scenes = []
    for index in range(IMAGES):
        views = []
        for code, name in enumerate(names, 1):
            x, y = rng.integers(0, SIZE - 3, 2).tolist()
            depth = float(rng.uniform(1, 6))
            views.append(View(name, "red", "plain", "floor", code, Box(x, y, 3, 3), 9, depth))
        scenes.append(SceneView(f"{split}-{index}", index, SIZE, tuple(views)))
    images = np.zeros((IMAGES, SIZE, SIZE, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(IMAGES)
    images[:, 0, 0, 1] = split == "test"
    depth, masks = (np.zeros((IMAGES, SIZE, SIZE), kind) for kind in (np.float16, np.uint8))
    return RoomsSet(split, images, depth, masks, tuple(scenes))


def places(scenes: RoomsSet) -> np.ndarray:
    """All places, float [M, 9]."""
    return np.array(
        [
            [v.box.centre[0] / SIZE, v.box.centre[1] / SIZE, np.log(v.depth)]
            for scene in scenes.scenes
            for v in scene.views
        ]
    ).reshape(IMAGES, -1)


class Model:
    """Embeds an image, whose number is in its first pixel, by a table of each split."""

    device, image_size = torch.device("cpu"), SIZE

    def __init__(self, train: np.ndarray, test: np.ndarray) -> None:
        self.table = torch.from_numpy(np.stack([train, test]))
        self.scenes = rooms("test", 1)

    def image(self, x: torch.Tensor) -> torch.Tensor:
        return self.table[x[:, 1, 0, 0].long(), x[:, 0, 0, 0].long()]

    def tokenize(self, captions: Sequence[str]) -> torch.Tensor:
        return torch.tensor([NAMES.index(caption.removeprefix("a ")) for caption in captions])

    def text(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.eye(4)[tokens]

    def dense(self, x: torch.Tensor, attend: Attend | None = None) -> torch.Tensor:
        """Give each pixel the name whose object has it in its centre, else a fourth."""
        assert attend is not None
        assert attend(x) is x, "the value attention"
        found = torch.eye(4)[3].repeat(len(x), SIZE, SIZE, 1)
        for row, index in enumerate(x[:, 0, 0, 0].tolist()):
            for code, view in enumerate(self.scenes.scenes[index].views):
                column, line = view.box.centre
                found[row, int(line), int(column)] = torch.eye(4)[code]
        return found


@pytest.fixture
def sets(monkeypatch: pytest.MonkeyPatch) -> tuple[RoomsSet, RoomsSet]:
    """(train, test), which ``load`` gives."""
    made = {"train": rooms("train", 0), "test": rooms("test", 1)}
    monkeypatch.setattr(located, "load", lambda split, images, size: made[split])
    return made["train"], made["test"]


def margins_of(probes: dict[str, Probe], x: np.ndarray, chosen: Sequence[Record]) -> np.ndarray:
    """Margins of probes of embeddings x."""
    return located.margins({name: probe(x) for name, probe in probes.items()}, chosen)


def mixed(scenes: RoomsSet, chosen: list[int]) -> np.ndarray:
    """Embeddings that hold the chosen of the nine numbers, mixed; a tenth feature is constant."""
    values = np.zeros((IMAGES, 9))
    values[:, chosen] = places(scenes)[:, chosen]
    turned = values @ np.linalg.qr(np.random.default_rng(5).normal(size=(9, 9)))[0]
    return np.concatenate([turned, np.ones((IMAGES, 1))], axis=1)


def test_the_probe_is_the_printed_equation() -> None:
    """(1) solved as written for every l, and (2) with the trace of the hat matrix."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)) * [1, 2, 3, 4, 5], rng.normal(size=(60, 3))
    y[:, 0] += x[:, 0]
    z, target = (x - x.mean(0)) / x.std(0), y - y.mean(0)
    best = [(np.inf, np.zeros(5))] * 3
    for penalty in PENALTIES:
        inverse = np.linalg.inv(z.T @ z / 60 + penalty * np.eye(5))
        weight, hat = inverse @ (z.T @ target / 60), z @ inverse @ z.T / 60
        gcv = 60 * ((target - z @ weight) ** 2).sum(0) / (60 - 1 - np.trace(hat)) ** 2
        best = [min(old, (gcv[k], weight[:, k]), key=lambda o: o[0]) for k, old in enumerate(best)]
    new = rng.normal(size=(4, 5))
    expected = y.mean(0) + (new - x.mean(0)) / x.std(0) @ np.stack([w for _, w in best], axis=1)
    np.testing.assert_allclose(Probe.fit(x, y)(new), expected, atol=1e-10)


def test_an_embedding_that_holds_every_place_answers_every_pair(
    sets: tuple[RoomsSet, RoomsSet],
) -> None:
    everything = list(range(9))
    evidence = Located(vfm="none").run(Model(*(mixed(each, everything) for each in sets)))  # type: ignore[arg-type]
    values = evidence.values()
    assert all(values[f"embedding: {name}"] > 99 for name in RELATIONS)
    assert evidence.units == len(sets[1].records)
    assert evidence.known_margins.units.tolist() == [r.record_id for r in sets[1].records]


def test_patches_answer_by_where_they_see_the_names(sets: tuple[RoomsSet, RoomsSet]) -> None:
    """Without a depth head close and far are ties."""
    model = Model(*(mixed(each, [0]) for each in sets))
    found = Located(vfm="none").run(model).values()  # type: ignore[arg-type]
    assert min(found[f"patches: {name}"] for name in ("left", "right", "above", "under")) > 95
    assert found["patches: close"] == found["patches: far"] == 50
    model.dense = lambda x: x  # type: ignore[assignment,method-assign]
    evidence = Located(vfm="none").run(model)  # type: ignore[arg-type]
    assert not any(name.startswith("patches") for name in evidence.values())
    assert evidence.notes["patches"].startswith("not measured")


def test_an_embedding_of_x_alone_answers_left_and_right(sets: tuple[RoomsSet, RoomsSet]) -> None:
    evidence = Located(vfm="none").run(Model(*(mixed(each, [0, 3, 6]) for each in sets)))  # type: ignore[arg-type]
    found = {name: evidence.values()[f"embedding: {name}"] for name in RELATIONS}
    assert min(found["left"], found["right"]) > 99
    assert all(35 < found[name] < 65 for name in ("above", "under", "close", "far"))


def test_swapped_names_have_the_opposite_margin(sets: tuple[RoomsSet, RoomsSet]) -> None:
    train, test = sets
    rng = np.random.default_rng(3)
    x = rng.normal(size=(IMAGES, 6))
    probes = located.fit_probes(x, train)
    found = margins_of(probes, x, test.records)
    swap = swapped(test.record_set()).records
    assert np.array_equal(margins_of(probes, x, swap), -found)


def test_a_name_that_training_hardly_shows_is_a_tie(sets: tuple[RoomsSet, RoomsSet]) -> None:
    train, test = sets
    few = tuple(
        SceneView(scene.scene_id, row, SIZE, scene.views[: 3 if row < LEAST - 1 else 2])
        for row, scene in enumerate(train.scenes)
    )
    probes = located.fit_probes(mixed(train, [0]), replace(train, scenes=few))
    assert set(probes) == {"sofa", "lamp"}
    found = margins_of(probes, mixed(test, [0]), records(test.scenes))
    known = [{r.subject, r.object} == {"sofa", "lamp"} for r in records(test.scenes)]
    assert ((found != 0) == known).all()


def test_what_cannot_be_measured_is_one_line(
    sets: tuple[RoomsSet, RoomsSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(*(mixed(each, [0]) for each in sets))
    monkeypatch.setattr(located, "LEAST", IMAGES + 1)
    with refused(r"no object is seen in 241 of .*raise train_images"):
        Located(vfm="none").run(model)  # type: ignore[arg-type]
    model.table[0, 3] = torch.nan
    with refused("an embedding is not finite"):
        Located(vfm="none").run(model)  # type: ignore[arg-type]
