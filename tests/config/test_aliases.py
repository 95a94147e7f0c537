"""Former class paths still name their class, and keep their hashes."""

from __future__ import annotations

import pytest

from spatialbench.config.aliases import ALIASES
from spatialbench.config.experiment import LEARNS_FROM, learns_from
from spatialbench.config.signatures import import_class
from spatialbench.data.image_batches import ImageDataModule


class Own(ImageDataModule):
    """A datamodule of a user."""


@pytest.mark.parametrize(("former", "current"), ALIASES.items())
def test_a_former_class_path_names_its_class(former: str, current: str) -> None:
    cls = import_class(former, "test")
    assert f"{cls.__module__}.{cls.__qualname__}" == current


def test_what_a_page_learns_from_is_said_by_its_datamodule() -> None:
    for path, kind in LEARNS_FROM.items():
        assert import_class(path, "test").learns_from == kind
    assert learns_from({}) == learns_from({"batch_images": 2}) == "pairs"
    assert learns_from({"class_path": f"{__name__}.Own"}) == "images"
    assert learns_from({"class_path": "nowhere.Own"}) == ""
