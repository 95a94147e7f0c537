"""Pages, tracks and experiments: YAML in, an experiment with its hashes out."""
