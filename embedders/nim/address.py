"""The addresses of a NIM and of a proxy: parsed and checked without opening a connection.

Only the standard library is used, so that settings can be checked before heavy packages are loaded.
"""

import ipaddress
import re
import urllib.request
from urllib.parse import SplitResult, urlsplit

ENVIRONMENT = "environment"
"""A proxy's address that stands for HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY."""

HOSTED = "/reranking"
"""The end of an address that is the whole path of a reranker's calls: NVIDIA's hosted rerankers have no other pages."""

MAX_KEY_LENGTH = 4096

# Host names have no underscores, but names in container networks do.
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?")


def parse_base_url(base_url: str) -> str:
    """Return the address in front of /v1, without a slash at its end.

    Args:
        base_url: http or https; with or without /v1 at its end, and with a path before that if a gateway needs one.

    Raises:
        ValueError: the address is invalid. The message does not repeat it.
    """
    parts = _split(base_url, "base_url", "http://host:8000")
    if parts.username is not None or parts.password is not None:
        raise ValueError("base_url holds a user or password; put the key into api_key")
    if parts.query or parts.fragment or base_url.rstrip().endswith(("?", "#")):
        raise ValueError("base_url ends with a query or fragment; end it with the path")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def resolve_proxy(proxy: str | None, base_url: str) -> str | None:
    """Return the address of the proxy in front of a NIM, or None.

    Args:
        proxy: an http or https address, optionally with user and password; ENVIRONMENT; or None for no proxy, even if
            the environment has one.
        base_url: the NIM's address, which NO_PROXY may exclude.

    Raises:
        ValueError: the proxy's address is invalid. The message does not repeat it.
    """
    if proxy is None:
        return None
    where = "proxy"
    if proxy.strip().lower() == ENVIRONMENT:
        parts = urlsplit(parse_base_url(base_url))
        if parts.hostname is None or urllib.request.proxy_bypass(parts.hostname):
            return None
        proxies = urllib.request.getproxies()
        proxy, where = proxies.get(parts.scheme) or proxies.get("all"), "the environment's proxy"
        if proxy is None:
            return None
        proxy = proxy if "://" in proxy else f"http://{proxy}"
    _split(proxy, where, "http://host:3128")
    return proxy.strip()


def check_key(key: str) -> None:
    """Reject a key that cannot be sent in a header.

    Raises:
        ValueError: it is empty, too long, or has invalid characters. The message does not repeat it.
    """
    if not key:
        raise ValueError("api_key is empty")
    if len(key) > MAX_KEY_LENGTH:
        raise ValueError(f"api_key has more than {MAX_KEY_LENGTH} characters")
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise ValueError("api_key has characters that a key cannot have, such as a line break")


def _split(address: str, name: str, example: str) -> SplitResult:
    fault = f"{name} must be an http or https address, such as {example}"
    try:
        parts = urlsplit(address.strip())
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(fault) from error
    if parts.scheme not in ("http", "https") or not host or not address.strip().isascii():
        raise ValueError(fault)
    if any(character.isspace() or not character.isprintable() for character in address.strip()):
        raise ValueError(fault)
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError as error:
            raise ValueError(fault) from error
    elif not _HOST.fullmatch(host):
        raise ValueError(fault)
    return parts
