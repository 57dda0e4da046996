"""The default vector of a collection: the last line of its description in Weaviate, which Vecgate alone shows as such.

Weaviate keeps nothing else of ours that can be changed later: it drops keys that it does not know, and those that it
keeps, within the configuration of vectorizers, are immutable.
"""

import re

_LINE = re.compile(r"\[Vecgate: default_vector=(\w+)\]")


def with_default_vector(description: str, name: str) -> str:
    """Return a description that says which named vector is the default one, if any is."""
    # What a caller wrote into a description decides nothing.
    description, _ = without_default_vector(description)
    line = f"[Vecgate: default_vector={name}]" if name else ""
    return "\n".join(filter(None, (description, line)))


def without_default_vector(description: str) -> tuple[str, str]:
    """Return a description as callers see it, and the name of the default vector, empty for none."""
    name, end = "", len(description.rstrip())
    # Line by line from the end: one pattern for all lines would take a long description apart again and again.
    while found := _LINE.fullmatch(description, start := description.rfind("\n", 0, end) + 1, end):
        name, end = name or found[1], max(start - 1, 0)
    return (description[:end], name) if name else (description, "")
