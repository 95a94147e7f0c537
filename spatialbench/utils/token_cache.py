"""Tokens of images on disk, found by the content of the image.

A cache is a folder of shards of two files each: ``<name>.npy`` holds bfloat16 tokens (as int16)
and is memory-mapped; ``<name>.keys`` holds the 16-byte keys of its rows and is written last, so a
shard without keys is unfinished. Shards are never changed, so several processes may share a
folder. A killed process loses only its current shard; leftovers are deleted after an hour.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spatialbench.utils.cache import ABANDONED_SECONDS
from spatialbench.utils.errors import SpatialbenchError, atomic_path, write_atomic

KEY_BYTES = 16


def content_key(pixels: np.ndarray) -> bytes:
    """Return the blake2b hash of the bytes of one image, uint8 [3, S, S]."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=KEY_BYTES).digest()


def tensors_digest(tensors: Mapping[str, Tensor], extra: str = "") -> str:
    """Hash names and contents of tensors, and ``extra``; 24 hex digits."""
    digest = hashlib.blake2b(extra.encode(), digest_size=12)
    for name in sorted(tensors):
        digest.update(name.encode())
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


class TokenCache:
    """Maps keys to bfloat16 tokens of one ``shape`` an image.

    The folder is created on the first write. Its name must cover everything that the tokens depend
    on besides the image.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self.folder = folder
        self.shape = shape
        self._rows: dict[bytes, tuple[np.ndarray, int]] = {}
        self._read: set[str] = set()
        self._swept = False
        self.refresh()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def refresh(self) -> None:
        """Read the shards that were added to the folder since the last time."""
        for path in sorted(self.folder.glob("*.keys")):
            if path.stem not in self._read:
                self._take(path.stem)

    def get(self, keys: Sequence[bytes]) -> tuple[Tensor, list[int]]:
        """Look up tokens, bfloat16 [len(keys), *shape].

        Also returns the positions of missing keys, whose rows are undefined.
        """
        out = np.empty((len(keys), *self.shape), dtype=np.int16)
        missing = []
        for position, key in enumerate(keys):
            if key in self._rows:
                shard, row = self._rows[key]
                out[position] = shard[row]
            else:
                missing.append(position)
        return torch.from_numpy(out).view(torch.bfloat16), missing

    def put(self, keys: Sequence[bytes], tokens: Tensor) -> None:
        """Write one shard: distinct keys, tokens bfloat16 [len(keys), *shape].

        Raises:
            SpatialbenchError: the folder cannot be written, or the disk is full.
        """
        self._sweep()
        joined = b"".join(keys)
        name = hashlib.blake2b(joined, digest_size=8).hexdigest()
        try:
            with atomic_path(self.folder / f"{name}.npy") as path:
                np.save(path, tokens.cpu().contiguous().view(torch.int16).numpy())
            write_atomic(self.folder / f"{name}.keys", joined)
        except OSError as error:
            raise SpatialbenchError(
                f"cannot write {tokens.nbytes / 2**20:.0f} MiB of tokens to {self.folder}: "
                f"{error.strerror or error}; make room, or set SPATIALBENCH_CACHE to another disk"
            ) from error
        self._take(name)

    def _sweep(self) -> None:
        """Delete temporary files of killed processes, which may hold gigabytes; once."""
        if self._swept:
            return
        self._swept = True
        for path in self.folder.glob(".*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                    path.unlink()

    def _take(self, name: str) -> None:
        """Read a shard; one that does not fit its keys is skipped, so its tokens are made again."""
        self._read.add(name)
        try:
            keys = (self.folder / f"{name}.keys").read_bytes()
            shard = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        except (OSError, ValueError, EOFError):
            return
        if shard.dtype == np.int16 and shard.shape == (len(keys) // KEY_BYTES, *self.shape):
            for row in range(len(shard)):
                self._rows[keys[row * KEY_BYTES : (row + 1) * KEY_BYTES]] = shard, row
