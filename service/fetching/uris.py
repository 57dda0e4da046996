"""URIs of pictures: one reading for each, or none.

A URI that programs read in different ways is refused rather than repaired: what is checked against the list of origins
is letter by letter what is sent.
"""

import ipaddress
import re
from dataclasses import dataclass

from service.errors import ImageUriNotAllowed

MAX_URI_BYTES = 4096
"""Signed addresses of object stores have up to about 2000."""
PORTS = {"http": 80, "https": 443}

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_AUTHORITY = re.compile(r"//([^/?]*)([^?]*)(\?.*)?")
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([1-9][0-9]{0,4}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PATH = re.compile(r"(?:[A-Za-z0-9/._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(r"\?(?:[A-Za-z0-9/?._~!$&'()*+,;=:@|\[\]-]|%[0-9A-Fa-f]{2})*")
_HIDDEN = re.compile(r"%(?:25)*(?:2e|2f|5c|[01][0-9a-f]|7f)", re.IGNORECASE)
"""Dots, slashes, backslashes and control characters, percent-encoded once or more often."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where a picture is, in the one form that is compared and sent.

    Attributes:
        scheme: http or https.
        host: in lower case; an IPv6 address without brackets, in its shortest form.
        port: as given, or the scheme's own.
        path: begins with a slash, and has no segment that is empty, `.` or `..`.
        query: with its question mark, or empty.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str = ""

    @property
    def origin(self) -> tuple[str, str, int]:
        """What a browser would call the origin."""
        return self.scheme, self.host, self.port

    @property
    def base(self) -> str:
        """The origin as the beginning of a URI."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"

    def __str__(self) -> str:
        return f"{self.base}{self.path}{self.query}"


def parse_uri(uri: str) -> Location:
    """Return where a URI leads.

    Raises:
        ImageUriNotAllowed: it is not an http or https URI, or programs could read it in different ways. The message
            names the rule, and does not repeat the URI, which may hold a signature.
    """
    if len(uri) > MAX_URI_BYTES:
        raise ImageUriNotAllowed(f"the URI has {len(uri)} characters; the most is {MAX_URI_BYTES}")
    if not uri.isascii():
        raise ImageUriNotAllowed(
            "the URI has characters outside of ASCII; percent-encode those of the path, and write the host as xn--..."
        )
    scheme = _SCHEME.match(uri)
    if scheme is None or scheme[1].lower() not in PORTS:
        raise ImageUriNotAllowed("only http:// and https:// URIs are fetched")
    parts = _AUTHORITY.fullmatch(uri, scheme.end())
    if parts is None or not parts[1]:
        raise ImageUriNotAllowed("the URI has no host, or has line breaks; write it as https://host/path")
    authority, path, query = parts[1], parts[2] or "/", parts[3] or ""
    if "@" in authority:
        raise ImageUriNotAllowed(
            "the URI has a user or a password; the operator configures credentials for each origin"
        )
    address = _HOST_PORT.fullmatch(authority)
    if address is None or int(address[2] or 1) > 65535:  # noqa: PLR2004 -- the last port
        raise ImageUriNotAllowed("the host or the port of the URI is not valid")
    lower = scheme[1].lower()
    return Location(
        lower, _host(address[1].lower()), int(address[2] or PORTS[lower]), _checked_path(path), _query(query)
    )


def _host(host: str) -> str:
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise ImageUriNotAllowed("the URI's IPv6 address is not valid") from None
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # What is not four decimal numbers without leading zeros is read as another address, or none, by each program.
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ImageUriNotAllowed("the URI's host is a number; write an IPv4 address as 192.0.2.1") from None
    if not all(map(_LABEL.fullmatch, labels)):
        raise ImageUriNotAllowed("the URI's host is not a valid name")
    return host


def _checked_path(path: str) -> str:
    if not _PATH.fullmatch(path):
        raise ImageUriNotAllowed(
            "the URI's path has a backslash, a space, a fragment or another character that must be percent-encoded"
        )
    if _HIDDEN.search(path):
        raise ImageUriNotAllowed("the URI's path has an encoded dot, slash, backslash or control character")
    first, *segments = path.split("/")
    # Some servers take what is behind a semicolon for a parameter.
    names = [each.partition(";")[0] for each in segments]
    if first or "" in names[:-1] or not {".", ".."}.isdisjoint(names):
        raise ImageUriNotAllowed("the URI's path has an empty segment, or one that is . or ..; write it without them")
    return path


def _query(query: str) -> str:
    if query and not _QUERY.fullmatch(query):
        raise ImageUriNotAllowed("the URI's query has a fragment or a character that must be percent-encoded")
    return query
