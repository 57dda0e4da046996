"""The default vector of a collection: Vecgate keeps it in the last line of the description in Weaviate.

Weaviate keeps nothing else of ours that can be changed later: it drops keys that it does not know, and those that it
keeps, within the configuration of vectorizers, are immutable.
"""

import re

_LINE = re.compile(r"\[Vecgate: default_vector=(\w+)\]")


def with_default_vector(description: str, name: str) -> str:
    """Return a description with the name of the default vector, if there is one."""
    # Such a line from a caller must not count.
    description, _ = without_default_vector(description)
    line = f"[Vecgate: default_vector={name}]" if name else ""
    return "\n".join(filter(None, (description, line)))


def without_default_vector(description: str) -> tuple[str, str]:
    """Return a description as callers see it, and the name of the default vector, empty for none."""
    name, end = "", len(description.rstrip())
    # Line by line from the end, because one pattern for all lines would scan a long description many times.
    while found := _LINE.fullmatch(description, start := description.rfind("\n", 0, end) + 1, end):
        name, end = name or found[1], max(start - 1, 0)
    return (description[:end], name) if name else (description, "")
