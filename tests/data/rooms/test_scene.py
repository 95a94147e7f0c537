"""Scenes and images: determinism, exact depth and masks, the objects themselves."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spatialbench.data.rooms.kinds import KINDS
from spatialbench.data.rooms.render import render
from spatialbench.data.rooms.scene import VERSION, Instance, build, generate
from spatialbench.data.rooms.store import view

GOLDEN = Path(__file__).parents[2] / "golden" / "rooms.json"
SIZE = 48


def test_same_arguments_same_image_and_other_arguments_another() -> None:
    scene, again = generate("train", 3), generate("train", 3)
    assert scene == again
    assert np.array_equal(render(scene, SIZE).image, render(again, SIZE).image)
    assert generate("train", 4) != scene
    for split in ("pretrain", "val", "test"):
        assert replace(generate(split, 3), split="train") != scene


@pytest.mark.parametrize(("split", "index"), [("nowhere", 0), ("train", -1)])
def test_unknown_split_or_index_is_refused(split: str, index: int) -> None:
    with pytest.raises(ValueError, match=r"split|negative"):
        generate(split, index)


def test_images_are_those_of_the_golden_file() -> None:
    """A change of the generator raises ``VERSION`` and rewrites the golden file (see its head)."""
    golden = json.loads(GOLDEN.read_text())
    assert golden["version"] == VERSION
    for expected in golden["scenes"]:
        scene = generate(expected["split"], expected["index"])
        assert [o.name for o in scene.objects] == expected["objects"]
        image = render(scene, SIZE)
        assert image.image.mean((0, 1)) == pytest.approx(expected["mean_rgb"], abs=0.3)
        assert float(image.depth.mean()) == pytest.approx(expected["mean_depth"], rel=1e-3)
        seen = {v.name: v.area for v in view(scene, image).views}
        assert seen.keys() == expected["areas"].keys()
        for name, area in expected["areas"].items():
            assert abs(seen[name] - area) <= 2, name


def test_depth_of_the_empty_room_is_the_distance_to_its_planes() -> None:
    scene = replace(generate("train", 0), objects=())
    image = render(scene, SIZE)
    assert (image.mask == 0).all()
    half = np.tan(np.deg2rad(scene.camera.fov / 2))
    right, down, forward = scene.camera.axes()
    origin = np.array(scene.camera.position)
    for row, column in ((0, 0), (5, 40), (24, 24), (47, 3), (40, 30)):
        u, v = ((np.array([column, row]) + 0.5) / SIZE * 2 - 1) * half
        ray = forward + u * right + v * down  # depth 1 along the axis
        steps = np.concatenate([(bound - origin) / ray for bound in (0, np.array(scene.size))])
        assert image.depth[row, column] == pytest.approx(steps[steps > 0].min(), rel=1e-5)


def test_a_box_in_front_of_the_camera_is_where_it_was_put() -> None:
    scene = replace(generate("train", 0), objects=())
    x, y = scene.size[0] / 2, scene.camera.position[1] + 2.0
    camera = replace(scene.camera, position=(x, y - 2.0, 0.25), target=(x, y, 0.25), roll=0.0)
    box = Instance("box", "red", "plain", 7, (x, y, 0.0), 0.0, "floor")
    image = render(replace(scene, camera=camera, objects=(box,)), SIZE)
    corners = np.concatenate(build(box).corners).reshape(-1, 3)
    half = np.tan(np.deg2rad(camera.fov / 2))
    front = 2.0 + corners[:, 1].min()  # metres to the face that looks at the camera
    assert image.depth[image.mask == 1].min() == pytest.approx(front, abs=1e-4)
    seen = image.box(0)
    assert seen is not None
    width = (corners[:, 0].max() - corners[:, 0].min()) / front / (2 * half) * SIZE
    assert seen.w == pytest.approx(width, abs=1.5)
    assert seen.centre[0] == pytest.approx(SIZE / 2, abs=1.0)
    assert seen.y + seen.h == pytest.approx(SIZE / 2 * (1 + 0.25 / front / half), abs=1.5)


def test_there_are_kinds_enough_and_each_has_parts_and_varies() -> None:
    assert len(KINDS) >= 24
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    for kind in KINDS:
        shapes = []
        for seed in (1, 2):
            instance = Instance(kind.name, kind.colours[0], "plain", seed, (0, 0, 0), 0.0, "floor")
            built = build(instance)
            assert len(built.corners) >= 2 or kind.name == "ball", kind.name
            corners = np.concatenate(built.corners).reshape(-1, 3)
            assert np.isfinite(corners).all()
            assert corners[:, 2].min() > -0.03 or kind.mount == "wall", kind.name
            shapes.append(corners.max(0) - corners.min(0))
        assert not np.allclose(shapes[0], shapes[1]), kind.name


def test_a_light_casts_a_shadow() -> None:
    """A floor pixel behind an object, seen from the light, is darker than in the empty room."""
    scene = generate("train", 0)
    full, empty = render(scene, SIZE), render(replace(scene, objects=()), SIZE)
    room = full.mask == 0
    darker = empty.image[room].astype(int).sum(1) - full.image[room].astype(int).sum(1)
    assert (darker > 60).sum() > 5
    assert (darker < -60).sum() == 0
