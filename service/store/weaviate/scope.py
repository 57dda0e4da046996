"""The objects of a collection that a call is about, as the client takes them."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from weaviate import WeaviateAsyncClient
from weaviate.classes.config import ConsistencyLevel
from weaviate.collections import CollectionAsync

from service.domain import Scope

Objects = CollectionAsync[Mapping[str, Any], None]


# The client builds a dozen objects for each handle, which costs a tenth of a search.
@lru_cache(maxsize=256)
def objects_within(client: WeaviateAsyncClient, collection: str, scope: Scope) -> Objects:
    """Return the client's handle on a collection's objects, or on those of a tenant."""
    found: Objects = client.collections.use(collection)
    if scope.tenant:
        found = found.with_tenant(scope.tenant)
    if scope.consistency is not None:
        found = found.with_consistency_level(ConsistencyLevel(scope.consistency.value))
    return found
