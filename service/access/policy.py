"""Which permissions RPCs and HTTP routes need, and which collections and tenants of a request are checked."""

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
    "/v1/manifest": ANY,
    "/v1/license": ANY,
    "/v1/version": ANY,
    "/openapi.json": ANY,
    "/metrics": ANY,
}
"""The permissions that each route needs, for all its methods."""


def _nothing(request: Any) -> Sequence[str]:
    del request
    return ()


def _tenant(request: Any) -> Sequence[str]:
    return [request.scope.tenant] if request.scope.tenant else []


@dataclass(frozen=True, slots=True)
class Rule:
    """What an RPC needs.

    Attributes:
        permissions: the client must have one of them.
        collection: the field of a request that names the collection; empty where none does.
        follows: whether an alias means its target collection; otherwise it means itself.
        tenants: the tenants.
        every_tenant: whether a request without a tenant concerns all tenants.
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
    "EvaluationService/EvaluateCollection": Rule(ADMINS, "collection", tenants=_tenant),
    "CollectionService/CreateCollection": Rule(ADMINS, "collection.name", follows=False),
    "CollectionService/UpdateCollection": Rule(ADMINS, "collection.name", every_tenant=True),
    "CollectionService/BindVector": Rule(ADMINS, "collection", every_tenant=True),
    "CollectionService/DeleteCollection": Rule(ADMINS, "name", follows=False, every_tenant=True),
    "CollectionService/GetCollection": Rule(READERS, "name", tenants=_tenant),
    # Shows those that the client may use.
    "CollectionService/ListCollections": Rule(READERS),
    "CollectionService/CreateTenants": Rule(
        ADMINS, "collection", tenants=lambda request: [each.name for each in request.tenants]
    ),
    "CollectionService/UpdateTenants": Rule(
        ADMINS, "collection", tenants=lambda request: [each.name for each in request.tenants]
    ),
    "CollectionService/DeleteTenants": Rule(ADMINS, "collection", tenants=lambda request: list(request.names)),
    # Changing an alias needs its own name and the collections that it leads to, which the core checks.
    "CollectionService/CreateAlias": Rule(ADMINS, "alias.name", follows=False, every_tenant=True),
    "CollectionService/UpdateAlias": Rule(ADMINS, "alias.name", follows=False, every_tenant=True),
    "CollectionService/DeleteAlias": Rule(ADMINS, "name", follows=False, every_tenant=True),
    # Show those whose collections the client may use.
    "CollectionService/GetAlias": Rule(READERS),
    "CollectionService/ListAliases": Rule(READERS),
    # Shows those that the client may use.
    "CollectionService/ListTenants": Rule(READERS, "collection", tenants=lambda request: list(request.names)),
    "ObjectService/ImportObjects": _objects(WRITERS),
    "ObjectService/UpdateObject": _objects(WRITERS),
    "ObjectService/DeleteObject": _objects(WRITERS),
    "ObjectService/DeleteObjects": _objects(WRITERS),
    "ObjectService/BackfillVectors": replace(_objects(WRITERS), every_tenant=True),
    "ObjectService/CountMissingVectors": _objects(READERS),
    "ObjectService/GetObject": _objects(SEARCHERS),
    "ObjectService/ListObjects": _objects(SEARCHERS),
    "SearchService/SearchObjects": _objects(SEARCHERS),
    "SearchService/ProjectObjects": _objects(SEARCHERS),
}
"""The rules by service and method, without the package."""


def check_permission(client: Client, needed: frozenset[Permission], what: str) -> None:
    """Check that a client has one of some permissions.

    Raises:
        PermissionDenied: it has none of them.
    """
    if not client.permissions & needed:
        names = " or ".join(sorted(each.value for each in needed))
        raise PermissionDenied(f"client {client.name!r} may not {what}: it needs the permission {names}")


async def follow_alias(client: Client, method: str, request: Any, real_name: Callable[[str], Awaitable[str]]) -> None:
    """Replace an alias in a request by its target collection, for clients that may use some collections only.

    So the check and the call concern the same collection, even if the alias is changed meanwhile.

    Args:
        client: who calls.
        method: service and method.
        request: the message, which is changed.
        real_name: returns the target of an alias; other names unchanged.

    Raises:
        PermissionDenied: the client may not use the target, whose name is not revealed.
        StoreUnavailable: the target is unknown because the store does not answer.
    """
    rule = RULES.get(method)
    if rule is None or not client.permissions & rule.permissions:
        return  # `authorize` refuses it.
    if not rule.collection or not rule.follows or client.may_touch_every_collection:
        return
    name = _get(request, rule.collection)
    real = await real_name(name)
    check_collection(client, name, real)
    _set(request, rule.collection, real)


def check_collection(client: Client, name: str, real: str = "") -> None:
    """Check that a client may use a collection.

    Args:
        client: who calls.
        name: what the caller calls it, which an error repeats.
        real: its own name; left out where the caller gave that.

    Raises:
        PermissionDenied: it may not.
    """
    if not client.may_touch(real or name):
        raise PermissionDenied(f"client {client.name!r} may not use collection {name!r}")


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
        raise PermissionDenied(f"{method} is not allowed for any client: this server has no rule for it")
    check_permission(client, rule.permissions, f"call {method}")
    return rule


def authorize(client: Client, method: str, request: Any) -> None:
    """Check that a client may make a call.

    Args:
        client: who calls.
        method: service and method, such as "SearchService/SearchObjects".
        request: the message.

    Raises:
        PermissionDenied: it may not. The error does not reveal whether the collection or tenant exists.
    """
    rule = authorize_method(client, method)
    if client.may_touch_every_collection and client.may_touch_every_tenant:
        return
    if rule.collection:
        check_collection(client, _get(request, rule.collection))
    tenants = rule.tenants(request)
    if rule.every_tenant and not tenants and not client.may_touch_every_tenant:
        raise PermissionDenied(f"client {client.name!r} may use some tenants only, and {method} concerns all of them")
    for tenant in tenants:
        if not client.may_touch_tenant(tenant):
            raise PermissionDenied(f"client {client.name!r} may not use tenant {tenant!r}")


def authorize_route(client: Client, route: str, request: str) -> None:
    """Check that a client may make an HTTP request.

    Args:
        client: who calls.
        route: its path, such as "/v1/embeddings".
        request: its name in messages.

    Raises:
        PermissionDenied: it may not.
    """
    rule = HTTP_RULES.get(route)
    if rule is None:
        raise PermissionDenied(f"{request} is not allowed for any client: this server has no rule for it")
    check_permission(client, rule, f"call {request}")
