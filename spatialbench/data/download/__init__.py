"""Published data sets brought to disk: where each comes from, what it is checked by, how it is laid out."""
