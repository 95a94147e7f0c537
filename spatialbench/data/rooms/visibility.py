"""The visible share of an object, by tracing it again without the others.

Letters: S pixels a side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh

from spatialbench.data.rooms.render import mesh_of, rays
from spatialbench.data.rooms.scene import Scene, generate
from spatialbench.data.rooms.store import RoomsSet, cache_folder
from spatialbench.utils.errors import write_atomic
from spatialbench.utils.npz import npz_bytes
from spatialbench.utils.progress import progress

_scene = lru_cache(maxsize=1)(generate)


def silhouette(scene: Scene, k: int, size: int) -> int:
    """Return the pixels of an image of ``size`` that object k would fill alone in its room."""
    mesh = mesh_of(replace(scene, objects=(scene.objects[k],)))
    tracer = rtcore_scene.EmbreeScene()
    TriangleMesh(tracer, mesh.corners)
    origins, directions, _ = rays(scene, size)
    return int((mesh.instance[tracer.run(origins, directions)] == 1).sum())


def visible_shares(
    rooms: RoomsSet, objects: Iterable[tuple[int, str]]
) -> dict[tuple[int, str], float]:
    """Return the visible share in (0, 1] of objects (row, name), as far as they lie in the image.

    The result is cached; tracing takes some ten milliseconds an object.
    """
    wanted, size = sorted(set(objects)), rooms.images.shape[1]
    digest = hashlib.sha256(repr((rooms.split, wanted)).encode()).hexdigest()[:12]
    path = cache_folder(size, "visibility") / f"visible-{digest}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as archive:
            return dict(zip(wanted, archive["share"].tolist(), strict=True))
    shares = []
    title = f"tracing objects of rooms/{rooms.split}"
    with progress(title, len(wanted), unit="objects") as advance:
        for row, name in wanted:
            scene, view = (
                _scene(rooms.split, rooms.scenes[row].index),
                rooms.scenes[row].named[name],
            )
            shares.append(view.area / max(silhouette(scene, view.code - 1, size), view.area))
            advance(1)
    write_atomic(path, npz_bytes({"share": np.array(shares)}))
    return dict(zip(wanted, shares, strict=True))
