"""Clients: those who call, by name, and what each of them may do."""

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from service.errors import CollectionDenied, PermissionDenied, TenantDenied

__all__ = ["ANYBODY", "EVERYTHING", "Client", "Permission"]

EVERYTHING = "*"


class Permission(StrEnum):
    """What a client may do; none of them contains another."""

    EMBED = "embed"
    SEARCH = "search"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A caller that is known.

    Attributes:
        name: for logs and metrics.
        permissions: what it may do.
        collections: patterns of the names of those that it may use.
        tenants: patterns of the names of those that it may use.
    """

    name: str
    permissions: frozenset[Permission]
    collections: tuple[str, ...] = (EVERYTHING,)
    tenants: tuple[str, ...] = (EVERYTHING,)

    def may_use_collection(self, name: str) -> bool:
        """Return whether it may use a collection."""
        # Weaviate takes a name's first letter for a capital.
        return any(fnmatchcase(_capital(name), _capital(pattern)) for pattern in self.collections)

    def may_use_tenant(self, name: str) -> bool:
        """Return whether it may use a tenant; no tenant is what a collection without any is used with."""
        return not name or any(fnmatchcase(name, pattern) for pattern in self.tenants)

    def check_permission(self, any_of: frozenset[Permission]) -> None:
        """Refuse what takes a permission that the client has not; nothing refuses no client.

        Raises:
            PermissionDenied: it has none of them.
        """
        if any_of and not any_of & self.permissions:
            raise PermissionDenied(self.name, sorted(any_of))

    def check_collection(self, name: str) -> None:
        """Refuse a collection that the client may not use, whether there is one of that name or not.

        Raises:
            CollectionDenied: it may not.
        """
        if not self.may_use_collection(name):
            raise CollectionDenied(self.name, name)

    def check_tenant(self, name: str) -> None:
        """Refuse a tenant that the client may not use, whether there is one of that name or not.

        Raises:
            TenantDenied: it may not.
        """
        if not self.may_use_tenant(name):
            raise TenantDenied(self.name, name)

    def check_all_tenants(self) -> None:
        """Refuse what concerns every tenant of a collection.

        Raises:
            TenantDenied: it may use some tenants only.
        """
        if EVERYTHING not in self.tenants:
            raise TenantDenied(self.name, EVERYTHING)


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


ANYBODY = Client(name="anonymous", permissions=frozenset(Permission))
"""Who calls a server that asks nobody who they are."""
