"""The journal of an import: a file of what is stored, so that an import that was cut off can continue."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from vecgate.client import Object, Reference

HEADER = "vecgate import journal 1"
LINE = re.compile(r"([0-9a-f-]{36}) ([0-9a-f]{64})(?: (\S+))?")


class InvalidJournal(Exception):
    """A file is not a journal of an import."""


class Journal:
    """A file with the id and digest of each stored object on a line. Use it as a context manager.

    Where rows name their tenants, the object's tenant follows.

    Lines that are written survive if this program is killed. A line that was cut off is ignored.

    Args:
        path: the file; created if it does not exist.
        collection: the collection of the objects, which is part of the digests.
        tenant: the tenant of all objects, which is part of the digests; empty where there is none or rows name it.
    """

    def __init__(self, path: Path, collection: str, tenant: str = "") -> None:
        """Read what is stored.

        Raises:
            InvalidJournal: the file is something else.
            OSError: the file cannot be read or written.
        """
        self._collection, self._tenant = collection, tenant
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        if text and not text.startswith(HEADER + "\n") and not HEADER.startswith(text):
            raise InvalidJournal(f"{path} is not a journal of an import; name another file")
        matches = (LINE.fullmatch(line) for line in text.splitlines())
        self._stored: dict[tuple[str, str], str] = {(each[1], each[3] or ""): each[2] for each in matches if each}
        self._digests = set(self._stored.values())
        self._file = path.open("a", encoding="utf-8", newline="\n")
        if not text.startswith(HEADER + "\n"):
            self._file.truncate(0)
            self._file.write(HEADER + "\n")
        elif not text.endswith("\n"):
            self._file.write("\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def digest(self, object_: Object, tenant: str = "") -> str:
        """Return a digest of an object with all its contents, and of its tenant where it has its own."""
        images = {name: _picture(each) for name, each in object_.images.items()}
        content = [self._collection, tenant or self._tenant, object_.id, dict(object_.properties), images]
        if object_.vectors:
            content.append({name: np.asarray(values).tolist() for name, values in object_.vectors.items()})
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def has(self, id_: str, digest: str, tenant: str = "") -> bool:
        """Return whether an object of that id is stored with this digest; without an id, any object with it."""
        return self._stored.get((id_, tenant)) == digest if id_ else digest in self._digests

    def add(self, id_: str, digest: str, tenant: str = "") -> None:
        """Note that an object is stored."""
        self._stored[id_, tenant] = digest
        self._digests.add(digest)
        self._write(id_, tenant)
        self._file.flush()

    def stored(self) -> list[tuple[str, str]]:
        """Return the id of each object that is noted, and its tenant where rows name it."""
        return list(self._stored)

    def forget(self, objects: Iterable[tuple[str, str]]) -> None:
        """Forget objects that are no longer stored, each by its id and its tenant as in `stored`."""
        for each in objects:
            del self._stored[each]
        self._digests = set(self._stored.values())
        # Whatever is lost if this is cut off is imported again.
        self._file.truncate(0)
        self._file.write(HEADER + "\n")
        for key in self._stored:
            self._write(*key)
        self._file.flush()

    def _write(self, id_: str, tenant: str) -> None:
        self._file.write(f"{id_} {self._stored[id_, tenant]}" + (f" {tenant}\n" if tenant else "\n"))


def _picture(image: bytes | Reference) -> str:
    """Return what stands for a picture: a digest, or the URI of one that the server fetches."""
    return image.uri if isinstance(image, Reference) else hashlib.sha256(image).hexdigest()
