"""Version 1 of the API, as generated stubs."""
