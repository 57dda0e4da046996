"""Vecgate for its callers: the client and the generated stubs."""
