"""The grammar: the six relations, their captions, and a parser.

Captions are always built from (subject, relation, object), never by editing strings: swapping names
inside a finished sentence breaks on names of two words (the error of the poster's released script,
hy30n80/Mixed-Transformer @ 0b9ac26).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

RELATIONS: tuple[str, ...] = ("close", "far", "left", "right", "above", "under")
"""The six relations in the order of every table."""

CONVERSE: dict[str, str] = {
    "close": "far",
    "far": "close",
    "left": "right",
    "right": "left",
    "above": "under",
    "under": "above",
}
"""``A r B`` holds exactly when ``B CONVERSE[r] A`` holds."""

PHRASE: dict[str, str] = {
    "close": "closer than",
    "far": "farther than",
    "left": "left of",
    "right": "right of",
    "above": "above",
    "under": "under",
}
"""The words between subject and object (Yang and Jeon's poster; directions as in EmbSpatial)."""

DEPTH_RELATIONS: tuple[str, ...] = ("close", "far")
"""The relations decided by depth; the image plane decides the others."""

_PATTERN = re.compile(
    r"^\s*the\s+(?P<subject>.+?)\s+is\s+(?P<phrase>{})\s+the\s+(?P<object>.+?)\s*\.?\s*$".format(
        "|".join(re.escape(phrase) for phrase in PHRASE.values())
    ),
    re.IGNORECASE,
)
_RELATION_OF = {phrase: relation for relation, phrase in PHRASE.items()}


@dataclass(frozen=True)
class Statement:
    """A relation between two named objects, in the viewer's frame."""

    subject: str
    relation: str
    object: str

    def __post_init__(self) -> None:
        if self.relation not in RELATIONS:
            raise ValueError(f"unknown relation {self.relation!r}; one of {', '.join(RELATIONS)}")

    @property
    def names(self) -> tuple[str, str]:
        """Subject and object."""
        return self.subject, self.object

    @property
    def caption(self) -> str:
        """The sentence: "The sofa is farther than the bed."."""
        return f"The {self.subject} is {PHRASE[self.relation]} the {self.object}."

    @property
    def negated(self) -> Statement:
        """The statement with swapped objects, the poster's negated caption; false if this holds."""
        return Statement(self.object, self.relation, self.subject)


def parse(caption: str) -> Statement:
    """Parse a caption; the final period and the case of the fixed words are free.

    Raises:
        ValueError: the caption is not a sentence of the grammar.
    """
    match = _PATTERN.match(caption)
    if match is None:
        phrases = " | ".join(PHRASE.values())
        raise ValueError(
            f"cannot read the caption {caption!r}; write 'The A is ({phrases}) the B.'"
        )
    return Statement(match["subject"], _RELATION_OF[match["phrase"].lower()], match["object"])


def with_articles(text: str) -> str:
    """Correct the article before a vowel: "a orange sofa" -> "an orange sofa"."""
    return re.sub(r"\ba (?=[aeiou])", "an ", text)
