"""The raw records of a JSON list or of the Hub's parquet, in one pass with flat memory."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ijson
import pyarrow as pa
import pyarrow.parquet as pq

from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

FIELDS = (
    *("question_id", "relation", "image", "answer_options", "answer"),
    *("objects", "data_source", "scene_id"),
)
"""The columns that are read; SFT has no answer_options and no scene_id."""
BATCH_ROWS = 32  # of a parquet file, in memory at a time


def raw_records(path: Path) -> Generator[Any]:
    """Yield the records of a file as they are, with progress on the standard error.

    Raises:
        SpatialbenchError: the file is missing, neither a JSON list nor parquet, or damaged.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(256)
            parquet = start.startswith(b"PAR1")
            yield from _parquet_records(path) if parquet else _json_records(path, start, stream)
    except OSError as error:
        raise SpatialbenchError(f"cannot read {path}: {error.strerror or error}") from error


def _json_records(path: Path, start: bytes, stream: BinaryIO) -> Iterator[Any]:
    text = start.removeprefix(b"\xef\xbb\xbf")
    stream.seek(len(start) - len(text))
    if not text.lstrip().startswith(b"["):
        why = f"neither a JSON list of records nor parquet; it starts with {text[:20]!r}"
        raise SpatialbenchError(f"{path}: {why}")
    count, at = 0, 0.0
    with progress(f"reading {path.name}", path.stat().st_size / 1e6, "MB") as advance:
        try:
            for raw in ijson.items(stream, "item", use_float=True, buf_size=1 << 18):
                yield raw
                count += 1
                now = stream.tell() / 1e6
                advance(now - at)
                at = now
        except (ijson.JSONError, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0].strip()[:80]  # the next lines quote the file
            why = f"no valid JSON after {count} records, or a broken download ({reason})"
            raise SpatialbenchError(f"{path}: {why}") from error


def _parquet_records(path: Path) -> Iterator[Any]:
    try:
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        columns = [name for name in file.schema_arrow.names if name in FIELDS]
        with file, progress(f"reading {path.name}", file.metadata.num_rows, "records") as advance:
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                yield from batch.to_pylist()
                advance(batch.num_rows)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0][:100]
        raise SpatialbenchError(f"{path}: damaged parquet ({reason})") from error
