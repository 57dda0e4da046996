"""Files on disks, object stores and web servers: found, looked at and read in the same way.

Object stores and web servers are obstore's. Local files are Python's own: obstore follows links to folders, fails at a
loop of them, and takes no names that are not UTF-8. Credentials and endpoints are the environment variables of the
stores' own tools, such as AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and AWS_ALLOW_HTTP for MinIO.
"""

import errno
import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

import obstore
from obstore.exceptions import BaseError
from obstore.store import HTTPStore, from_url

from service.sources.errors import InvalidSource

SCHEMES = frozenset({"s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "https", "http"})
WEB = frozenset({"https", "http"})
WITH_CONTAINER = frozenset({"abfs", "abfss"})
"""Before an @ these have the name of a container, and no user."""
READ_BYTES = 2**22
"""Of one request to an object store."""
MAX_RETRIES = 4
NO_FILES = frozenset({errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP})
"""Errors of the operating system that say that a path is not that of a file."""
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file.

    Attributes:
        location: its URL, or its absolute path.
        size: bytes.
        identity: another text whenever its content is another one.
    """

    location: str
    size: int
    identity: str


def scheme_of(location: str) -> str:
    """Return the scheme of a URL; empty for a local path.

    Raises:
        InvalidSource: it is a URL of another kind, or has a password; final.
    """
    found = _SCHEME.match(location)
    if found is None:
        return ""
    scheme = found[1].lower()
    _check_no_secrets(scheme, location[found.end() :])
    if scheme not in SCHEMES:
        known = ", ".join(sorted(f"{each}://" for each in SCHEMES))
        raise InvalidSource(location, f"{scheme}:// cannot be read; name a local path or one of {known}", final=True)
    return scheme


def _check_no_secrets(scheme: str, rest: str) -> None:
    """Check that a URL has no user and no password: locations are in ledgers and messages."""
    user, sign, host = rest.partition("/")[0].rpartition("@")
    if sign and (":" in user or scheme not in WITH_CONTAINER):
        raise InvalidSource(
            f"{scheme}://{host}", "a URL with a user or password is not read; give them in the environment", final=True
        )


def without_secrets(location: str) -> str:
    """Return a location for messages: without its query, which may hold a signature, and its user and password."""
    parts = location.partition("?")[0].split("/")
    for at, part in enumerate(parts):
        user, sign, host = part.rpartition("@")
        is_host = at > 1 and not parts[at - 1] and parts[at - 2].lower().removesuffix(":") not in WITH_CONTAINER
        # Some programs take a backslash for a slash, or need none. A file may be named logo@2x.png.
        if sign and (is_host or not {":", "\\"}.isdisjoint(user)):
            parts[at] = host
    return "/".join(parts)


def find(location: str) -> tuple[str, list[Entry]]:
    """Return the folder of a location, and its files in the order of their names.

    Args:
        location: a file, a folder, or a pattern with * for some letters of a name, ** for folders, ? and [...].
            A web server has single files only.

    Raises:
        InvalidSource: there is nothing, or it cannot be looked at.
    """
    with _named(location):
        scheme = scheme_of(location)
        wild = _GLOB.search(location) if scheme not in WEB else None
        if wild:
            folder = location[: wild.start()].rpartition("/")[0] or ("" if scheme or location[0] != "/" else "/")
            folder = folder if scheme else str(Path(folder).absolute())
            pattern = _pattern(location if scheme else str(Path(location).absolute()))
            found = [each for each in _below(folder, scheme) if pattern.fullmatch(each.location)]
            if not found:
                raise InvalidSource(location, "no file fits this pattern")
            return folder, found
        if not scheme:
            location = str(Path(location).absolute())
            if Path(location).is_dir():
                return location, _below(location, scheme)
        elif location.endswith("/") or (entry := _head(location)) is None:
            folder = location.rstrip("/")
            found = [] if scheme in WEB else _below(folder, scheme)
            if not found:
                raise InvalidSource(location, "there is no such file" if scheme in WEB else "there are no files")
            return folder, found
        else:
            return location.rpartition("/")[0], [entry]
        return str(Path(location).parent), [look_at(location)]


def look_at(location: str) -> Entry:
    """Return what is known of a file.

    Raises:
        InvalidSource: there is none, or it cannot be looked at.
    """
    with _named(location):
        entry = _head(location) if scheme_of(location) else _local(location)
        if entry is None:
            raise InvalidSource(location, "there is no such file", final=True)
        return entry


def open_file(entry: Entry) -> BinaryIO:
    """Open a file to read it from the start or from anywhere. Close it after use.

    Raises:
        InvalidSource: it cannot be opened. Reading raises it too.
    """
    with _named(entry.location):
        if not scheme_of(entry.location):
            return Path(entry.location).open("rb")
        return io.BufferedReader(_RemoteFile(entry), READ_BYTES)


def read_file(location: str, max_bytes: int) -> bytes:
    """Return a file's bytes.

    Raises:
        InvalidSource: it cannot be read, or is larger than the bound. It is final if no later attempt can read it.
    """
    return read_entry(look_at(location), max_bytes)


def read_entry(entry: Entry, max_bytes: int) -> bytes:
    """Return the bytes of a file that was looked at.

    Raises:
        InvalidSource: as of `read_file`.
    """
    if entry.size > max_bytes:
        raise InvalidSource(entry.location, f"it has {entry.size} bytes; the limit is {max_bytes}", final=True)
    with open_file(entry) as file, _named(entry.location):
        return file.read(entry.size)


class _RemoteFile(io.RawIOBase):
    """A file on an object store or a web server, read in ranges."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._store, self._path = _split(entry.location)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._entry.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._entry.size - self._at)
        if count <= 0:
            return 0
        with _named(self._entry.location):
            content = obstore.get_range(self._store, self._path, start=self._at, length=count)
        buffer[: len(content)] = memoryview(content)
        self._at += len(content)
        return len(content)


def _below(folder: str, scheme: str) -> list[Entry]:
    """Return all files below a folder. Links to folders are not followed."""
    if not scheme:
        return [_local(each) for each in sorted(_walk(folder))]
    store, prefix = _split(folder)
    root = folder.removesuffix(prefix).rstrip("/") if prefix else folder
    metas = (meta for part in obstore.list(store, prefix or None) for meta in part)
    entries = [_entry(f"{root}/{meta['path']}", meta) for meta in metas if meta["size"]]
    return sorted(entries, key=lambda each: each.location)


def _walk(folder: str) -> Iterator[str]:
    def stop(error: OSError) -> None:
        raise error

    for parent, _, files in os.walk(folder, onerror=stop):
        yield from (each for name in files if Path(each := f"{parent.rstrip('/')}/{name}").is_file())


def _local(location: str) -> Entry:
    status = Path(location).stat()
    # Reading a pipe waits forever, and some devices never end.
    if not stat.S_ISREG(status.st_mode):
        raise InvalidSource(location, "it is not a file", final=True)
    return Entry(location, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")


def _head(location: str) -> Entry | None:
    store, path = _split(location)
    if not path:
        return None
    try:
        return _entry(location, obstore.head(store, path))
    except FileNotFoundError:
        return None


def _entry(location: str, meta: Any) -> Entry:
    tag = meta["e_tag"]
    # Azure lists tags without their quotes, and answers with them.
    mark = f'"{tag}"' if tag and not tag.endswith('"') else tag
    return Entry(location, meta["size"], f"{meta['size']}-{mark or meta['last_modified'].isoformat()}")


def _split(location: str) -> tuple[Any, str]:
    """Return the store of a URL, and the path in it."""
    # By hand, because urlsplit drops tabs and line breaks: what is read would not be what was checked.
    scheme, _, rest = location.partition("://")
    scheme, (host, _, path) = scheme.lower(), rest.partition("/")
    if not host:
        raise InvalidSource(without_secrets(location), "it names no host or bucket", final=True)
    if "?" in rest:
        raise InvalidSource(without_secrets(location), "a URL with ? cannot be read; name the file alone", final=True)
    path = path.lstrip("/")
    return store_of(f"{scheme}://{host}"), unquote(path) if scheme in WEB else path


@lru_cache(maxsize=64)
def store_of(root: str) -> Any:
    """Return the store of a scheme and host, with the credentials and endpoint of the environment."""
    retries: Any = {"max_retries": MAX_RETRIES}
    if root.startswith(("http:", "https:")):
        return HTTPStore.from_url(root, client_options={"allow_http": root.startswith("http:")}, retry_config=retries)
    return from_url(root, retry_config=retries)


def _pattern(location: str) -> re.Pattern[str]:
    """Return what a pattern of file names means."""
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]/]+\])", location)
    return re.compile(
        "".join(words.get(each) or (each.replace("[!", "[^") if each[:1] == "[" else re.escape(each)) for each in parts)
    )


@contextmanager
def _named(location: str) -> Iterator[None]:
    """Name the file in what goes wrong with it, and say whether that is final."""
    try:
        yield
    except FileNotFoundError as error:
        raise InvalidSource(location, "there is no such file", final=True) from error
    except OSError as error:
        reason = error.strerror or _first_line(error)
        raise InvalidSource(location, reason, final=error.errno in NO_FILES) from error
    except ValueError as error:
        # No file can have such a name.
        raise InvalidSource(location, _first_line(error), final=True) from error
    except BaseError as error:
        raise InvalidSource(location, _first_line(error)) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:500]
