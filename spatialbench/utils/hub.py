"""Files of the Hugging Face Hub at a given revision, from its cache or the network; file hashes.

The cache is huggingface_hub's own: programs share files, an interrupted download is resumed, and
HF_HUB_OFFLINE, HF_HUB_CACHE and HF_ENDPOINT apply.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError

from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

LARGE = 2e8
"""Hashing a file of more bytes shows progress."""


def snapshot(
    repository: str,
    revision: str,
    patterns: Sequence[str],
    ignored: Sequence[str] = (),
    kind: str = "model",
) -> Path:
    """Return the folder of a repository at a commit or branch; the folder's name is the commit.

    It has the files that fit ``patterns``, but for those that fit ``ignored``; ``kind`` is
    ``model`` or ``dataset``.

    Raises:
        SpatialbenchError: it is not cached and cannot be downloaded.
    """
    get = partial(snapshot_download, allow_patterns=[*patterns], ignore_patterns=[*ignored])
    try:
        return Path(get(repository, repo_type=kind, revision=revision))
    except Exception as error:  # of the Hub, the network or the disk: the user reads one line
        raise _missing(repository, error) from error


def hub_file(repository: str, revision: str, name: str, kind: str = "model") -> Path:
    """Return one file as ``snapshot`` does; offline if the revision is a commit in the cache."""
    # the Hub's own short cut for a cached commit comes after a request for the user agent
    if re.fullmatch("[0-9a-f]{40}", revision):
        path = try_to_load_from_cache(repository, name, revision=revision, repo_type=kind)
        if isinstance(path, str):
            return Path(path)
    try:
        return Path(hf_hub_download(repository, name, repo_type=kind, revision=revision))
    except Exception as error:
        raise _missing(repository, error) from error


def cached(repository: str, names: Sequence[str], revision: str | None = None) -> Path | None:
    """Return the first of ``names`` that is in the cache, else None; works offline."""
    paths = (try_to_load_from_cache(repository, name, revision=revision) for name in names)
    return next((Path(path) for path in paths if isinstance(path, str)), None)


def cached_folder(repository: str, commit: str, names: Sequence[str]) -> Path | None:
    """Return the folder of a commit if all files ``names`` are cached, else None; works offline."""
    paths = [cached(repository, [name], commit) for name in names]
    return Path(str(paths[0])).parents[names[0].count("/")] if all(paths) else None


def recorded_sha256(path: Path) -> str | None:
    """Return the sha256 that the Hub gives for a large cached file, whose blob is named by it."""
    name = path.resolve().name
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Hash a file, with progress if it is large; return hex digits.

    Raises:
        SpatialbenchError: it cannot be read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            if size < LARGE:
                return hashlib.file_digest(stream, algorithm).hexdigest()
            state = hashlib.new(algorithm)
            with progress(f"hashing {path.name}", size / 1e6, "MB") as advance:
                while chunk := stream.read(1 << 22):
                    state.update(chunk)
                    advance(len(chunk) / 1e6)
            return state.hexdigest()
    except OSError as error:
        raise SpatialbenchError(f"cannot read {path}: {error.strerror or error}") from error


def first_line(error: BaseException) -> str:
    """Return another library's error as one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _missing(repository: str, error: Exception) -> SpatialbenchError:
    reason = first_line(error)
    if isinstance(error, LocalEntryNotFoundError):
        reason = reason.partition(". ")[0].removesuffix(".")  # without advice on the network
    return SpatialbenchError(
        f"{repository} is neither in the cache of the Hugging Face Hub nor can it be downloaded "
        f"({reason})"
    )
