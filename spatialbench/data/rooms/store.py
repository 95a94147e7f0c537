"""Rendered scenes on disk: rendered once by several processes, appended in order, resumable."""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from itertools import chain, islice
from math import prod
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from spatialbench.data.records import Box, Record, RecordSet, fingerprint
from spatialbench.data.rooms.facts import SceneView, View, records
from spatialbench.data.rooms.render import Rendering, render
from spatialbench.data.rooms.scene import SPLITS, VERSION, Scene, generate
from spatialbench.utils.cache import cache_root
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress
from spatialbench.utils.provenance import usable_cores

TEST_IMAGES, TEST_PER_RELATION, MAX_PER_IMAGE = 2400, 600, 6
"""The balanced test: scenes, records of each relation, and at most so many of one scene."""

T = TypeVar("T")
_SHARD = 32  # scenes that a process renders before it returns them
_RENDERING = "SPATIALBENCH_RENDERING"  # the folder that this process or its parent fills
_FILES: dict[str, tuple[type, tuple[int, ...]]] = {
    "images.u8": (np.uint8, (3,)),
    "depth.f16": (np.float16, ()),
    "masks.u8": (np.uint8, ()),
}  # name -> type and channels
_SCENES = "scenes.jsonl"
_here: str | None = None  # the folder that this process fills


def view(scene: Scene, rendering: Rendering) -> SceneView:
    """Return the visible objects of a rendered scene."""
    views = []
    for k, o in enumerate(scene.objects):
        box = rendering.box(k)
        if box is not None:
            inside = rendering.mask == k + 1
            area, depth = int(inside.sum()), float(rendering.depth[inside].mean(dtype=np.float64))
            views.append(View(o.name, o.colour, o.pattern, o.mount, k + 1, box, area, depth))
    return SceneView(scene.scene_id, scene.index, rendering.image.shape[0], tuple(views))


@dataclass(frozen=True)
class RoomsSet:
    """The first N scenes of a split, memory-mapped."""

    split: str
    images: np.ndarray  # uint8 [N, S, S, 3]
    depth: np.ndarray  # float16 [N, S, S], metres
    masks: np.ndarray  # uint8 [N, S, S], 0 for the room, else the object's ``View.code``
    scenes: tuple[SceneView, ...]  # N
    test: bool = False  # whether the records are those of the balanced test

    @cached_property
    def records(self) -> list[Record]:
        """The balanced records (``facts.records``)."""
        if self.test:
            return records(self.scenes, TEST_PER_RELATION, MAX_PER_IMAGE)
        return records(self.scenes)

    def record_set(self) -> RecordSet:
        """Return the images with their records."""
        digest = fingerprint(self.records, f"rooms-v{VERSION}-{self.split}-{self.images.shape}")
        return RecordSet(f"rooms/{self.split}", self.images, self.records, digest)


def load(split: str, images: int | None, size: int, cache_dir: Path | None = None) -> RoomsSet:
    """Return N = ``images`` scenes of a split at ``size`` pixels a side, rendered if not cached.

    Without ``images`` the split ``test`` is the balanced test of 3,600 records.

    Raises:
        SpatialbenchError: unknown split, or the cache cannot be written.
    """
    check_split(split)
    test = split == "test" and images is None
    if images is None and not test:
        raise SpatialbenchError(f"say how many images of the split {split!r} of rooms to take")
    count = TEST_IMAGES if images is None else images
    store = _Store(cache_folder(size, root=cache_dir) / split, split, size)
    store.extend(count)
    pixels, depth, masks = store.arrays(count)
    return RoomsSet(split, pixels, depth, masks, store.scenes(count), test)


def check_split(split: str) -> None:
    """Raise a SpatialbenchError for an unknown split."""
    if split not in SPLITS:
        raise SpatialbenchError(f"unknown split {split!r} of rooms; one of {', '.join(SPLITS)}")


def cache_folder(size: int, *modules: str, root: Path | None = None) -> Path:
    """Return the folder of scenes at ``size`` pixels, keyed by :func:`code_hash`."""
    return (root or cache_root()) / "rooms" / f"v{VERSION}-{code_hash(*modules)}-{size}"


@cache
def code_hash(*modules: str) -> str:
    """Hash the code of the generator, of ``modules`` beside it, and the versions of its libraries.

    A changed generator misses the cache; changed words do not.
    """
    import embreex  # noqa: F401
    import trimesh

    digest = hashlib.sha256(f"{trimesh.__version__} {np.__version__}".encode())
    for name in ("shapes", "kinds", "scene", "render", *modules):
        source = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
        digest.update(bare_code(source).encode())
    return digest.hexdigest()[:10]


def bare_code(source: str) -> str:
    """Return Python code without its comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            body[:] = [statement for statement in body if not _is_text(statement)]
    return ast.unparse(tree)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder of the cache for this process; the folder is created first.

    Raises:
        SpatialbenchError: it cannot be written, or this is a worker that imports the main script.
    """
    if os.environ.get(_RENDERING) == str(folder) != _here:
        raise SpatialbenchError(
            "the rooms are rendered by processes that import your script again: put its actions "
            'under `if __name__ == "__main__":`'
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("w")
    except OSError as error:
        raise SpatialbenchError(
            f"cannot write the cache {folder}: {error.strerror}; set SPATIALBENCH_CACHE to a "
            "folder you may write to"
        ) from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def in_parallel(
    folder: Path, function: Callable[..., T], jobs: Iterable[tuple]
) -> Generator[T, None, None]:
    """Yield ``function(*job)`` of every job in order, computed by one process for each core.

    Jobs are read lazily, two for each process ahead of the last result; a single one runs here.
    ``folder`` is the locked folder that they fill.
    """
    workers, waiting = usable_cores(), deque[Future[T]]()
    jobs = iter(jobs)
    ahead = list(islice(jobs, 2))
    jobs = chain(ahead, jobs)
    with _rendering(folder):
        if workers == 1 or len(ahead) < 2:
            yield from (function(*job) for job in jobs)
            return
        context = get_context("spawn")
        with ProcessPoolExecutor(workers, context, _leave_interrupts_to_the_parent) as pool:
            try:
                for job in jobs:
                    waiting.append(pool.submit(function, *job))
                    if len(waiting) == 2 * workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:  # Ctrl-C waits only for the running jobs
                pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _rendering(folder: Path) -> Iterator[None]:
    """Mark this process and its children: see ``locked``."""
    global _here
    os.environ[_RENDERING] = _here = str(folder)
    try:
        yield
    finally:
        os.environ.pop(_RENDERING, None)
        _here = None


def _render_shard(split: str, start: int, stop: int, size: int) -> tuple[list[bytes], list[str]]:
    """Return the bytes for each file, and a line for each scene."""
    scenes = [generate(split, index) for index in range(start, stop)]
    renderings = [render(scene, size) for scene in scenes]
    arrays = zip(*((r.image, r.depth, r.mask) for r in renderings), strict=True)
    content = [
        np.stack(array).astype(dtype).tobytes()
        for array, (dtype, _) in zip(arrays, _FILES.values(), strict=True)
    ]
    return content, [
        json.dumps(asdict(view(*pair))) for pair in zip(scenes, renderings, strict=True)
    ]


class _Store:
    """Three flat files and a list of scenes that grow by whole shards; partial ones are cut off."""

    def __init__(self, folder: Path, split: str, size: int) -> None:
        self.folder, self.split, self.size = folder, split, size
        self.widths = {  # bytes of a scene
            name: np.dtype(dtype).itemsize * size * size * prod(channels)
            for name, (dtype, channels) in _FILES.items()
        }

    def _count(self) -> int:
        """Return the number of scenes that are complete in all files."""
        if not all((self.folder / name).exists() for name in (*_FILES, _SCENES)):
            return 0
        sizes = [(self.folder / name).stat().st_size // w for name, w in self.widths.items()]
        return min(*sizes, (self.folder / _SCENES).read_bytes().count(b"\n"))

    def extend(self, count: int) -> None:
        """Render the missing scenes up to ``count``."""
        if self._count() >= count:
            return
        with locked(self.folder):
            done = self._count()
            if done >= count:
                return
            self._cut(done)
            starts = range(done, count, _SHARD)
            jobs = [(self.split, k, min(k + _SHARD, count), self.size) for k in starts]
            results = in_parallel(self.folder, _render_shard, jobs)
            title = f"rendering rooms/{self.split}"
            with progress(title, count - done, unit="images") as advance, closing(results):
                for content, lines in results:
                    self._append(content, lines)
                    advance(len(lines))

    def _append(self, content: list[bytes], lines: list[str]) -> None:
        for name, data in zip(_FILES, content, strict=True):
            with (self.folder / name).open("ab") as stream:
                stream.write(data)
        with (self.folder / _SCENES).open("a") as text:
            text.write("".join(line + "\n" for line in lines))

    def _cut(self, count: int) -> None:
        for name, width in self.widths.items():
            with (self.folder / name).open("ab") as stream:
                stream.truncate(count * width)
        with (self.folder / _SCENES).open("a+b") as stream:
            stream.seek(0)
            stream.truncate(sum(len(line) for line in islice(stream, count)))

    def arrays(self, count: int) -> Iterator[Any]:
        shape = (count, self.size, self.size)
        for name, (dtype, channels) in _FILES.items():
            yield np.memmap(self.folder / name, dtype, "r", shape=shape + channels)

    def scenes(self, count: int) -> tuple[SceneView, ...]:
        with (self.folder / _SCENES).open() as stream:
            return tuple(_parsed(**json.loads(line)) for line in islice(stream, count))


def _parsed(views: list[dict[str, Any]], **scene: Any) -> SceneView:
    return SceneView(views=tuple(View(**{**v, "box": Box(**v["box"])}) for v in views), **scene)
