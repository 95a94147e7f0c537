"""Files of the Hugging Face Hub at a given revision, from its cache or over the network, and the hashes of files.

The cache is huggingface_hub's own: what one program has loaded the next one finds, a broken download goes on, and
HF_HUB_OFFLINE, HF_HUB_CACHE and HF_ENDPOINT are heard.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError

from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

_LONG = 2e8
"""Bytes from which on hashing a file shows how far it is."""


def snapshot(
    repository: str,
    revision: str,
    patterns: Sequence[str],
    ignored: Sequence[str] = (),
    kind: str = "model",
) -> Path:
    """The folder of a repository at a revision, with the files of ``patterns``; its name is the commit.

    Args:
        repository: ``<owner>/<name>``.
        revision: a commit of 40 hex digits, or a branch.
        patterns, ignored: files that are wanted, and of those the ones that are not.
        kind: ``model`` or ``dataset``.

    Raises:
        SpatialbenchError: it is neither in the cache nor can it be downloaded.
    """
    try:
        return Path(
            snapshot_download(
                repository,
                repo_type=kind,
                revision=revision,
                allow_patterns=[*patterns],
                ignore_patterns=[*ignored],
            )
        )
    except (
        Exception
    ) as error:  # the Hub, the network, the disk: whatever it was, the user reads one line
        raise _missing(repository, error) from error


def hub_file(repository: str, revision: str, name: str, kind: str = "model") -> Path:
    """One file of a repository at a revision, where it lies in the cache.

    A file of a commit that is in the cache is that file: the network is not asked.

    Raises:
        SpatialbenchError: it is neither in the cache nor can it be downloaded.
    """
    if re.fullmatch("[0-9a-f]{40}", revision) and (
        found := cached(repository, [name], revision, kind)
    ):
        return found
    try:
        return Path(hf_hub_download(repository, name, repo_type=kind, revision=revision))
    except Exception as error:
        raise _missing(repository, error) from error


def cached(
    repository: str, names: Sequence[str], revision: str | None = None, kind: str = "model"
) -> Path | None:
    """The first of ``names`` that the cache holds; None where it holds none. The network is never asked."""
    for name in names:
        found = try_to_load_from_cache(repository, name, revision=revision, repo_type=kind)
        if isinstance(found, str):
            return Path(found)
    return None


def cached_folder(repository: str, commit: str, names: Sequence[str]) -> Path | None:
    """The folder of a commit whose files ``names`` are all in the cache; None where one is not. Asks no network."""
    found = [cached(repository, [name], commit) for name in names]
    if not all(found):
        return None
    return Path(str(found[0])).parents[names[0].count("/")]


def recorded_sha256(path: Path) -> str | None:
    """The sha256 that the Hub itself gives for a large file in its cache, whose blob is named by it."""
    name = path.resolve().name
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The hash of a file in hex digits; of a large one with progress on the standard error.

    Raises:
        SpatialbenchError: it cannot be read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            if size < _LONG:
                return hashlib.file_digest(stream, algorithm).hexdigest()
            found = hashlib.new(algorithm)
            with progress(f"hashing {path.name}", size / 1e6, "MB") as advance:
                while chunk := stream.read(1 << 22):
                    found.update(chunk)
                    advance(len(chunk) / 1e6)
            return found.hexdigest()
    except OSError as error:
        raise SpatialbenchError(f"cannot read {path}: {error.strerror or error}") from error


def first_line(error: BaseException) -> str:
    """An error of others as one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _missing(repository: str, error: Exception) -> SpatialbenchError:
    reason = first_line(error)
    if isinstance(error, LocalEntryNotFoundError):
        reason = reason.partition(". ")[0].removesuffix(".")  # then follows advice on the network
    return SpatialbenchError(
        f"{repository} is neither in the cache of the Hugging Face Hub nor can it be downloaded ({reason})"
    )
