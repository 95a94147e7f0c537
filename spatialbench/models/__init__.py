"""Weights in, modules out. Knows no data set."""
