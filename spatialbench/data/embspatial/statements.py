"""Turn one record in EmbSpatial's schema into statements: its names, options, answer and boxes.

Every function looks at one question and raises :class:`Rejected` with the kind that is counted. The
wording of the question is never read, and no caption is made from the wording of an option: names
and relation suffice. The schema is in docs/adding_a_dataset.md.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from spatialbench.data.account import Rejected
from spatialbench.data.images import clip
from spatialbench.data.records import Box
from spatialbench.data.relations import DEPTH_RELATIONS, RELATIONS

PLACEHOLDERS = frozenset({"", "unknown", "n/a", "object", "objects", "misc", "remove", "void"})
"""Names that name nothing; EmbSpatial has an object called Unknown."""

PREDICATES: dict[str, tuple[str, ...]] = {
    "left": ("left of", "to the left of", "on the left side of", "at the left side of"),
    "right": ("right of", "to the right of", "on the right side of", "at the right side of"),
    "above": ("above",),
    "under": ("under", "beneath", "below"),
}
"""The wordings of a true option (mengfeidu/EmbSpatial-Bench @ 75792fc, README.md)."""

SLACK = 2.0  # pixels by which a box may cross the image's edge, or a box that it must not overlap

_LETTER = re.compile(r"\(?([A-Z])\)?\.?")


@dataclass(frozen=True)
class Named:
    """An object: its name as captions write it, and its box in pixels."""

    name: str
    box: Box

    @property
    def key(self) -> str:
        """The name in the form in which names are compared."""
        return normalise(self.name)


@dataclass(frozen=True)
class Statements:
    """Reading of a question; its candidates are the statements that hold, before name filters."""

    candidates: list[tuple[int, Named, Named]]  # index of the option, subject, object
    ordered: bool = True  # directions: the subject is the first boxed object, the object the second
    options: Counter[str] | None = None  # normalised name -> options; None for directions


def display(name: str) -> str:
    """Return the name as captions write it: ``night_stand`` -> ``night stand``."""
    return " ".join(name.replace("_", " ").split())


def normalise(name: str) -> str:
    """Return the name as names are compared: ``Night_stand`` -> ``night stand``."""
    return display(name).lower()


def nested(a: str, b: str) -> bool:
    """Return whether one normalised name contains the other, as ``coffee table`` and ``table``."""
    return a != b and (f" {a} " in f" {b} " or f" {b} " in f" {a} ")


def read_relation(raw: dict[str, Any]) -> str:
    """Return one of the six relations."""
    relation = raw.get("relation")
    if relation not in RELATIONS:
        known = ", ".join(RELATIONS)
        raise Rejected("unknown_relation", f"unknown relation {relation!r}; one of {known}")
    return str(relation)


def read_objects(raw: dict[str, Any]) -> list[Named]:
    """Return the boxed objects, from a list of structs or from the Hub's struct of lists."""
    objects = raw.get("objects")
    if isinstance(objects, dict):
        names, boxes = objects.get("name"), objects.get("bbox")
        if isinstance(names, list) and isinstance(boxes, list):
            pairs = zip(names, boxes, strict=False)
            objects = [{"name": name, "bbox": box} for name, box in pairs]
    if not isinstance(objects, list) or len(objects) < 2:
        raise Rejected("bad_record", "the field objects does not list two or more objects")
    return [_read_object(item) for item in objects]


def _read_object(item: Any) -> Named:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise Rejected("bad_record", f"an object is not {{name, bbox}}: {repr(item)[:60]}")
    name, box = item["name"], item.get("bbox")
    values = box if isinstance(box, list) and len(box) == 4 else [None]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        why = f"the box of {name!r} is {repr(box)[:60]}, not four finite numbers [x, y, w, h]"
        raise Rejected("bad_box", why)
    return Named(display(name), Box(*map(float, values)))


def check_boxes(objects: list[Named], image_size: tuple[int, int]) -> None:
    """Reject a box without an area, or outside the image by more than :data:`SLACK`, as xyxy is."""
    width, height = image_size
    for item in objects:
        box = item.box
        inside = clip(box, width, height)
        over = max(-box.x, -box.y, box.x + box.w - width, box.y + box.h - height)
        if min(box.w, box.h, inside.w, inside.h) <= 0 or over > SLACK:
            values = [box.x, box.y, box.w, box.h]
            why = f"the box {values} of {item.name!r} is not inside its {width}x{height} image"
            raise Rejected("bad_box", f"{why} as [x, y, w, h]")


def read_statements(raw: dict[str, Any], relation: str, objects: list[Named]) -> Statements:
    """Return the statements that follow from a question's answer."""
    options = raw.get("answer_options")
    texts = isinstance(options, list) and all(isinstance(item, str) for item in options)
    if options is not None and not texts:
        raise Rejected("bad_record", "the field answer_options is no list of texts")
    answer = _read_answer(raw.get("answer"), options)
    if relation in DEPTH_RELATIONS:
        return _against_all_others(answer, options or [item.name for item in objects], objects)
    return _direction(answer, relation, objects)


def _read_answer(answer: Any, options: list[str] | None) -> str:
    """Return the answer itself (SFT), or the option at its index, letter or digit."""
    if options is None:
        if not isinstance(answer, str) or not answer.strip():
            why = f"the answer {answer!r} is no text, and there are no answer_options"
            raise Rejected("bad_answer", why)
        return answer
    if isinstance(answer, str):
        if answer in options:
            return answer
        letter = _LETTER.fullmatch(answer.strip())
        if letter:
            answer = ord(letter[1]) - ord("A")
        elif answer.strip().isdecimal():
            answer = int(answer)
    elif isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(options):
        why = f"the answer {str(answer)[:60]!r} is none of the {len(options)} options"
        raise Rejected("bad_answer", why)
    return options[answer]


def _direction(answer: str, relation: str, objects: list[Named]) -> Statements:
    """Find A and B such that the answer is exactly "The A is (wording of the relation) the B."."""
    sentence = _plain(answer)
    for i, j in permutations(range(len(objects)), 2):
        for words in PREDICATES[relation]:
            if sentence == _plain(f"The {objects[i].name} is {words} the {objects[j].name}"):
                return Statements([(0, objects[i], objects[j])], ordered=(i, j) == (0, 1))
    why = f"the {objects[0].name} is {relation} of the {objects[1].name}"
    raise Rejected("bad_answer", f"the answer {answer[:100]!r} does not say that {why}")


def _plain(sentence: str) -> str:
    return normalise(sentence).removesuffix(".").rstrip()


def _against_all_others(answer: str, options: list[str], objects: list[Named]) -> Statements:
    boxed = {item.key: item for item in reversed(objects)}
    keys = [normalise(option) for option in options]
    names, key = Counter(keys), normalise(answer)
    if set(names) != set(boxed):
        odd = str(sorted(set(names) ^ set(boxed)))[:100]
        raise Rejected("names_not_boxes", f"only among the options or only among the boxes: {odd}")
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
    others = [(j, boxed[key], boxed[other]) for j, other in enumerate(keys) if other != key]
    return Statements(others, options=names)


def check_names(subject: Named, other: Named, options: Counter[str] | None) -> None:
    """Reject a pair of objects that no caption can tell apart."""
    a, b = subject.key, other.key
    for name in (a, b):
        if name in PLACEHOLDERS:
            raise Rejected("placeholder_name", f"an object is called {name!r}")
    if a == b:
        raise Rejected("same_name", f"both objects are called {a!r}")
    if options is not None and options[b] > 1:
        raise Rejected("duplicate_options", f"{options[b]} options are called {b!r}")


def shows(relation: str, a: Box, b: Box) -> bool:
    """Return whether box ``a`` is wholly on the relation's side of ``b``, up to :data:`SLACK`."""
    overlap = {"left": a.x + a.w - b.x, "right": b.x + b.w - a.x}
    overlap |= {"above": a.y + a.h - b.y, "under": b.y + b.h - a.y}
    return overlap[relation] <= SLACK
