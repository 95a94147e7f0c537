"""Published data sets: where each comes from, how it is checked and laid out."""
