"""The default vector of a collection: the last line of its description in Weaviate, which Vecgate alone shows as such.

Weaviate keeps nothing else of ours that can be changed later: it drops keys that it does not know, and those that it
keeps, within the configuration of vectorizers, are immutable.
"""

import re

__all__ = ["with_default_vector", "without_default_vector"]

_LINES = re.compile(r"(?:(?:\A|\n)\[Vecgate: default_vector=(\w+)\])+\Z")


def with_default_vector(description: str, name: str) -> str:
    """Return a description that says which named vector is the default one, if any is."""
    # What a caller wrote into a description decides nothing.
    description, _ = without_default_vector(description)
    line = f"[Vecgate: default_vector={name}]" if name else ""
    return "\n".join(filter(None, (description, line)))


def without_default_vector(description: str) -> tuple[str, str]:
    """Return a description as callers see it, and the name of the default vector, empty for none."""
    found = _LINES.search(description)
    return (description[: found.start()], found[1]) if found else (description, "")
