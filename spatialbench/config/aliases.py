"""Former class paths that pages and tracks may still name, for one release.

Hashes are of the text as written, so that a file keeps its rows. jsonargparse reads the class paths
of models and datamodules itself: their former modules stay importable instead
(``spatialbench/data/pictures.py``).
"""

_DATA = "spatialbench.data"
ALIASES = {
    f"{_DATA}.coco.CocoRegions": f"{_DATA}.coco.coco_regions.CocoRegions",
    f"{_DATA}.coco.regions.CocoRegions": f"{_DATA}.coco.coco_regions.CocoRegions",
    f"{_DATA}.rooms.regions.RoomsRegions": f"{_DATA}.rooms.room_regions.RoomsRegions",
}
"""Former class path -> class path."""
