"""Clients: the programs that call, by name, with what each may do."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.domain import collection_name
from service.settings import InvalidSettings
from service.settings.types import parse_toml

CALLER_KEY = "x-nvidia-api-key"
"""The metadata with a caller's key; Weaviate's own modules for NVIDIA use the same header."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Pattern = Annotated[str, Field(min_length=1, max_length=256)]


class Permission(Enum):
    """What a client may do."""

    EMBED = "embed"
    SEARCH = "search"
    WRITE = "write"
    ADMIN = "admin"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Quota(_Strict):
    """What a client may use; None means no bound.

    Attributes:
        inputs_per_second: texts and images to embed, and hits to rerank, on average.
        bytes_per_second: bytes of requests, on average.
        max_inputs_in_flight: inputs that wait for an embedder or that it is embedding; one call alone may have more. At
            the bound no further call begins, and inputs of earlier calls that exceed it wait.
    """

    inputs_per_second: float | None = Field(None, gt=0, le=1e9)
    bytes_per_second: float | None = Field(None, gt=0, le=1e12)
    max_inputs_in_flight: int | None = Field(None, ge=1)


class _Entry(_Strict):
    """A client as written in the file."""

    keys_sha256: tuple[Digest, ...] = ()
    subjects: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = ()
    permissions: tuple[Permission, ...] = Field(min_length=1)
    collections: tuple[Pattern, ...] = ("*",)
    tenants: tuple[Pattern, ...] = ("*",)
    quota: Quota = Quota()


class _File(_Strict):
    clients: dict[Name, _Entry] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Client:
    """A program that calls.

    Attributes:
        name: for logs, metrics and fair shares.
        permissions: what it may do.
        collections: patterns of the collections that it may use; `*` and `?` work as in a shell.
        tenants: patterns of the tenants, where a collection has some.
        quota: what it may use.
        keys: SHA-256 digests of its keys.
        subjects: the `sub` of its tokens.
    """

    name: str
    permissions: frozenset[Permission]
    collections: tuple[str, ...] = ("*",)
    tenants: tuple[str, ...] = ("*",)
    quota: Quota = field(default_factory=Quota)
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    subjects: tuple[str, ...] = ()

    def may_touch(self, collection: str) -> bool:
        """Return whether the client may use a collection; the case of the first letter is ignored, as in Weaviate."""
        return _matches(collection_name(collection), (collection_name(each) for each in self.collections))

    @property
    def may_touch_every_collection(self) -> bool:
        """Whether the client may use all collections."""
        return "*" in self.collections

    def may_touch_tenant(self, tenant: str) -> bool:
        """Return whether the client may use a tenant."""
        return _matches(tenant, self.tenants)

    @property
    def may_touch_every_tenant(self) -> bool:
        """Whether the client may use all tenants."""
        return "*" in self.tenants


EVERYBODY = Client("", frozenset(Permission))
"""The client of every call where no clients are configured: it may do everything."""


def read_clients(content: bytes, where: str) -> tuple[Client, ...]:
    """Return the clients of a TOML file.

    Args:
        content: of the file.
        where: the file's name, for messages.

    Raises:
        InvalidSettings: it is not valid TOML or breaks rules; all errors are listed, without keys or digests.
    """
    entries = parse_toml(_File, content, where).clients
    faults = [*_repeated(entries, "keys_sha256", where), *_repeated(entries, "subjects", where)]
    faults += [
        f"{where}: clients.{name}: has neither keys_sha256 nor subjects, so no caller can be this client"
        for name, entry in entries.items()
        if not entry.keys_sha256 and not entry.subjects
    ]
    if faults:
        raise InvalidSettings("\n".join(faults))
    return tuple(_client(name, entry) for name, entry in entries.items())


def digest_of(key: str) -> bytes:
    """Return the stored form of a key. Keys have 256 random bits, so one round of SHA-256 cannot be reversed."""
    return hashlib.sha256(key.encode(errors="replace")).digest()


def _client(name: str, entry: _Entry) -> Client:
    keys = tuple(bytes.fromhex(each) for each in entry.keys_sha256)
    permissions = frozenset(entry.permissions)
    return Client(name, permissions, entry.collections, entry.tenants, entry.quota, keys, entry.subjects)


def _repeated(entries: dict[str, _Entry], field_: str, where: str) -> Iterator[str]:
    owner: dict[str, str] = {}
    for name, entry in entries.items():
        for value in getattr(entry, field_):
            if owner.setdefault(value, name) != name:
                yield f"{where}: clients.{name}.{field_}: one of them also belongs to {owner[value]}"


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, each) for each in patterns)
