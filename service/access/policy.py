"""Which permission RPCs and HTTP routes need, and which collections and tenants of a request count."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from service.access.clients import Client, Permission
from service.errors import PermissionDenied

READERS = frozenset({Permission.SEARCH, Permission.WRITE, Permission.ADMIN})
EMBEDDERS = frozenset({Permission.EMBED})
SEARCHERS = frozenset({Permission.SEARCH})
WRITERS = frozenset({Permission.WRITE})
ADMINS = frozenset({Permission.ADMIN})
ANY = frozenset(Permission)

HTTP_RULES: dict[str, frozenset[Permission]] = {
    "/v1/embeddings": EMBEDDERS,
    "/v1/health/live": ANY,
    "/v1/health/ready": ANY,
    "/v1/models": ANY,
    "/v1/models/{model}": ANY,
    "/v1/metadata": ANY,
    "/v1/version": ANY,
    "/openapi.json": ANY,
    "/metrics": ANY,
}
"""What each route needs, whatever the method, by its path without what callers put into it."""


def _nothing(request: Any) -> Sequence[str]:
    del request
    return ()


def _tenant(request: Any) -> Sequence[str]:
    scope = request.scope if "scope" in request.DESCRIPTOR.fields_by_name else request
    return [scope.tenant] if scope.tenant else []


@dataclass(frozen=True, slots=True)
class Rule:
    """What an RPC needs.

    Attributes:
        permissions: one of which the client must have.
        collection: the field of a request that names the collection; empty where none does.
        follows: whether an alias stands for the collection that it leads to; if not, the name itself is meant.
        tenants: the tenants.
        every_tenant: whether a request that names no tenant touches every one there is.
    """

    permissions: frozenset[Permission]
    collection: str = ""
    follows: bool = True
    tenants: Callable[[Any], Sequence[str]] = _nothing
    every_tenant: bool = False


def _objects(permissions: frozenset[Permission]) -> Rule:
    return Rule(permissions, "collection", tenants=_tenant)


RULES: dict[str, Rule] = {
    "EmbeddingService/EmbedInputs": Rule(EMBEDDERS),
    "EmbeddingService/ListEmbedders": Rule(ANY),
    "AdminService/GetServerStatus": Rule(ADMINS),
    "CollectionService/CreateCollection": Rule(ADMINS, "collection.name", follows=False),
    "CollectionService/UpdateCollection": Rule(ADMINS, "collection.name", every_tenant=True),
    "CollectionService/DeleteCollection": Rule(ADMINS, "name", follows=False, every_tenant=True),
    "CollectionService/GetCollection": Rule(READERS, "name", tenants=_tenant),
    # Shows those that the client may touch.
    "CollectionService/ListCollections": Rule(READERS),
    "CollectionService/CreateTenants": Rule(
        ADMINS, "collection", tenants=lambda request: [each.name for each in request.tenants]
    ),
    "CollectionService/UpdateTenants": Rule(
        ADMINS, "collection", tenants=lambda request: [each.name for each in request.tenants]
    ),
    "CollectionService/DeleteTenants": Rule(ADMINS, "collection", tenants=lambda request: list(request.names)),
    # Shows those that the client may touch.
    "CollectionService/ListTenants": Rule(READERS, "collection", tenants=lambda request: list(request.names)),
    "ObjectService/ImportObjects": _objects(WRITERS),
    "ObjectService/UpdateObject": _objects(WRITERS),
    "ObjectService/DeleteObject": _objects(WRITERS),
    "ObjectService/DeleteObjects": _objects(WRITERS),
    "ObjectService/BackfillVectors": replace(_objects(WRITERS), every_tenant=True),
    "ObjectService/GetObject": _objects(SEARCHERS),
    "ObjectService/ListObjects": _objects(SEARCHERS),
    "SearchService/SearchObjects": _objects(SEARCHERS),
}
"""By service and method, without the package."""


def check_permission(client: Client, needed: frozenset[Permission], what: str) -> None:
    """Check that a client has one of some permissions.

    Raises:
        PermissionDenied: it has none.
    """
    if not client.permissions & needed:
        names = " or ".join(sorted(each.value for each in needed))
        raise PermissionDenied(f"client {client.name!r} may not {what}: it needs the permission {names}")


async def follow_alias(client: Client, method: str, request: Any, real_name: Callable[[str], Awaitable[str]]) -> None:
    """Let a request of a client of some collections name the collection itself where it names an alias.

    So what is checked is what the call is about, wherever the alias leads meanwhile.

    Args:
        client: who calls.
        method: service and method.
        request: the message, which is changed.
        real_name: returns the name of the collection that a name leads to, or the same name where there is none.

    Raises:
        PermissionDenied: an alias leads to a collection that the client may not touch. Where to is not told.
        StoreUnavailable: nobody knows where it leads.
    """
    rule = RULES.get(method)
    if rule is None or not client.permissions & rule.permissions:
        return  # It is refused.
    if not rule.collection or not rule.follows or client.may_touch_every_collection:
        return
    name = _get(request, rule.collection)
    real = await real_name(name)
    if not client.may_touch(real):
        raise PermissionDenied(f"client {client.name!r} may not touch collection {name!r}")
    _set(request, rule.collection, real)


def _get(request: Any, path: str) -> str:
    value: str = attrgetter(path)(request)
    return value


def _set(request: Any, path: str, value: str) -> None:
    *parents, field = path.split(".")
    setattr(attrgetter(".".join(parents))(request) if parents else request, field, value)


def authorize_method(client: Client, method: str) -> Rule:
    """Check that a client may call a method at all, before its request is read, and return the method's rule.

    Raises:
        PermissionDenied: it may not.
    """
    rule = RULES.get(method)
    if rule is None:
        raise PermissionDenied(f"{method} is open to nobody: this server has no rule for it")
    check_permission(client, rule.permissions, f"call {method}")
    return rule


def authorize(client: Client, method: str, request: Any) -> None:
    """Check that a client may make a call.

    Args:
        client: who calls.
        method: service and method, such as "SearchService/SearchObjects".
        request: the message.

    Raises:
        PermissionDenied: it may not. Whether the collection or the tenant is there is not told.
    """
    rule = authorize_method(client, method)
    if rule.collection and not client.may_touch(collection := _get(request, rule.collection)):
        raise PermissionDenied(f"client {client.name!r} may not touch collection {collection!r}")
    tenants = rule.tenants(request)
    if rule.every_tenant and not tenants and not client.may_touch_every_tenant:
        raise PermissionDenied(f"client {client.name!r} may touch some tenants only, and {method} touches all of them")
    for tenant in tenants:
        if not client.may_touch_tenant(tenant):
            raise PermissionDenied(f"client {client.name!r} may not touch tenant {tenant!r}")


def authorize_route(client: Client, route: str, request: str) -> None:
    """Check that a client may make an HTTP request.

    Args:
        client: who calls.
        route: its path, such as "/v1/embeddings".
        request: what messages call it.

    Raises:
        PermissionDenied: it may not.
    """
    rule = HTTP_RULES.get(route)
    if rule is None:
        raise PermissionDenied(f"{request} is open to nobody: this server has no rule for it")
    check_permission(client, rule, f"call {request}")
