"""Building blocks that several methods share. The losses are pure functions."""
