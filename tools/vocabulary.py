"""The byte-pair vocabulary of the small student, in the file format of open_clip's tokenizer.

``python -m tools.vocabulary`` writes ``spatialbench/models/configs/rooms-bpe.txt.gz``. The merges
are learned (Sennrich et al., arXiv 1508.07909) on the words of the rooms until every one is a
single token. Any other text is encoded byte by byte, so no caption is out of vocabulary.
"""

import gzip
import io
import re
from collections import Counter
from itertools import pairwise

from spatialbench.data.relations import PHRASE
from spatialbench.data.rooms.kinds import KINDS
from spatialbench.data.rooms.room_captions import FILLERS, TEMPLATES
from spatialbench.data.rooms.shapes import PALETTE, PATTERNS
from spatialbench.models.open_clip_student import CONFIGS
from spatialbench.utils.errors import write_atomic

PATH = CONFIGS / "rooms-bpe.txt.gz"
BYTES = 256
"""Byte symbols; the tokenizer has each twice, inside and at the end of a word."""


def words() -> list[str]:
    """Return the words that are one token each: of names, colours, patterns, phrases, captions."""
    names = [kind.name for kind in KINDS]
    texts = [*names, *PALETTE, *PATTERNS, *PHRASE.values(), *TEMPLATES, *FILLERS, "the is a an"]
    return sorted(set(re.findall("[a-z]+", " ".join(texts).lower())))


def learn_merges(vocabulary: list[str]) -> list[tuple[str, str]]:
    """Learn byte-pair merges, the most frequent pair first, until each word is one symbol.

    Ties are in alphabetical order.
    """
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


def main() -> None:
    """Write the vocabulary and print the ``vocab_size`` of its open_clip config."""
    merges = learn_merges(words())
    lines = ["#version: spatialbench rooms", *(" ".join(pair) for pair in merges)]
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as stream:  # no time: same bytes
        stream.write("\n".join(lines).encode())
    write_atomic(PATH, buffer.getvalue())
    print(f"{PATH.name}: {len(merges)} merges, vocab_size {2 * BYTES + len(merges) + 2}")


if __name__ == "__main__":
    main()
