"""From one record in EmbSpatial's schema to statements: its names, options, answer and boxes.

Every function looks at one question and raises :class:`Rejected` with the kind that is counted. The wording of the
question is never read, and a caption is never made from the wording of an option: names and relation are all.

The schema: docs/adding_a_dataset.md.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from spatialbench.data.images import clip
from spatialbench.data.problems import Rejected
from spatialbench.data.records import Box
from spatialbench.data.relations import DEPTH_RELATIONS, RELATIONS

PLACEHOLDERS = frozenset({"", "unknown", "n/a", "object", "objects", "misc", "remove", "void"})
"""Names that name nothing; in EmbSpatial there is an object called Unknown."""

PREDICATES: dict[str, tuple[str, ...]] = {
    "left": ("left of", "to the left of", "on the left side of", "at the left side of"),
    "right": ("right of", "to the right of", "on the right side of", "at the right side of"),
    "above": ("above",),
    "under": ("under", "beneath", "below"),
}
"""The wordings of a true option (mengfeidu/EmbSpatial-Bench @ 75792fc, README.md)."""

SLACK = 2.0
"""Pixels by which a box may reach over the image's edge, or over the other box where the relation forbids it."""

_LETTER = re.compile(r"\(?([A-Z])\)?\.?")


@dataclass(frozen=True)
class Named:
    """An object: its name as captions write it, and its box in pixels."""

    name: str
    box: Box

    @property
    def key(self) -> str:
        return normalise(self.name)


@dataclass(frozen=True)
class Statements:
    """What a question says.

    Attributes:
        candidates: (option's index, subject, object) of every statement that holds, before the filters of names.
        ordered: for directions, whether the subject is the first boxed object and the object the second.
        options: how often each normalised name occurs among the options; empty for directions.
    """

    candidates: list[tuple[int, Named, Named]]
    ordered: bool = True
    options: Counter[str] | None = None


def display(name: str) -> str:
    """The name as captions write it: ``night_stand`` -> ``night stand``."""
    return " ".join(name.replace("_", " ").split())


def normalise(name: str) -> str:
    """The name as names are compared: ``Night_stand`` -> ``night stand``."""
    return display(name).lower()


def nested(a: str, b: str) -> bool:
    """Whether the words of one normalised name are a part of the other's, as ``table`` of ``coffee table``."""
    return a != b and (f" {a} " in f" {b} " or f" {b} " in f" {a} ")


def read_relation(raw: dict[str, Any]) -> str:
    relation = raw.get("relation")
    if relation not in RELATIONS:
        raise Rejected(
            "unknown_relation", f"unknown relation {relation!r}; one of {', '.join(RELATIONS)}"
        )
    return str(relation)


def read_objects(raw: dict[str, Any]) -> list[Named]:
    """The boxed objects; the Hub's struct of lists is read like a list of structs."""
    objects = raw.get("objects")
    if isinstance(objects, dict) and all(
        isinstance(objects.get(key), list) for key in ("name", "bbox")
    ):
        objects = [
            {"name": name, "bbox": box}
            for name, box in zip(objects["name"], objects["bbox"], strict=False)
        ]
    if not isinstance(objects, list) or len(objects) < 2:
        raise Rejected("bad_record", "the field objects does not list two or more objects")
    return [_read_object(item) for item in objects]


def _read_object(item: Any) -> Named:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise Rejected("bad_record", f"an object is not {{name, bbox}}: {repr(item)[:60]}")
    name, box = item["name"], item.get("bbox")
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(isinstance(value, int | float) and math.isfinite(value) for value in box)
    ):
        raise Rejected(
            "bad_box",
            f"the box of {name!r} is {repr(box)[:60]}, not four finite numbers [x, y, w, h]",
        )
    return Named(display(name), Box(*(float(value) for value in box)))


def check_boxes(objects: list[Named], image_size: tuple[int, int]) -> None:
    """Every box has an area and lies in the image, but for :data:`SLACK`; a box of xyxy seldom does."""
    width, height = image_size
    for item in objects:
        box = item.box
        inside = clip(box, width, height)
        over = max(-box.x, -box.y, box.x + box.w - width, box.y + box.h - height)
        if min(box.w, box.h) <= 0 or min(inside.w, inside.h) <= 0 or over > SLACK:
            values = [box.x, box.y, box.w, box.h]
            raise Rejected(
                "bad_box",
                f"the box {values} of {item.name!r} is not inside its {width}x{height} image as [x, y, w, h]",
            )


def read_statements(raw: dict[str, Any], relation: str, objects: list[Named]) -> Statements:
    """The statements that a question's answer makes."""
    options = raw.get("answer_options")
    if options is not None and not (
        isinstance(options, list) and all(isinstance(item, str) for item in options)
    ):
        raise Rejected("bad_record", "the field answer_options is no list of texts")
    answer = _read_answer(raw.get("answer"), options)
    if relation in DEPTH_RELATIONS:
        return _against_all_others(answer, options or [item.name for item in objects], objects)
    return _direction(answer, relation, objects)


def _read_answer(answer: Any, options: list[str] | None) -> str:
    """The text of the answer: itself (SFT), or the option at an index, a letter or a digit (bench, its mirrors)."""
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    if options is None:
        if not isinstance(answer, str) or not answer.strip():
            raise Rejected(
                "bad_answer", f"the answer {answer!r} is no text, and there are no answer_options"
            )
        return answer
    if isinstance(answer, str) and answer not in options:
        letter = _LETTER.fullmatch(answer.strip())
        if letter:
            answer = ord(letter[1]) - ord("A")
        elif answer.strip().isdecimal():
            answer = int(answer)
    if isinstance(answer, str) and answer in options:
        return answer
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(options):
        raise Rejected(
            "bad_answer", f"the answer {str(answer)[:60]!r} is none of the {len(options)} options"
        )
    return options[answer]


def _direction(answer: str, relation: str, objects: list[Named]) -> Statements:
    """The two objects of which the answer is exactly "The A is (a wording of the relation) the B."."""
    sentence = _plain(answer)
    for i, j in permutations(range(len(objects)), 2):
        subject, other = objects[i], objects[j]
        if any(
            sentence == _plain(f"The {subject.name} is {words} the {other.name}")
            for words in PREDICATES[relation]
        ):
            return Statements([(0, subject, other)], ordered=(i, j) == (0, 1))
    first, second = objects[0].name, objects[1].name
    raise Rejected(
        "bad_answer",
        f"the answer {answer[:100]!r} does not say that the {first} is {relation} of the {second}",
    )


def _plain(sentence: str) -> str:
    return normalise(sentence).removesuffix(".").rstrip()


def _against_all_others(answer: str, options: list[str], objects: list[Named]) -> Statements:
    """The answer against each other option; nothing is known between two that are not the answer."""
    boxed = {item.key: item for item in reversed(objects)}
    names = Counter(normalise(option) for option in options)
    key = normalise(answer)
    if set(names) != set(boxed):
        odd = sorted(set(names) ^ set(boxed))
        raise Rejected(
            "names_not_boxes", f"only among the options or only among the boxes: {str(odd)[:100]}"
        )
    if key not in names:
        raise Rejected("bad_answer", f"the answer {answer[:60]!r} is none of the boxed objects")
    if key in PLACEHOLDERS:
        raise Rejected("placeholder_name", f"the answer is called {answer!r}")
    if names[key] > 1:
        spellings = {option for option in options if normalise(option) == key}
        kind = "duplicate_options" if len(spellings) == 1 else "same_name"
        raise Rejected(kind, f"the answer's name {answer!r} occurs {names[key]} times")
    if len(names) < 2:
        raise Rejected("bad_record", "there is only one option")
    others = [
        (j, boxed[normalise(option)])
        for j, option in enumerate(options)
        if normalise(option) != key
    ]
    return Statements([(j, boxed[key], other) for j, other in others], options=names)


def check_names(subject: Named, other: Named, options: Counter[str] | None) -> None:
    """Whether a caption can tell the two objects apart."""
    a, b = subject.key, other.key
    for name in (a, b):
        if name in PLACEHOLDERS:
            raise Rejected("placeholder_name", f"an object is called {name!r}")
    if a == b:
        raise Rejected("same_name", f"both objects are called {a!r}")
    if options is not None and options[b] > 1:
        raise Rejected("duplicate_options", f"{options[b]} options are called {b!r}")


def shows(relation: str, a: Box, b: Box) -> bool:
    """Whether box ``a`` lies wholly on the relation's side of ``b``, but for :data:`SLACK`; y points down."""
    before = {
        "left": a.x + a.w - b.x,
        "right": b.x + b.w - a.x,
        "above": a.y + a.h - b.y,
        "under": b.y + b.h - a.y,
    }
    return before[relation] <= SLACK
