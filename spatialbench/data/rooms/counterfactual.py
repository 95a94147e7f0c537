"""Image selection in the rooms: a scene and its counterfactual, rendered once, kept by the content of the generator.

Eight patterns of as many pairs each: the six relations, colour and presence (see ``changes.py``). A pair is taken when
what the renderer saw makes either caption true of its own picture and false of the other.

Letters: M pairs, S pixels a side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spatialbench.data.images import Resize
from spatialbench.data.rooms.changes import PATTERNS, Change, Seen, changes, seen_all
from spatialbench.data.rooms.render import render
from spatialbench.data.rooms.scene import SPLITS, VERSION, Scene, generate
from spatialbench.data.rooms.store import TEST_IMAGES, code_hash, in_parallel, locked, view
from spatialbench.data.selection_sets import PicturePairs, SelectionSet, fingerprint
from spatialbench.utils.cache import cache_root
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.npz import npz_bytes
from spatialbench.utils.progress import progress

TRIES = 3
"""Changes of one pattern that are rendered for one scene at most, until one holds."""
SHARD = 16  # scenes a process looks at before it hands their pairs over


SOURCE = ("store", "facts", "changes", "counterfactual", "../relations")
"""The modules beside the generator's that decide what the pairs are."""


class Pair(NamedTuple):
    """One pair; images: uint8 [2, S, S, 3]."""

    pattern: str
    scene: str
    captions: tuple[str, str]
    images: np.ndarray


class Counterfactual(SelectionSet):
    """Pairs of the first scenes of a split that have some.

    Args:
        split: ``pretrain``, ``train``, ``val`` or ``test``.
        pairs: of each pattern.
        scenes: at most so many are looked at.

    Raises:
        SpatialbenchError: unknown split, or no pairs asked for.
    """

    def __init__(self, split: str = "test", pairs: int = 100, scenes: int = TEST_IMAGES) -> None:
        if split not in SPLITS:
            raise SpatialbenchError(f"unknown split {split!r} of rooms; one of {', '.join(SPLITS)}")
        if pairs < 1:
            raise SpatialbenchError(
                f"counterfactual pairs: {pairs} of each pattern; ask for 1 or more"
            )
        self.split, self.count, self.scenes = split, pairs, scenes
        self.name = f"counterfactual rooms/{split}"

    def pairs(self, size: int, resize: Resize = "crop") -> PicturePairs:
        """Raises:
        SpatialbenchError: the scenes do not have so many pairs, or the cache cannot be written.
        """
        folder = cache_root() / "rooms" / f"v{VERSION}-{code_hash(*SOURCE)}-{size}"
        path = folder / f"counterfactual-{self.split}-{self.count}.npz"
        arrays = _read(path)
        if arrays is None:
            with locked(folder):
                arrays = _read(path) or self._rendered(folder, size)
                write_atomic(path, npz_bytes(arrays))
        captions = [(str(first), str(second)) for first, second in arrays["captions"]]
        scenes, pattern = arrays["scenes"].tolist(), arrays["pattern"]
        whole = fingerprint(
            "rooms", VERSION, self.split, size, captions, scenes, pattern.tolist(), PATTERNS
        )
        return PicturePairs(arrays["images"], captions, pattern, PATTERNS, scenes, whole)

    def _rendered(self, folder: Path, size: int) -> dict[str, np.ndarray]:
        """The first pairs of every pattern in the order of the scenes, however many processes render them."""
        found: dict[str, list[Pair]] = {pattern: [] for pattern in PATTERNS}

        def jobs() -> Iterator[tuple[str, int, int, int, frozenset[str]]]:
            for start in range(0, self.scenes, SHARD):
                open_ = frozenset(
                    pattern for pattern in PATTERNS if len(found[pattern]) < self.count
                )
                if not open_:
                    return
                yield self.split, start, min(start + SHARD, self.scenes), size, open_

        total = self.count * len(PATTERNS)
        results = in_parallel(folder, render_shard, jobs())
        with progress(f"rendering {self.name}", total, "pairs") as advance, closing(results):
            for shard in results:
                before = sum(map(len, found.values()))
                for pair in shard:
                    if len(found[pair.pattern]) < self.count:
                        found[pair.pattern].append(pair)
                advance(sum(map(len, found.values())) - before)
        short = Counter(
            {
                pattern: len(found[pattern])
                for pattern in PATTERNS
                if len(found[pattern]) < self.count
            }
        )
        if short:
            least = min(short, key=lambda pattern: short[pattern])
            raise SpatialbenchError(
                f"{self.scenes} scenes of rooms/{self.split} have {short[least]} pairs of the pattern {least!r}, not "
                f"{self.count}; ask for fewer pairs, or look at more scenes"
            )
        ordered = [pair for pattern in PATTERNS for pair in found[pattern]]
        return {
            "images": np.stack([pair.images for pair in ordered]),
            "captions": np.array([pair.captions for pair in ordered]),
            "scenes": np.array([pair.scene for pair in ordered]),
            "pattern": np.array([PATTERNS.index(pair.pattern) for pair in ordered], dtype=np.int64),
        }


def render_shard(
    split: str, start: int, stop: int, size: int, patterns: frozenset[str]
) -> list[Pair]:
    """The pairs of some scenes, at most one of each of ``patterns`` for each scene, in the order of the scenes."""
    scenes = [generate(split, index) for index in range(start, stop)]
    firsts = _look(scenes, size)
    left = {
        (row, pattern): candidates
        for row, (scene, seen) in enumerate(zip(scenes, firsts, strict=True))
        for pattern, candidates in changes(scene, seen).items()
        if pattern in patterns
    }
    found: dict[tuple[int, str], Pair] = {}
    for _ in range(TRIES):
        tried: list[tuple[tuple[int, str], Change]] = []
        for key in list(left):
            change = next(left[key], None)
            if change is None or key in found:
                del left[key]
            else:
                tried.append((key, change))
        for (key, change), second in zip(
            tried, _look([change.scene for _, change in tried], size), strict=True
        ):
            first = firsts[key[0]]
            if change.holds(first, second):
                images = np.stack([first.picture.image, second.picture.image])
                one, two = change.claims
                found[key] = Pair(
                    change.pattern, scenes[key[0]].scene_id, (one.text, two.text), images
                )
    return [found[key] for key in sorted(found, key=lambda key: (key[0], PATTERNS.index(key[1])))]


def _look(scenes: Sequence[Scene], size: int) -> list[Seen]:
    pictures = [render(scene, size) for scene in scenes]
    return seen_all(
        pictures, [view(scene, picture) for scene, picture in zip(scenes, pictures, strict=True)]
    )


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a file of pairs; None where there is none, or a damaged one, which is then made again."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in ("images", "captions", "scenes", "pattern")}
    except Exception:  # missing, or what a damaged archive makes numpy raise
        return None
