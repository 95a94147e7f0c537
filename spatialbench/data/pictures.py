"""The former class path of :class:`~spatialbench.data.image_batches.ImageDataModule`."""

from spatialbench.data.image_batches import ImageDataModule


class PictureDataModule(ImageDataModule):
    """``ImageDataModule`` under its former name, for one release."""
