"""Records, images and tensors. Knows no model and no score."""
