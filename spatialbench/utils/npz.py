"""Reproducible npz files without pickles."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from spatialbench.utils.errors import SpatialbenchError


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return a compressed npz; the same arrays give the same bytes (numpy writes no date)."""
    assert all(array.dtype.kind != "O" for array in arrays.values()), "objects would be pickled"
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()


def read_npz(path: Path, kinds: Mapping[str, str], advice: str) -> dict[str, np.ndarray]:
    """Read an npz that holds exactly the arrays ``kinds``.

    Args:
        path: the npz file.
        kinds: name -> numpy kind of the array, ``U`` for text, ``f`` for floats.
        advice: what the user can do, at the end of the message.

    Raises:
        SpatialbenchError: the file is missing, damaged, or holds other arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise SpatialbenchError(f"{path}: no such file; {advice}") from error
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise SpatialbenchError(
            f"{path}: not a readable outcomes file ({error}); {advice}"
        ) from error
    if set(arrays) != set(kinds):
        raise SpatialbenchError(
            f"{path}: holds {sorted(arrays)}, expected {sorted(kinds)}; {advice}"
        )
    for name, kind in kinds.items():
        if arrays[name].dtype.kind != kind:
            raise SpatialbenchError(f"{path}: {name} has the type {arrays[name].dtype}; {advice}")
    return arrays


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 of names, types, shapes and contents, independent of the compression."""
    state = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        state.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        state.update(array.tobytes())
    return state.hexdigest()
