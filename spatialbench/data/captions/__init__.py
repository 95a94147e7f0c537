"""Published benchmarks of captions, a file each: the layout on disk, the records, and the benchmark's own numbers."""
