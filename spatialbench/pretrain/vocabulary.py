"""The byte-pair vocabulary of the small student, in the file format of open_clip's tokenizer.

``python -m spatialbench.pretrain.vocabulary`` writes ``models/configs/rooms-bpe.txt.gz``. The merges are learned
(Sennrich et al., arXiv 1508.07909) on the words of the rooms until every one of them is a single token; any other text
still encodes, byte by byte, so a user's own caption is never out of vocabulary.
"""

from __future__ import annotations

import gzip
import io
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

from spatialbench.data.relations import PHRASE
from spatialbench.data.rooms.kinds import KINDS
from spatialbench.data.rooms.room_captions import FILLERS, TEMPLATES
from spatialbench.data.rooms.shapes import PALETTE, PATTERNS
from spatialbench.utils.errors import write_atomic

PATH = Path(__file__).parents[1] / "models" / "configs" / "rooms-bpe.txt.gz"
BYTES = 256
"""Byte symbols; the tokenizer has each twice (inside and at the end of a word), and two special tokens."""


def words() -> list[str]:
    """The words that are one token each: names, colours, patterns, the grammar's words, the words of the captions."""
    found = {"the", "is", "a", "an"}
    for text in (
        *(k.name for k in KINDS),
        *PALETTE,
        *PATTERNS,
        *PHRASE.values(),
        *TEMPLATES,
        *FILLERS,
    ):
        found.update(re.findall("[a-z]+", text.lower()))
    return sorted(found)


def learn_merges(vocabulary: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, the most frequent pair first (ties in alphabetical order), until each word is one symbol."""
    split = [[*word[:-1], word[-1] + "</w>"] for word in vocabulary]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for symbols in split for pair in pairwise(symbols)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        split = [_apply(symbols, best) for symbols in split]
    return merges


def _apply(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def vocabulary_size(merges: list[tuple[str, str]]) -> int:
    """``vocab_size`` of the open_clip config that goes with the merges."""
    return 2 * BYTES + len(merges) + 2


def main() -> None:
    merges = learn_merges(words())
    lines = ["#version: spatialbench rooms", *(" ".join(pair) for pair in merges)]
    buffer = io.BytesIO()
    with gzip.GzipFile(
        fileobj=buffer, mode="wb", mtime=0
    ) as stream:  # mtime: the same words give the same bytes
        stream.write("\n".join(lines).encode())
    write_atomic(PATH, buffer.getvalue())
    print(f"{PATH.name}: {len(merges)} merges, vocab_size {vocabulary_size(merges)}")


if __name__ == "__main__":
    main()
