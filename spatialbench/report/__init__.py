"""Tables, claims and figures from stored results. Runs no model."""
