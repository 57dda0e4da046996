"""Which pages may use the port from a browser: CORS, and protection from pages that must not.

Browsers never send keys on their own, so a page of another origin can do nothing where keys are needed. Where they are
not, it must not be able to either. Before a page sends JSON or protobuf to another origin, its browser asks
(preflight). Before a GET it does not, but says where the GET comes from. A page whose name was made to mean this
machine (DNS rebinding) looks like one of this server, except for its name.
"""

import ipaddress
import re
from http import HTTPStatus
from urllib.parse import urlsplit

from aiohttp import web

from service.errors import PermissionDenied
from service.settings import WebSettings
from service.settings.servers import is_loopback
from service.web.exchange import Exchange

EXPOSED = "grpc-message, grpc-status, grpc-status-details-bin, server-timing, x-request-id"
"""Headers of answers that pages of listed origins may read."""

ASKED_METHOD = "access-control-request-method"
METHODS = "GET, POST"
PREFLIGHT_S = 7200
"""Seconds that a browser may remember what it was told; none remembers it for longer."""

_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~ ,-]{0,2000}")


class Origins:
    """Checks requests of browsers.

    Args:
        settings: the origins, and where the server listens.
        is_open: whether everybody may call.
    """

    def __init__(self, settings: WebSettings, *, is_open: bool) -> None:
        self._origins = frozenset(settings.cors_origins)
        self._names = {"localhost", *(urlsplit(each).hostname or "" for each in settings.cors_origins)}
        self._checks_names = is_open and is_loopback(settings.host)

    def headers(self, exchange: Exchange) -> dict[str, str]:
        """Return the headers that an answer needs so that a page of a listed origin may read it."""
        if not self._origins:
            return {}
        origin = exchange.headers.get("origin", "")
        if origin not in self._origins:
            return {"vary": "origin"}
        return {
            "vary": "origin",
            "access-control-allow-origin": origin,
            "access-control-expose-headers": EXPOSED,
            "timing-allow-origin": origin,
        }

    def preflight(self, exchange: Exchange) -> web.Response | None:
        """Return the answer to a browser that asks what a page may send; None for other requests."""
        headers = exchange.headers
        if not self._origins or exchange.request.method != "OPTIONS" or ASKED_METHOD not in headers:
            return None
        if headers.get("origin", "") not in self._origins:
            message = f"{headers.get('origin', '')[:200]} is not in VECGATE_WEB__CORS_ORIGINS of this server"
            return web.Response(status=HTTPStatus.FORBIDDEN, text=message, headers={"vary": "origin"})
        asked = headers.get("access-control-request-headers", "")
        allowed = {
            **self.headers(exchange),
            "vary": "origin, access-control-request-headers",
            "access-control-allow-methods": METHODS,
            "access-control-allow-headers": asked if _NAMES.fullmatch(asked) else "",
            "access-control-max-age": str(PREFLIGHT_S),
        }
        return web.Response(status=HTTPStatus.NO_CONTENT, headers=allowed)

    def refusal(self, exchange: Exchange) -> PermissionDenied | None:
        """Return why the page that a request comes from may not call; None if it may, or is not from a page."""
        if (fault := self.foreign(exchange)) is not None:
            return fault
        if (
            self._checks_names
            and not self._is_listed(exchange)
            and not self._is_known(exchange.headers.get("host", ""))
        ):
            return PermissionDenied(
                "this server has no keys and takes calls under the names of this machine only; list the origin that "
                "you use in VECGATE_WEB__CORS_ORIGINS, or call localhost"
            )
        return None

    def foreign(self, exchange: Exchange) -> PermissionDenied | None:
        """Return the refusal of a request that a page of an origin that is not listed causes; None for others."""
        own = exchange.headers.get("sec-fetch-site", "none") in ("same-origin", "none")
        if own or self._is_listed(exchange):
            return None
        return PermissionDenied(
            "pages of other origins may not call this server; list theirs in VECGATE_WEB__CORS_ORIGINS"
        )

    def _is_listed(self, exchange: Exchange) -> bool:
        return exchange.headers.get("origin", "") in self._origins

    def _is_known(self, host: str) -> bool:
        """Return whether a name, with or without a port, can only mean this machine: addresses always do."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in self._names or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
