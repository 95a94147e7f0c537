"""The former class path of :mod:`spatialbench.data.image_batches`, kept for one release."""

from spatialbench.data.image_batches import ImageBatch as PictureBatch
from spatialbench.data.image_batches import ImageDataModule, resized
from spatialbench.data.image_batches import ImageDataset as PictureDataset
from spatialbench.data.image_batches import images_of as pictures_of

__all__ = ["PictureBatch", "PictureDataset", "pictures_of", "resized"]


class PictureDataModule(ImageDataModule):
    """``ImageDataModule`` under its former name."""
