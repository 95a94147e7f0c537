"""Files in EmbSpatial's schema: spatial records, read, checked and written."""
