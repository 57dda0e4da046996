"""Bounds of the HTTP server that nobody needs to set. They keep slow, greedy and broken clients from harming others."""

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class WebBounds:
    """Bounds on connections and requests.

    Attributes:
        timeout_s: seconds that one request may take; Weaviate's module gives up after 60 s.
        header_timeout_s: seconds in which a request's headers must arrive.
        body_timeout_s: seconds in which a request's body must arrive.
        idle_timeout_s: seconds that a connection may stay without a request. Go's clients, Weaviate's among them, close
            idle connections after 90 s themselves; with less than that, they would send into closed ones.
        max_bodies_bytes: bytes of the bodies of all requests and of their answers' vectors at the same time; more are
            refused as OVERLOADED.
        max_header_bytes: bytes of a request's line and headers.
        max_requests: requests at the same time; more are refused as OVERLOADED.
        max_connections: connections at the same time; more are closed at once.
    """

    timeout_s: float = 60.0
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    idle_timeout_s: float = 120.0
    max_bodies_bytes: int = 256 * MIB
    max_header_bytes: int = 32 * 1024
    max_requests: int = 256
    max_connections: int = 1024
