"""Controls: scorers that know nothing, and changes to the test set with a known effect."""
