"""Former class paths still name their class, and a datamodule says what a page learns from."""

import pytest

from spatialbench.config.experiment import learns_from
from spatialbench.config.signatures import ALIASES, import_class
from spatialbench.data.image_batches import ImageDataModule


class Own(ImageDataModule):
    """A datamodule of a user."""


@pytest.mark.parametrize(("former", "current"), ALIASES.items())
def test_a_former_class_path_names_its_class(former: str, current: str) -> None:
    cls = import_class(former, "test")
    assert f"{cls.__module__}.{cls.__qualname__}" == current


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (None, "pairs"),
        ("spatialbench.data.region_batches.RegionDataModule", "regions"),
        ("spatialbench.data.pictures.PictureDataModule", "images"),
        (f"{__name__}.Own", "images"),
        ("nowhere.Own", ""),
    ],
)
def test_a_datamodule_says_what_a_page_learns_from(path: str | None, kind: str) -> None:
    assert learns_from({"class_path": path}) == kind
