"""The keys of clients: made once, kept as hashes in a file."""

import hashlib
import hmac
import secrets
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.auth.clients import EVERYTHING, Client, Permission
from service.settings import InvalidSettings

__all__ = ["KeyRing", "hash_key", "new_key", "read_keys"]

PREFIX = "vgk_"
KEY_BYTES = 32
HASHED = "sha256:"

ClientName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
KeyHash = Annotated[str, Field(pattern=rf"^{HASHED}[0-9a-f]{{64}}$")]
Patterns = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    keys: Annotated[tuple[KeyHash, ...], Field(min_length=1)]
    permissions: frozenset[Permission]
    collections: Patterns = (EVERYTHING,)
    tenants: Patterns = (EVERYTHING,)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    clients: Annotated[dict[ClientName, _Entry], Field(min_length=1)]


class KeyRing:
    """Clients by the hashes of their keys."""

    def __init__(self, clients: dict[str, Client]) -> None:
        self._clients = clients

    def find(self, key: str) -> Client | None:
        """Return the client of a key, None if there is none."""
        given = hash_key(key)
        found = None
        # All are compared, so that the time says nothing of which one was nearest.
        for known, client in self._clients.items():
            if hmac.compare_digest(given, known):
                found = client
        return found


def read_keys(file: Path) -> KeyRing:
    """Return the clients of a file of keys.

    Raises:
        InvalidSettings: it cannot be read or breaks rules. The message repeats nothing of it but names.
    """
    try:
        entries = _File.model_validate(tomllib.loads(file.read_text(encoding="utf-8"))).clients
    except OSError as error:
        raise InvalidSettings(f"the key file {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidSettings(f"the key file {file} is no text") from error
    except tomllib.TOMLDecodeError as error:
        # Its message may repeat the line, and with it what somebody took for a place for a key.
        raise InvalidSettings(f"the key file {file} is no TOML; `vecgate auth new-key NAME` shows its form") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, each['loc'][:3])) or 'the file'}: {each['msg']}"
            for each in error.errors(include_input=False, include_url=False, include_context=False)
        )
        raise InvalidSettings(f"the key file {file}: {faults}") from error
    clients: dict[str, Client] = {}
    for name, entry in entries.items():
        client = Client(name=name, permissions=entry.permissions, collections=entry.collections, tenants=entry.tenants)
        for hashed in entry.keys:
            if hashed in clients:
                raise InvalidSettings(f"the key file {file}: a key of client {name} stands there twice")
            clients[hashed] = client
    return KeyRing(clients)


def new_key() -> str:
    """Return a new key of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def hash_key(key: str) -> str:
    """Return what the file holds of a key."""
    # A key of 256 random bits cannot be found by trying, so a slow hash would only slow each call down.
    return HASHED + hashlib.sha256(key.encode(errors="replace")).hexdigest()
