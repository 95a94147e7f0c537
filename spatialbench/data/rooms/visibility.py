"""How much of an object a picture shows: what the others hide of it is found by tracing the object alone.

Letters: S pixels a side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh

from spatialbench.data.rooms.render import _mesh, _rays
from spatialbench.data.rooms.scene import VERSION, Scene, generate
from spatialbench.data.rooms.store import RoomsSet, code_hash
from spatialbench.utils.cache import cache_root
from spatialbench.utils.errors import write_atomic
from spatialbench.utils.npz import npz_bytes
from spatialbench.utils.progress import progress


def silhouette(scene: Scene, k: int, size: int) -> int:
    """Pixels of a picture of ``size`` that object k would fill if it stood in its room alone."""
    mesh = _mesh(replace(scene, objects=(scene.objects[k],)))
    tracer = rtcore_scene.EmbreeScene()
    TriangleMesh(tracer, mesh.corners)
    origins, directions, _ = _rays(scene, size)
    return int((mesh.instance[tracer.run(origins, directions)] == 1).sum())


def visible_shares(
    rooms: RoomsSet, objects: Iterable[tuple[int, str]]
) -> dict[tuple[int, str], float]:
    """(row of the picture, name) -> share in (0, 1] of the object, as far as it lies in the picture, that is seen.

    Kept in the cache; tracing takes some ten milliseconds an object.

    Args:
        objects: named objects of the scenes.
    """
    wanted, size = sorted(set(objects)), rooms.images.shape[1]
    digest = hashlib.sha256(repr((rooms.split, wanted)).encode()).hexdigest()[:12]
    path = (
        cache_root()
        / "rooms"
        / f"v{VERSION}-{code_hash('visibility')}-{size}"
        / f"visible-{digest}.npz"
    )
    if path.is_file():
        with np.load(path, allow_pickle=False) as archive:
            return dict(zip(wanted, archive["share"].tolist(), strict=True))
    shares, scene, row_of_scene = [], None, -1
    with progress(
        f"tracing objects of rooms/{rooms.split}", len(wanted), unit="objects"
    ) as advance:
        for row, name in wanted:
            if row != row_of_scene:
                scene, row_of_scene = generate(rooms.split, rooms.scenes[row].index), row
            assert scene is not None, "generated above"
            view = rooms.scenes[row].named[name]
            shares.append(view.area / max(silhouette(scene, view.code - 1, size), view.area))
            advance(1)
    write_atomic(path, npz_bytes({"share": np.array(shares)}))
    return dict(zip(wanted, shares, strict=True))
