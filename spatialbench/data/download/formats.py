"""Is a file what its name says? A page of an error or of a login is often saved in the place of the data."""

from __future__ import annotations

import csv
import json
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from spatialbench.utils.errors import SpatialbenchError

_LARGE = 1e8
"""Bytes from which on a JSON file is not parsed here."""


def count_records(path: Path, name: str) -> int | None:
    """Records in a file, after a look at its form; None where they are not counted (archives, large JSON files).

    Args:
        path: the file.
        name: what it is to be called, whose ending says the form.

    Raises:
        SpatialbenchError: it has another form.
    """
    with path.open("rb") as stream:
        start = stream.read(512).lstrip()
    if start[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise SpatialbenchError("it is a web page and not the data")
    if start.startswith(b"version https://git-lfs"):
        raise SpatialbenchError("it is a pointer of Git LFS and not the data")
    try:
        return _count(path, name)
    except (ValueError, pa.ArrowException, csv.Error) as error:
        kind = name.rpartition(".")[2]
        raise SpatialbenchError(
            f"it is not sound {kind} ({' '.join(str(error).split())[:100]})"
        ) from error


def _count(path: Path, name: str) -> int | None:
    if name.endswith(".parquet"):
        return pq.read_metadata(path).num_rows
    if name.endswith(".jsonl"):
        with path.open(encoding="utf-8") as stream:
            return sum(bool(json.loads(line)) for line in stream if line.strip())
    if name.endswith(".json") and path.stat().st_size < _LARGE:
        return len(json.loads(path.read_text(encoding="utf-8")))
    if name.endswith(".csv"):
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return sum(any(row) for row in csv.reader(stream)) - 1
    if name.endswith((".tar.gz", ".tar", ".zip")):
        sound = zipfile.is_zipfile(path) if name.endswith(".zip") else tarfile.is_tarfile(path)
        if not sound:
            raise ValueError("no such archive")
    return None
