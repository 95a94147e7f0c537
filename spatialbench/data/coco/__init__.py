"""Files in COCO's format: regions of images, read, checked and written."""
