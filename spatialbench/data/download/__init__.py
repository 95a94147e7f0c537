"""Published data sets: sources, downloads, checks, and layout on disk."""
