"""The grammar by hand."""

import pytest

from spatialbench.data.relations import Statement, parse


def test_case_and_period_are_free() -> None:
    bed = Statement("bed", "far", "floor lamp")
    assert parse(bed.caption) == parse("the bed IS Farther Than THE floor lamp") == bed


def test_an_unknown_relation_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown relation 'near'"):
        Statement("bed", "near", "lamp")
