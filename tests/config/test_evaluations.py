"""What stored measures depend on: the track's settings at a budget, and how it is measured."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spatialbench.config import evaluations as beside
from spatialbench.config.evaluations import region_settings, selection_settings
from spatialbench.config.pages import Track, load_track
from tests.support import BENCHMARKS

Settings = Callable[[Track, str], str]


@pytest.mark.parametrize(
    ("settings", "version", "other"),
    [
        (region_settings, "VERSION", selection_settings),
        (selection_settings, "SELECTION_VERSION", region_settings),
    ],
)
def test_another_version_or_budget_is_another_setting(
    settings: Settings, version: str, other: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    track = load_track(BENCHMARKS / "tracks" / "rooms.yaml")
    before, beside_it = settings(track, "full"), other(track, "full")
    assert before
    assert settings(track, "smoke") != before
    monkeypatch.setattr(beside, version, 99)
    assert settings(track, "full") != before
    assert other(track, "full") == beside_it
