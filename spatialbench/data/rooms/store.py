"""Rendered scenes on disk: rendered once by several processes, appended in order, continued after a kill."""

from __future__ import annotations

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
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np

from spatialbench.data.records import Box, Record, RecordSet, fingerprint
from spatialbench.data.rooms.facts import SceneView, View, records
from spatialbench.data.rooms.render import Picture, render
from spatialbench.data.rooms.scene import SPLITS, VERSION, Scene, generate
from spatialbench.utils.cache import cache_root
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress
from spatialbench.utils.provenance import usable_cores

TEST_IMAGES, TEST_PER_RELATION, MAX_PER_IMAGE = 2400, 600, 6
"""The test split: 600 records of each relation, drawn from this many scenes, at most so many from one."""

T = TypeVar("T")
_SHARD = 32  # scenes a process renders before it hands them over
_RENDERING = (
    "SPATIALBENCH_RENDERING"  # the folder that this process or the one that started it fills
)
_here: str | None = None  # the folder that this process fills


def view(scene: Scene, picture: Picture) -> SceneView:
    """The visible objects of a rendered scene."""
    found = []
    for k, instance in enumerate(scene.objects):
        box = picture.box(k)
        if box is None:
            continue
        inside = picture.mask == k + 1
        depth = float(picture.depth[inside].mean(dtype=np.float64))
        found.append(
            View(
                instance.name,
                instance.colour,
                instance.pattern,
                instance.mount,
                k + 1,
                box,
                int(inside.sum()),
                depth,
            )
        )
    return SceneView(scene.scene_id, scene.index, picture.image.shape[0], tuple(found))


@dataclass(frozen=True)
class RoomsSet:
    """The first N scenes of a split.

    Attributes:
        images: uint8 [N, S, S, 3]. depth: float16 [N, S, S], metres. masks: uint8 [N, S, S], 0 the room, else the
            object's ``View.code``. All memory-mapped.
        scenes: what is visible in each.
    """

    split: str
    images: np.ndarray
    depth: np.ndarray
    masks: np.ndarray
    scenes: tuple[SceneView, ...]
    test: bool = False

    @cached_property
    def records(self) -> list[Record]:
        """The balanced records (``facts.records``)."""
        if self.test:
            return records(self.scenes, TEST_PER_RELATION, MAX_PER_IMAGE)
        return records(self.scenes)

    def record_set(self) -> RecordSet:
        digest = f"rooms-v{VERSION}-{self.split}-{self.images.shape}"
        return RecordSet(
            f"rooms/{self.split}", self.images, self.records, fingerprint(self.records, digest)
        )


def load(split: str, images: int | None, size: int, cache_dir: Path | None = None) -> RoomsSet:
    """The first ``images`` scenes of ``split`` at ``size`` pixels, rendered if they are not in the cache yet.

    Args:
        split: ``pretrain``, ``train``, ``val`` or ``test``.
        images: None only for ``test``: the balanced test of 3,600 records.

    Raises:
        SpatialbenchError: unknown split, or the cache cannot be written.
    """
    if split not in SPLITS:
        raise SpatialbenchError(f"unknown split {split!r} of rooms; one of {', '.join(SPLITS)}")
    test = split == "test" and images is None
    if images is None and not test:
        raise SpatialbenchError(f"say how many images of the split {split!r} of rooms to take")
    count = TEST_IMAGES if images is None else images
    folder = (cache_dir or cache_root()) / "rooms" / f"v{VERSION}-{code_hash()}-{size}" / split
    store = _Store(folder, split, size)
    store.extend(count)
    return RoomsSet(split, *store.arrays(count), store.scenes(count), test)


@cache
def code_hash(*further: str) -> str:
    """Hash of the generator's source, of ``further`` modules beside it and of its libraries: a changed generator misses
    the cache."""
    import embreex  # noqa: F401
    import trimesh

    digest = hashlib.sha256(f"{trimesh.__version__} {np.__version__}".encode())
    for name in ("shapes", "kinds", "scene", "render", *further):
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()[:10]


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A folder of the cache, made where it is not there, for this process alone.

    Raises:
        SpatialbenchError: it cannot be written, or this is a worker that reads the main module again.
    """
    if os.environ.get(_RENDERING) == str(folder) != _here:
        raise SpatialbenchError(
            "the rooms are rendered by processes that import your script again: put what it does under "
            '`if __name__ == "__main__":`'
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("w")
    except OSError as error:
        raise SpatialbenchError(
            f"cannot write the cache {folder}: {error.strerror}; set SPATIALBENCH_CACHE to a folder you may write to"
        ) from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def in_parallel(
    folder: Path, function: Callable[..., T], jobs: Iterable[tuple]
) -> Generator[T, None, None]:
    """``function(*job)`` of every job, in their order, by a process for each core.

    Args:
        folder: what is filled, which is locked.
        function: of a module; its arguments and results go from process to process.
        jobs: taken one by one, two for each process ahead of what was yielded; a single one is done here.
    """
    workers, waiting = usable_cores(), deque[Future[T]]()
    jobs = iter(jobs)
    ahead = list(islice(jobs, 2))
    jobs = chain(ahead, jobs)
    with _rendering(folder):
        if workers == 1 or len(ahead) < 2:
            yield from (function(*job) for job in jobs)
            return
        with ProcessPoolExecutor(
            workers, get_context("spawn"), _leave_interrupts_to_the_parent
        ) as pool:
            try:
                for job in jobs:
                    waiting.append(pool.submit(function, *job))
                    if len(waiting) == 2 * workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:  # after Ctrl-C only the jobs under way are waited for
                pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _rendering(folder: Path) -> Iterator[None]:
    """Marks this process and those it starts: see ``locked``."""
    global _here
    os.environ[_RENDERING] = _here = str(folder)
    try:
        yield
    finally:
        os.environ.pop(_RENDERING, None)
        _here = None


def _render_shard(
    split: str, start: int, stop: int, size: int
) -> tuple[int, bytes, bytes, bytes, list[str]]:
    pictures, lines = [], []
    for index in range(start, stop):
        scene = generate(split, index)
        picture = render(scene, size)
        pictures.append(picture)
        lines.append(json.dumps(asdict(view(scene, picture))))
    return (
        stop - start,
        np.stack([p.image for p in pictures]).tobytes(),
        np.stack([p.depth for p in pictures]).astype(np.float16).tobytes(),
        np.stack([p.mask for p in pictures]).tobytes(),
        lines,
    )


class _Store:
    """Three flat files and a list of scenes, each grown by whole shards; what a kill left half written is cut off."""

    def __init__(self, folder: Path, split: str, size: int) -> None:
        self.folder, self.split, self.size = folder, split, size
        pixels = size * size
        self.files = {
            "images.u8": 3 * pixels,
            "depth.f16": 2 * pixels,
            "masks.u8": pixels,
        }  # bytes a scene

    def _count(self) -> int:
        """Scenes that all files hold completely."""
        counts = []
        for name, width in self.files.items():
            path = self.folder / name
            counts.append(path.stat().st_size // width if path.exists() else 0)
        path = self.folder / "scenes.jsonl"
        counts.append(path.read_bytes().count(b"\n") if path.exists() else 0)
        return min(counts)

    def extend(self, count: int) -> None:
        """Renders what is missing up to ``count`` scenes."""
        if self._count() >= count:
            return
        with locked(self.folder):
            done = self._count()
            if done >= count:
                return
            self._cut(done)
            jobs = [
                (self.split, k, min(k + _SHARD, count), self.size)
                for k in range(done, count, _SHARD)
            ]
            results = in_parallel(self.folder, _render_shard, jobs)
            with (
                progress(f"rendering rooms/{self.split}", count - done, unit="images") as advance,
                closing(results),
            ):
                for shard in results:
                    advance(self._append(shard))

    def _append(self, shard: tuple[int, bytes, bytes, bytes, list[str]]) -> int:
        count, *arrays, lines = shard
        for name, content in zip(self.files, arrays, strict=True):
            with (self.folder / name).open("ab") as stream:
                stream.write(content)
        with (self.folder / "scenes.jsonl").open("a") as text:
            text.write("".join(line + "\n" for line in lines))
        return count

    def _cut(self, count: int) -> None:
        for name, width in self.files.items():
            path = self.folder / name
            if path.exists():
                os.truncate(path, count * width)
        path = self.folder / "scenes.jsonl"
        if path.exists():
            whole = path.read_bytes().split(b"\n")[:count]
            os.truncate(path, sum(len(line) + 1 for line in whole))

    def arrays(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        s = self.size
        return (
            np.memmap(self.folder / "images.u8", np.uint8, "r", shape=(count, s, s, 3)),
            np.memmap(self.folder / "depth.f16", np.float16, "r", shape=(count, s, s)),
            np.memmap(self.folder / "masks.u8", np.uint8, "r", shape=(count, s, s)),
        )

    def scenes(self, count: int) -> tuple[SceneView, ...]:
        found = []
        with (self.folder / "scenes.jsonl").open() as stream:
            for line, _ in zip(stream, range(count), strict=False):
                raw = json.loads(line)
                views = tuple(View(**{**v, "box": Box(**v["box"])}) for v in raw["views"])
                found.append(SceneView(raw["scene_id"], raw["index"], raw["size"], views))
        return tuple(found)
