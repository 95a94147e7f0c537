"""What is printed of a benchmark of captions: its numbers, the published ones beside them, and the rest counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spatialbench.data.captions.caption_set import CaptionSet, Measure, micro
from spatialbench.evaluation.captions import CaptionScores
from spatialbench.report.captions import SHOWN, captions_json, print_captions
from spatialbench.report.published import Published
from tests.support.caption_files import answers, photo

PUBLISHED = {
    "pair": Published(
        "many", "pair", "Someone 2024", "Table 1", "CLIP", {"L/14": 61.5}, "other pictures"
    )
}


class Many(CaptionSet):
    """Two relations more than are shown; one record is dropped."""

    name = "many"
    source = "the many"

    def read(self) -> None:
        picture = self.image(photo(self.folder / "p.png"))
        for number in range(SHOWN + 2):
            self.account.read += 1
            self.add(f"r{number}", "all", f"relation {number:02}", picture, ("a", "b"))
        self.account.read += 1
        self.account.drop("a reason", "r99", "why " * 40)

    def measures(self) -> list[Measure]:
        return [micro("pair", "all pairs", self.rows())]


@pytest.fixture
def found(tmp_path: Path) -> Many:
    return Many(str(tmp_path))


def test_text(found: Many, capsys: pytest.CaptureFixture[str]) -> None:
    right = answers(found, lambda record: {"r0": 0, "r1": -1}.get(record.record, 1))
    print_captions(found, CaptionScores(right, "0123"), PUBLISHED, "a page on many")
    text = capsys.readouterr().out
    row = next(line for line in text.splitlines() if "all pairs" in line)
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells == ["all pairs", "14", "1", "50.0", f"{100 * 12.5 / 14:.1f}", cells[5], "61.5*"]
    assert "14 pairs on 1 pictures, data 0123" in text
    assert "15 records read; a tie counts one half" in text
    assert "1 dropped: a reason (first r99: why why" in text
    assert "Someone 2024, Table 1\n* pair: other pictures\n" in text
    assert "relation 11" in text
    assert "relation 12" not in text
    assert "2 more, in --format json" in text


def test_json_has_everything(found: Many) -> None:
    scores = CaptionScores(np.tile(np.float32([1, 0]), (SHOWN + 2, 1)), "0123")
    made = json.loads(json.dumps(captions_json(found, scores, {})))
    assert made["measures"]["pair"] == {
        **{
            "title": "all pairs",
            "value": 100.0,
            "interval": [100.0, 100.0],
            "n": 14,
            "ties": 0,
            "chance": 50.0,
        },
        "published": {},
    }
    assert len(made["relations"]["all"]) == SHOWN + 2
    assert made["relations"]["all"]["relation 13"] == {"n": 1, "accuracy": 100.0, "ties": 0}
    assert len(made["account"]["dropped"]["a reason"]["first"]) > 150
