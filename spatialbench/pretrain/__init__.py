"""Trains the foundation models in miniature that the package ships."""
