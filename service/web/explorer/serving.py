"""The files of the explorer. Anyone gets them: they hold no data, and every call of the page needs what others need."""

import gzip
import hashlib
from dataclasses import dataclass
from http import HTTPStatus
from importlib import resources

from aiohttp import web

from service.web.exchange import Exchange

INDEX = "index.html"
FOLDER = "/explorer/"
"""The path in front of all files but the index, which names them relative to itself."""

CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load: its own files, pictures that it has made itself, and answers of this server."""

HEADERS = {
    # Asked for again each time, and answered by 304: after an update nobody has an old page with a new server.
    "cache-control": "no-cache",
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it is and packed by gzip, each with the headers of its answer."""

    content: bytes
    headers: dict[str, str]
    packed: bytes
    packed_headers: dict[str, str]


class Explorer:
    """The files, read once.

    Attributes:
        paths: of all files.
    """

    def __init__(self) -> None:
        self._files = dict(_read_files())
        self.paths = frozenset(self._files)

    async def get_file(self, exchange: Exchange) -> web.Response:
        """Return a file, or 304 to a caller that has it."""
        file = self._files[exchange.path]
        known = exchange.headers.get("if-none-match", "")
        tag = file.headers["etag"].removeprefix("W/")
        if tag in (each.strip().removeprefix("W/") for each in known.split(",")):
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=file.headers)
        accepted = {each.strip() for each in exchange.headers.get("accept-encoding", "").split(",")}
        if "gzip" in accepted:
            return web.Response(body=file.packed, headers=file.packed_headers)
        return web.Response(body=file.content, headers=file.headers)


def _read_files() -> list[tuple[str, _File]]:
    folder = resources.files(__package__) / "static"
    files = []
    for entry in folder.iterdir():
        content = entry.read_bytes()
        headers = {
            "content-type": CONTENT_TYPES[f".{entry.name.rpartition('.')[2]}"],
            # Weak, because it is the same for both forms of the file.
            "etag": f'W/"{hashlib.sha256(content).hexdigest()[:32]}"',
            "vary": "accept-encoding",
            **HEADERS,
        }
        path = "/" if entry.name == INDEX else FOLDER + entry.name
        packed = gzip.compress(content, mtime=0)
        files.append((path, _File(content, headers, packed, headers | {"content-encoding": "gzip"})))
    return files
