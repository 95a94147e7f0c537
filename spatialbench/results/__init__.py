"""Run folders and stored rows: the only folder that knows file names and schema versions."""
