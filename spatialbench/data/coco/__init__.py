"""Files in COCO's format: regions with masks, read, checked and written."""
