"""What each RPC and each HTTP route takes: one table; what it does not name is refused."""

from collections.abc import Mapping
from dataclasses import dataclass

from service.auth.clients import Permission

__all__ = ["METHODS", "ROUTES", "Rule"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a call takes.

    Attributes:
        any_of: permissions of which one is enough; without any, every known client may call.
        collection: path of the field that names the collection.
        tenants: path of the field or fields that name tenants.
        all_tenants: whether the call concerns all tenants when it names none.
    """

    any_of: frozenset[Permission] = frozenset()
    collection: str = ""
    tenants: str = ""
    all_tenants: bool = False


EMBED = frozenset({Permission.EMBED})
SEARCH = frozenset({Permission.SEARCH})
WRITE = frozenset({Permission.WRITE})
ADMIN = frozenset({Permission.ADMIN})
LOOK = frozenset({Permission.SEARCH, Permission.WRITE, Permission.ADMIN})

METHODS: Mapping[str, Rule] = {
    "vecgate.v1.EmbeddingService/EmbedInputs": Rule(EMBED),
    "vecgate.v1.EmbeddingService/ListEmbedders": Rule(),
    "vecgate.v1.CollectionService/CreateCollection": Rule(ADMIN, "collection.name"),
    "vecgate.v1.CollectionService/GetCollection": Rule(LOOK, "name", "tenant"),
    # What a client may not use is left out of the lists.
    "vecgate.v1.CollectionService/ListCollections": Rule(LOOK),
    "vecgate.v1.CollectionService/UpdateCollection": Rule(ADMIN, "collection.name", all_tenants=True),
    "vecgate.v1.CollectionService/DeleteCollection": Rule(ADMIN, "name", all_tenants=True),
    "vecgate.v1.CollectionService/CreateTenants": Rule(ADMIN, "collection", "tenants.name"),
    "vecgate.v1.CollectionService/ListTenants": Rule(LOOK, "collection", "names"),
    "vecgate.v1.CollectionService/UpdateTenants": Rule(ADMIN, "collection", "tenants.name"),
    "vecgate.v1.CollectionService/DeleteTenants": Rule(ADMIN, "collection", "names"),
    "vecgate.v1.ObjectService/ImportObjects": Rule(WRITE, "collection", "tenant"),
    "vecgate.v1.ObjectService/GetObject": Rule(SEARCH, "collection", "tenant"),
    "vecgate.v1.ObjectService/ListObjects": Rule(SEARCH, "collection", "tenant"),
    "vecgate.v1.ObjectService/UpdateObject": Rule(WRITE, "collection", "tenant"),
    "vecgate.v1.ObjectService/DeleteObject": Rule(WRITE, "collection", "tenant"),
    "vecgate.v1.ObjectService/DeleteObjects": Rule(WRITE, "collection", "tenant"),
    "vecgate.v1.ObjectService/BackfillVectors": Rule(WRITE, "collection", "tenant", all_tenants=True),
    "vecgate.v1.SearchService/SearchObjects": Rule(SEARCH, "collection", "tenant"),
}
"""By service and method. Health and reflection have switches of their own."""

ROUTES: Mapping[str, Rule] = {
    "/v1/embeddings": Rule(EMBED),
    "/v1/models": Rule(),
    "/v1/models/{model}": Rule(),
    "/v1/metadata": Rule(),
    "/v1/version": Rule(),
    "/openapi.json": Rule(),
    "/metrics": Rule(),
    "(other)": Rule(),
}
"""By path. Health has a switch of its own."""
