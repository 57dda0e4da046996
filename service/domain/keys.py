"""The names of pictures and rows, the ids that they give, and the names that columns get as properties."""

import re
import unicodedata
from collections.abc import Sequence
from uuid import UUID, uuid5

# Part of every id: with another one a second import would store everything twice.
NAMESPACE = UUID("6f0c9a52-3f7e-5d0b-9a39-0b5f6a0f4c1e")
# Weaviate's own words.
RESERVED = frozenset({"id", "vector", "_id", "_additional"})
SEPARATORS = {";": "semicolons", "\t": "tabs"}
"""What spreadsheets put between cells instead of commas, in words."""
# What Python makes of the bytes of a name that are not text.
_NO_TEXT = re.compile("[\ud800-\udfff]")
_FIRST_BYTE, _LAST_BYTE = 0xDC80, 0xDCFF


def key_id(collection: str, key: str) -> str:
    """Return the id of a key: the same for the same collection and key. Of a file's path, give the normal one."""
    return str(uuid5(NAMESPACE, f"{collection}/{key}"))


def normal_path(file: str) -> str:
    """Return a relative path in one spelling on every system: forward slashes, composed letters, and as text."""
    return unicodedata.normalize("NFC", as_text(file).replace("\\", "/")).removeprefix("./")


def as_text(file: str) -> str:
    """Return a path with those bytes of its names that are not UTF-8 written as in a URL: %E9."""
    return _NO_TEXT.sub(_percent, file)


def property_name(column: str) -> str:
    """Return the name that a column gets as a property: its own, as far as Weaviate takes it."""
    name = re.sub(r"[^0-9A-Za-z_]", "_", column.strip())
    name = name[:1].lower() + name[1:]
    if not re.match(r"[_a-z]", name):
        name = f"_{name}"
    return f"{name}_" if name in RESERVED else name


def separator_fault(header: Sequence[str]) -> str:
    """Return what a CSV has, and what to do, if something else than commas separates its columns; else nothing."""
    found = next((words for each, words in SEPARATORS.items() if len(header) == 1 and each in header[0]), None)
    return "" if found is None else f"columns separated by {found}; save it as CSV with commas"


def _percent(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"%{code & 0xFF:02X}" if _FIRST_BYTE <= code <= _LAST_BYTE else f"%u{code:04X}"
