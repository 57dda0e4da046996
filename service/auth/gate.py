"""The gate: finds out who calls, and what that client may do is in service.auth.clients."""

from collections.abc import Iterable
from contextvars import ContextVar
from functools import partial

import structlog

from service.auth.clients import ANYBODY, Client
from service.auth.files import Watched
from service.auth.keys import KeyRing, read_keys
from service.errors import ApiKeyInvalid, ApiKeyMissing
from service.settings import AuthSettings

__all__ = ["Gate", "calling", "note_client"]

AUTHORIZATION = "authorization"
API_KEY = "x-api-key"
BEARER = "bearer"

calling: ContextVar[Client] = ContextVar("calling", default=ANYBODY)
"""Who makes the present call."""


class Gate:
    """Knows clients by their keys.

    Attributes:
        settings: what is open to everybody.

    Raises:
        InvalidSettings: the file of keys cannot be used.
    """

    def __init__(self, settings: AuthSettings) -> None:
        self.settings = settings
        self._keys: Watched[KeyRing] | None = None
        if settings.keys_file is not None:
            self._keys = Watched("auth.keys_file", [settings.keys_file], partial(read_keys, settings.keys_file))

    @property
    def closed(self) -> bool:
        """Whether calls have to say who makes them."""
        return self._keys is not None

    def identify(self, headers: Iterable[tuple[str, str | bytes]]) -> Client:
        """Return who makes a call, by the names (in lower case) and values of its metadata or headers.

        Raises:
            ApiKeyMissing: it brings no key.
            ApiKeyInvalid: its key is no client's, or it brings several.
        """
        if self._keys is None:
            return ANYBODY
        found = list(_credentials(headers))
        if not found:
            raise ApiKeyMissing
        client = self._keys.current.find(found[0]) if len(set(found)) == 1 else None
        if client is None:
            raise ApiKeyInvalid
        return client


def note_client(client: Client) -> None:
    """Note who makes the present call, for what is asked further on, and for log and metrics."""
    calling.set(client)
    if client is not ANYBODY:
        structlog.contextvars.bind_contextvars(client=client.name)


def _credentials(headers: Iterable[tuple[str, str | bytes]]) -> Iterable[str]:
    for name, value in headers:
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if name == AUTHORIZATION:
            scheme, _, key = text.partition(" ")
            if scheme.lower() == BEARER and key.strip():
                yield key.strip()
        elif name == API_KEY and text.strip():
            yield text.strip()
