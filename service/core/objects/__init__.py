"""Objects: imported, updated, filled in, deleted and listed."""
