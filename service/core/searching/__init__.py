"""Searching: the query is embedded in the space of the named vector that is searched."""
