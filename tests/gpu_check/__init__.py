"""The check on a machine with a GPU: its tests, and how near the service comes to the bare model."""
