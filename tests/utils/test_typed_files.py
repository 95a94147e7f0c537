"""Typed files: what a dataclass accepts, and the message of what it refuses."""

import datetime
import math
from dataclasses import dataclass, field

import pytest

from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.typed_files import dump_json, parse


@dataclass(frozen=True)
class Inner:
    count: int
    share: float | None = None

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count is negative")


@dataclass(frozen=True)
class Outer:
    rows: list[Inner]
    words: dict[str, str | int | float | None] = field(default_factory=dict)


ROW = {"count": 1}
MIXED = {"a": 1, "b": 1.0, "c": "x", "d": None}


def test_only_an_integer_becomes_a_float() -> None:
    made = parse(Outer, {"rows": [{"count": 2, "share": 3}], "words": MIXED}, "f", "advice")
    assert made == Outer([Inner(2, 3.0)], MIXED)
    assert repr(made.words) == repr(MIXED)
    assert isinstance(made.rows[0].share, float)
    assert dump_json(made) == dump_json({"rows": [{"count": 2, "share": 3.0}], "words": MIXED})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "expected a mapping, found []"),
        ({}, "field 'rows': missing"),
        ({"row": []}, "field 'row': unknown field"),
        ({"rows": ROW}, "field 'rows': expected a list, found {'count': 1}"),
        ({"rows": [ROW, 3]}, "field 'rows[1]': expected a mapping, found 3"),
        ({"rows": [{"count": 1.0}]}, "field 'rows[0].count': expected int, found 1.0"),
        ({"rows": [{"count": True}]}, "field 'rows[0].count': expected int, found True"),
        ({"rows": [{"count": "1"}]}, "field 'rows[0].count': expected int, found '1'"),
        ({"rows": [{"count": -1}]}, "field 'rows[0]': count is negative"),
        ({"rows": [ROW | {"share": math.nan}]}, "field 'rows[0].share': expected float, found nan"),
        ({"rows": [], "words": {"a": True}}, "field 'words.a': expected str, found True"),
        ({"rows": [], "words": {"a": {}}}, "field 'words.a': expected str, found {}"),
        ({"rows": [], "words": {"a": datetime.date(2026, 1, 1)}}, "field 'words.a': expected str"),
    ],
)
def test_a_wrong_field_is_one_line_with_its_name(data: object, message: str) -> None:
    with pytest.raises(SpatialbenchError) as caught:
        parse(Outer, data, "file.json", "advice")
    assert str(caught.value).startswith(f"file.json: {message}")
    assert str(caught.value).endswith("; advice")
    assert "\n" not in str(caught.value)
