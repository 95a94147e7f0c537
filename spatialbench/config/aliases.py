"""Former class paths that pages and tracks may still name, for one release.

Hashes are of the text as written, so that a file keeps its rows. jsonargparse reads the class paths
of models and datamodules itself: their former modules stay importable instead
(``spatialbench/data/pictures.py``).
"""

ALIASES = {
    "spatialbench.data.coco.CocoRegions": "spatialbench.data.coco.coco_regions.CocoRegions",
    "spatialbench.data.rooms.regions.RoomsRegions": "spatialbench.data.rooms.room_regions.RoomsRegions",
}
"""Former class path -> class path."""
