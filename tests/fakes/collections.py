"""The part of the store in memory that is about collections and their tenants."""

import re
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from service.domain import Alias, Collection, Distance, NamedVector, Quantizer, StoredObject, Tenant, TenantActivity
from service.errors import (
    LEADS_NOWHERE,
    AliasNotFound,
    CollectionAlreadyExists,
    CollectionNotFound,
    InvalidRequest,
    ServiceError,
    StoreRejected,
    StoreUnavailable,
    Violation,
)
from service.store.base import Node, StoreState

NO_QUANTIZER = Quantizer("none")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,254}")


class FakeCollections:
    """Keeps collections and tenants in dictionaries.

    Attributes:
        available: settable; every call raises StoreUnavailable while it is False.
        calls: the names of the methods called, in order.
        tenants: settable; how active the tenants of the collections are that have some.
        aliases: settable; other names of collections.
    """

    def __init__(self) -> None:
        self.available = True
        self.calls: list[str] = []
        self.tenants: dict[str, dict[str, TenantActivity]] = {}
        self.aliases: dict[str, str] = {}
        self._failures: list[ServiceError] = []
        self._failures_of: dict[str, ServiceError] = {}
        self._collections: dict[str, Collection] = {}
        self._objects: dict[str, dict[UUID, StoredObject]] = {}

    def fail_next(self, *errors: ServiceError) -> None:
        """Let the next calls raise these, one each."""
        self._failures.extend(errors)

    def fail_next_of(self, method: str, error: ServiceError) -> None:
        """Let the next call of a method raise this."""
        self._failures_of[method] = error

    async def start(self) -> None:
        """Do nothing: memory is always connected."""

    async def close(self) -> None:
        """Do nothing; may be called twice."""

    async def state(self) -> StoreState:
        """Return that there is one node."""
        self._enter("state")
        return StoreState("1.2.3", [Node("node1", "HEALTHY", "1.2.3")])

    async def create_collection(self, collection: Collection) -> None:
        """Create a collection; its name is capitalised as Weaviate does."""
        self._enter("create_collection")
        name = _real_name(collection.name)
        if name in self._collections or name in self.aliases:
            raise CollectionAlreadyExists(name)
        self._collections[name] = replace(
            collection,
            name=name,
            properties=tuple(replace(each, name=_property_name(each.name)) for each in collection.properties),
            vectors=tuple(_normalise(each) for each in sorted(collection.vectors, key=lambda each: each.name)),
        )
        self._objects[name] = {}
        if collection.multi_tenancy is not None:
            self.tenants[name] = {}

    async def get_collection(self, name: str, *, fresh: bool = True) -> Collection:
        """Return a collection."""
        del fresh
        self._enter("get_collection")
        return self._find(name)

    async def list_collections(self) -> list[Collection]:
        """Return all collections, by name."""
        self._enter("list_collections")
        return [self._collections[name] for name in sorted(self._collections)]

    async def update_collection(self, collection: Collection) -> None:
        """Make a collection as it is to be."""
        self._enter("update_collection")
        found = self._find(collection.name)
        # Leaving out a named vector does not remove it.
        vectors = {each.name: each for each in (*found.vectors, *collection.vectors)}
        self._collections[found.name] = replace(
            collection, vectors=tuple(_normalise(vectors[name]) for name in sorted(vectors))
        )

    async def bind_vector(self, collection: str, vector: NamedVector) -> None:
        """Bind a named vector."""
        self._enter("bind_vector")
        found = self._find(collection)
        present = found.find_vector(vector.name)
        if not found.properties or present is None or present.binding != vector.binding:
            raise StoreRejected("no property, or bound meanwhile")
        bound = replace(_normalise(vector), binding=vector.binding + 1)
        vectors = tuple(bound if each.name == vector.name else each for each in found.vectors)
        self._collections[found.name] = replace(found, vectors=vectors)

    async def remove_vector(self, collection: str, vector: str) -> None:
        """Remove a named vector from a collection and from its objects; its name stays taken."""
        self._enter("remove_vector")
        found = self._find(collection)
        if vector in found.removed_vectors:
            return
        if found.find_vector(vector) is None:
            raise StoreRejected(f"vector index {vector!r} not found in class {found.name!r}")
        self._collections[found.name] = replace(
            found,
            vectors=tuple(each for each in found.vectors if each.name != vector),
            removed_vectors=(*found.removed_vectors, vector),
        )
        for where, objects in self._objects.items():
            if where.partition("/")[0] == found.name:
                for id_, each in objects.items():
                    kept = {name: value for name, value in each.vectors.items() if name != vector}
                    objects[id_] = replace(each, vectors=kept)

    async def delete_collection(self, name: str) -> None:
        """Delete a collection and its objects."""
        self._enter("delete_collection")
        found = self._find(name).name
        if found != _real_name(name):
            raise InvalidRequest([Violation("name", f"{name!r} is an alias")])
        del self._collections[found]
        del self._objects[found]
        self.tenants.pop(found, None)

    async def create_alias(self, alias: Alias) -> None:
        """Give a collection another name."""
        self._enter("create_alias")
        name = _real_name(alias.name)
        if name in self._collections or name in self.aliases:
            raise CollectionAlreadyExists(name)
        self.aliases[name] = self._find_by_own_name(alias.collection)

    async def get_alias(self, name: str) -> Alias:
        """Return an alias."""
        self._enter("get_alias")
        return Alias(self._find_alias(name), self.aliases[_real_name(name)])

    async def list_aliases(self) -> list[Alias]:
        """Return all aliases, by name."""
        self._enter("list_aliases")
        return [Alias(*each) for each in sorted(self.aliases.items())]

    async def update_alias(self, alias: Alias) -> None:
        """Let an alias lead to another collection."""
        self._enter("update_alias")
        name = self._find_alias(alias.name)
        self.aliases[name] = self._find_by_own_name(alias.collection)

    async def delete_alias(self, name: str) -> None:
        """Delete an alias."""
        self._enter("delete_alias")
        del self.aliases[self._find_alias(name)]

    async def create_tenants(self, collection: str, tenants: Sequence[Tenant]) -> None:
        """Add tenants; one that is there already stays as it is."""
        self._enter("create_tenants")
        there = self._tenants_of(collection)
        for each in tenants:
            there.setdefault(each.name, each.activity)

    async def list_tenants(self, collection: str, names: Sequence[str] = ()) -> list[Tenant]:
        """Return all tenants, or those of certain names, by name."""
        self._enter("list_tenants")
        there = self._tenants_of(collection)
        return [Tenant(name, there[name]) for name in sorted(there) if not names or name in names]

    async def update_tenants(self, collection: str, tenants: Sequence[Tenant]) -> None:
        """Change how active tenants are."""
        self._enter("update_tenants")
        there = self._tenants_of(collection)
        if any(each.activity is TenantActivity.OFFLOADED for each in tenants):
            raise StoreRejected("can't offload tenants, because offload-s3 module is not enabled")
        there.update({each.name: each.activity for each in tenants})

    async def delete_tenants(self, collection: str, names: Sequence[str]) -> None:
        """Delete tenants with their objects."""
        self._enter("delete_tenants")
        there = self._tenants_of(collection)
        for name in names:
            there.pop(name, None)
            self._objects.pop(f"{self._find(collection).name}/{name}", None)

    def _enter(self, method: str) -> None:
        self.calls.append(method)
        if not self.available:
            raise StoreUnavailable("Weaviate does not answer")
        if self._failures:
            raise self._failures.pop(0)
        if method in self._failures_of:
            raise self._failures_of.pop(method)

    def _find(self, name: str) -> Collection:
        real = self.aliases.get(_real_name(name), _real_name(name))
        found = self._collections.get(real) if _NAME.fullmatch(name) else None
        if found is None:
            raise CollectionNotFound(name, LEADS_NOWHERE if _real_name(name) in self.aliases else "")
        return found

    def _find_by_own_name(self, name: str) -> str:
        if _real_name(name) not in self._collections:
            raise CollectionNotFound(name)
        return _real_name(name)

    def _find_alias(self, name: str) -> str:
        if _real_name(name) not in self.aliases:
            raise AliasNotFound(name)
        return _real_name(name)

    def _tenants_of(self, collection: str) -> dict[str, TenantActivity]:
        found = self._find(collection)
        if found.multi_tenancy is None:
            raise StoreRejected(f"multi-tenancy is not enabled for class {found.name!r}")
        return self.tenants[found.name]


def _real_name(name: str) -> str:
    return name[:1].upper() + name[1:]


def _property_name(name: str) -> str:
    return name[:1].lower() + name[1:]


def _normalise(vector: NamedVector) -> NamedVector:
    return replace(
        vector,
        distance=vector.distance or Distance.COSINE,
        index=replace(vector.index, type=vector.index.type or "hnsw", quantizer=vector.index.quantizer or NO_QUANTIZER),
        image_fields=tuple(replace(each, name=_property_name(each.name)) for each in vector.image_fields),
        text_fields=tuple(replace(each, name=_property_name(each.name)) for each in vector.text_fields),
    )
