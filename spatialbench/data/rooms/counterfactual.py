"""Image selection in the rooms: a scene and its counterfactual, cached by the generator's code.

Eight patterns with equally many pairs: the six relations, colour and presence (``changes.py``). A
pair counts if the rendered images make each caption true of its own image and false of the other.

Letters: M pairs, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spatialbench.data.images import Resize
from spatialbench.data.rooms.changes import PATTERNS, Change, Seen, changes, seen_all
from spatialbench.data.rooms.render import render
from spatialbench.data.rooms.scene import VERSION, Scene, generate
from spatialbench.data.rooms.store import (
    TEST_IMAGES,
    cache_folder,
    check_split,
    in_parallel,
    locked,
    view,
)
from spatialbench.data.selection_sets import ImagePairs, SelectionSet, fingerprint
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.npz import npz_bytes
from spatialbench.utils.progress import progress

TRIES = 3
"""At most so many changes of one pattern are rendered for one scene, until one holds."""
SHARD = 16  # scenes of one job
SOURCE = ("store", "facts", "changes", "counterfactual", "../relations")
"""The modules beside the generator's that decide the pairs."""


class Pair(NamedTuple):
    """One pair; images: uint8 [2, S, S, 3]."""

    pattern: str
    scene: str
    captions: tuple[str, str]
    images: np.ndarray


class Counterfactual(SelectionSet):
    """Pairs of the first scenes of a split that have any.

    Args:
        split: ``pretrain``, ``train``, ``val`` or ``test``.
        pairs: of each pattern.
        scenes: the number of scenes to search.

    Raises:
        SpatialbenchError: unknown split, or no pairs asked for.
    """

    def __init__(self, split: str = "test", pairs: int = 100, scenes: int = TEST_IMAGES) -> None:
        check_split(split)
        if pairs < 1:
            raise SpatialbenchError(
                f"counterfactual pairs: {pairs} of each pattern; ask for 1 or more"
            )
        self.split, self.count, self.scenes = split, pairs, scenes
        self.name = f"counterfactual rooms/{split}"

    def pairs(self, size: int, resize: Resize = "crop") -> ImagePairs:
        """Return the pairs, rendered if they are not in the cache; see the base class.

        Raises:
            SpatialbenchError: the scenes have too few pairs, or the cache cannot be written.
        """
        folder = cache_folder(size, *SOURCE)
        path = folder / f"counterfactual-{self.split}-{self.count}.npz"
        arrays = _read(path)
        if arrays is None:
            with locked(folder):
                arrays = _read(path) or self._rendered(folder, size)
                write_atomic(path, npz_bytes(arrays))
        captions = [(str(first), str(second)) for first, second in arrays["captions"]]
        scenes, pattern = arrays["scenes"].tolist(), arrays["pattern"]
        defining = (self.split, size, captions, scenes, pattern.tolist(), PATTERNS)
        data = fingerprint("rooms", VERSION, *defining)
        return ImagePairs(arrays["images"], captions, pattern, PATTERNS, scenes, data)

    def _rendered(self, folder: Path, size: int) -> dict[str, np.ndarray]:
        """Return the first pairs of every pattern in the order of the scenes."""
        pairs: dict[str, list[Pair]] = {pattern: [] for pattern in PATTERNS}

        def unfilled() -> list[str]:
            return [pattern for pattern in PATTERNS if len(pairs[pattern]) < self.count]

        def jobs() -> Iterator[tuple[str, int, int, int, frozenset[str]]]:
            for start in range(0, self.scenes, SHARD):
                if not (patterns := frozenset(unfilled())):
                    return
                yield self.split, start, min(start + SHARD, self.scenes), size, patterns

        total = self.count * len(PATTERNS)
        results = in_parallel(folder, render_shard, jobs())
        with progress(f"rendering {self.name}", total, "pairs") as advance, closing(results):
            for shard in results:
                for pair in shard:
                    if len(pairs[pair.pattern]) < self.count:
                        pairs[pair.pattern].append(pair)
                        advance(1)
        if short := unfilled():
            least = min(short, key=lambda pattern: len(pairs[pattern]))
            raise SpatialbenchError(
                f"{self.scenes} scenes of rooms/{self.split} have {len(pairs[least])} pairs of the "
                f"pattern {least!r}, not {self.count}; ask for fewer pairs, or search more scenes"
            )
        ordered = [pair for pattern in PATTERNS for pair in pairs[pattern]]
        return {
            "images": np.stack([pair.images for pair in ordered]),
            "captions": np.array([pair.captions for pair in ordered]),
            "scenes": np.array([pair.scene for pair in ordered]),
            "pattern": np.array([PATTERNS.index(pair.pattern) for pair in ordered], dtype=np.int64),
        }


def render_shard(
    split: str, start: int, stop: int, size: int, patterns: frozenset[str]
) -> list[Pair]:
    """Return the pairs of some scenes in order, at most one of each of ``patterns`` for a scene."""
    scenes = [generate(split, index) for index in range(start, stop)]
    firsts = _look(scenes, size)
    candidates = {
        (row, pattern): found
        for row, (scene, seen) in enumerate(zip(scenes, firsts, strict=True))
        for pattern, found in changes(scene, seen).items()
        if pattern in patterns
    }
    pairs: dict[tuple[int, str], Pair] = {}
    for _ in range(TRIES):
        tried: list[tuple[tuple[int, str], Change]] = [
            (key, change)
            for key, found in candidates.items()
            if key not in pairs and (change := next(found, None)) is not None
        ]
        seconds = _look([change.scene for _, change in tried], size)
        for (key, change), second in zip(tried, seconds, strict=True):
            first = firsts[key[0]]
            if change.holds(first, second):
                images = np.stack([first.rendering.image, second.rendering.image])
                captions = change.claims[0].text, change.claims[1].text
                pairs[key] = Pair(change.pattern, scenes[key[0]].scene_id, captions, images)
    return [pairs[key] for key in sorted(pairs, key=lambda key: (key[0], PATTERNS.index(key[1])))]


def _look(scenes: Sequence[Scene], size: int) -> list[Seen]:
    renderings = [render(scene, size) for scene in scenes]
    return seen_all(renderings, [view(*pair) for pair in zip(scenes, renderings, strict=True)])


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays of a file of pairs; None: it is missing or damaged and is made again."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in ("images", "captions", "scenes", "pattern")}
    except Exception:  # missing, or what a damaged archive makes numpy raise
        return None
