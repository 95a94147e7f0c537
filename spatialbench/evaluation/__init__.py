"""A model through a protocol in, evidence out. Trains nothing and knows no method."""
