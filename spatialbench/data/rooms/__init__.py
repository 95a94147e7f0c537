"""rooms: indoor scenes rendered on the CPU from a seed, with exact depth, masks and boxes."""

from spatialbench.data.rooms.facts import left_over
from spatialbench.data.rooms.store import RoomsSet, load

__all__ = ["RoomsSet", "left_over", "load"]
