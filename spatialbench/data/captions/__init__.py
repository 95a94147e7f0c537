"""Published caption benchmarks, one file each: the layout on disk, the records, the metrics."""
