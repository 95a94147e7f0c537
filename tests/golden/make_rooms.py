"""Write tests/golden/rooms.json: ``python tests/golden/make_rooms.py``, after raising VERSION."""

import json
import platform
from pathlib import Path

import embreex
import numpy
import trimesh

from spatialbench.data.rooms.render import render
from spatialbench.data.rooms.scene import VERSION, generate
from spatialbench.data.rooms.store import view
from spatialbench.utils.errors import write_atomic


def describe(split: str, index: int) -> dict[str, object]:
    scene = generate(split, index)
    image = render(scene, 48)
    return {
        "split": split,
        "index": index,
        "objects": [o.name for o in scene.objects],
        "mean_rgb": [round(float(c), 3) for c in image.image.mean((0, 1))],
        "mean_depth": round(float(image.depth.mean()), 5),
        "areas": {v.name: v.area for v in view(scene, image).views},
    }


if __name__ == "__main__":
    golden = {
        "made_by": "python tests/golden/make_rooms.py",
        "versions": {
            "embreex": getattr(embreex, "__version__", "unknown"),
            "trimesh": trimesh.__version__,
            "numpy": numpy.__version__,
            "machine": platform.machine(),
        },
        "version": VERSION,
        "scenes": [
            describe(split, index)
            for split in ("pretrain", "train", "val", "test")
            for index in (0, 41)
        ],
    }
    write_atomic(Path(__file__).parent / "rooms.json", json.dumps(golden, indent=1) + "\n")
