"""The contract of a store; tests/service/store/store_suite.py holds every store to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from embedders.contract import Vector
from service.domain import (
    Alias,
    Collection,
    Filter,
    Hit,
    NamedVector,
    ObjectChange,
    ReturnFields,
    Scope,
    SearchSpec,
    StoredObject,
    Tenant,
)
from service.errors import StoreRejected, StoreUnavailable

NO_TENANT = Scope()
"""All objects of a collection without tenants."""


WriteFailure = StoreRejected | StoreUnavailable
"""Why an object is not stored; or, for a passing reason, is there and has no entry in the index of a vector."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """Objects that are deleted, and why others are not, by id."""

    deleted: Sequence[UUID]
    failures: Mapping[UUID, StoreRejected]


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the store: its name, its state in the store's own word, and the version of the program on it."""

    name: str
    status: str
    version: str


@dataclass(frozen=True, slots=True)
class StoreState:
    """What the store says of itself: its version, and its nodes by name; none where they may not be seen."""

    version: str
    nodes: Sequence[Node] = ()


class Store(Protocol):
    """Keeps collections and objects and finds the objects nearest to a vector.

    A store belongs to one event loop; its methods may run at the same time. Every method ends within the time of the
    caller's asyncio.timeout, within the store's own limit for one call, and as soon as the store is seen to be down.
    All raise StoreUnavailable when the store does not answer and StoreRejected when it refuses. Those on objects raise
    InvalidRequest where a collection with tenants was given none, or one without tenants was given one, and
    TenantNotFound where it has none of that name.
    """

    @property
    def available(self) -> bool:
        """Whether the store answered when it was last asked. Changes on its own, without calls."""
        ...

    async def start(self) -> None:
        """Connect, and go on connecting in the background for as long as the store is down."""
        ...

    async def close(self) -> None:
        """Disconnect. May be called twice."""
        ...

    async def state(self) -> StoreState:
        """Return what the store says of itself."""
        ...

    async def create_collection(self, collection: Collection) -> None:
        """Create a collection, with the space binding of its named vectors in the schema.

        Raises:
            CollectionAlreadyExists: there is one of that name.
        """
        ...

    async def get_collection(self, name: str, *, fresh: bool = True) -> Collection:
        """Return a collection, even if another program created it.

        Args:
            name: the collection's name, or an alias of it; what is returned has its own name.
            fresh: whether it must be as it is now. Otherwise it may be as it was a moment ago, which spares a question
                to the store; what this program itself changed is seen in any case.

        Raises:
            CollectionNotFound: no collection has that name.
        """
        ...

    async def list_collections(self) -> list[Collection]:
        """Return all collections, sorted by name."""
        ...

    async def update_collection(self, collection: Collection) -> None:
        """Change a collection into the given one, and add what is new; a repeated call changes nothing.

        Indexes of properties may be built in the background, and are seen when they are done.

        Args:
            collection: what get_collection returned, changed as core/changes.py allows.

        Raises:
            CollectionNotFound: no collection has that name.
        """
        ...

    async def bind_vector(self, collection: str, vector: NamedVector) -> None:
        """Bind a named vector that another program made, for vectors of its own.

        The binding lasts as long as the collection. A vector that was bound so before gets the new binding.

        Args:
            collection: the collection's own name.
            vector: the named vector as it was read, with its space and its fields.

        Raises:
            CollectionNotFound: no collection has that name.
            StoreRejected: the collection has no property to keep the binding, or the vector was bound meanwhile.
        """
        ...

    async def remove_vector(self, collection: str, vector: str) -> None:
        """Remove a named vector from a collection and from its objects; a repeated call changes nothing.

        Searches do not find by it from now on. The store deletes its data in the background; until then the collection
        has its name among removed_vectors.

        Raises:
            CollectionNotFound: no collection has that name.
            StoreRejected: this store cannot, or the collection has no such named vector.
        """
        ...

    async def delete_collection(self, name: str) -> None:
        """Delete a collection and its objects.

        Raises:
            CollectionNotFound: no collection has that name.
            InvalidRequest: the name is an alias.
        """
        ...

    async def create_alias(self, alias: Alias) -> None:
        """Give a collection another name.

        Raises:
            CollectionAlreadyExists: there is a collection or an alias of that name.
            CollectionNotFound: there is no collection to lead to.
        """
        ...

    async def get_alias(self, name: str) -> Alias:
        """Return an alias, even if its collection does not exist any more.

        Raises:
            AliasNotFound: no alias has that name.
        """
        ...

    async def list_aliases(self) -> list[Alias]:
        """Return all aliases, sorted by name."""
        ...

    async def update_alias(self, alias: Alias) -> None:
        """Let an alias lead to another collection.

        Raises:
            AliasNotFound: no alias has that name.
            CollectionNotFound: there is no collection to lead to.
        """
        ...

    async def delete_alias(self, name: str) -> None:
        """Delete an alias, and nothing of its collection.

        Raises:
            AliasNotFound: no alias has that name.
        """
        ...

    async def create_tenants(self, collection: str, tenants: Sequence[Tenant]) -> None:
        """Add tenants to a collection with tenants; an existing tenant stays unchanged.

        Raises:
            CollectionNotFound: no collection has that name.
        """
        ...

    async def list_tenants(self, collection: str, names: Sequence[str] = ()) -> list[Tenant]:
        """Return all tenants of a collection, or the existing ones of the given names, sorted by name.

        Raises:
            CollectionNotFound: no collection has that name.
        """
        ...

    async def update_tenants(self, collection: str, tenants: Sequence[Tenant]) -> None:
        """Change the activity of existing tenants.

        Raises:
            CollectionNotFound: no collection has that name.
        """
        ...

    async def delete_tenants(self, collection: str, names: Sequence[str]) -> None:
        """Delete tenants and their objects; a tenant that does not exist is not an error.

        Raises:
            CollectionNotFound: no collection has that name.
        """
        ...

    async def count_objects(self, collection: str, scope: Scope = NO_TENANT, filters: Filter | None = None) -> int:
        """Return the number of objects of a collection or tenant, or of those that match a filter."""
        ...

    async def put_objects(
        self, collection: str, objects: Sequence[StoredObject], scope: Scope = NO_TENANT
    ) -> list[WriteFailure | None]:
        """Write objects, each on its own; one of an id that is there replaces it.

        Returns:
            For each object in order: None if it is stored and found, else why not.
        """
        ...

    async def get_object(
        self, collection: str, id_: UUID, fields: ReturnFields, scope: Scope = NO_TENANT
    ) -> StoredObject:
        """Return an object.

        Raises:
            ObjectNotFound: the collection has none of that id.
        """
        ...

    async def get_objects(
        self, collection: str, ids: Sequence[UUID], fields: ReturnFields, scope: Scope = NO_TENANT
    ) -> dict[UUID, StoredObject]:
        """Return those objects of certain ids that are there."""
        ...

    async def update_object(self, collection: str, change: ObjectChange, scope: Scope = NO_TENANT) -> None:
        """Change parts of an object, and nothing else of it.

        Raises:
            ObjectNotFound: the collection has none of that id.
        """
        ...

    async def reindex_vector(
        self, collection: str, id_: UUID, vector_name: str, vector: Vector, scope: Scope = NO_TENANT
    ) -> None:
        """Enter a vector that an object has into its index, which has lost it; one that it has no more is left alone.

        Raises:
            ObjectNotFound: the collection has none of that id.
        """
        ...

    async def search(self, collection: str, spec: SearchSpec) -> list[Hit]:
        """Return the nearest objects, or those with certain words, best first; or list objects."""
        ...

    async def delete_objects(self, collection: str, filters: Filter, scope: Scope = NO_TENANT) -> Deletion:
        """Delete objects that fit a filter: all, or as many as the store takes at a time, and then at least one.

        Returns:
            What is deleted, and what is not although its turn came.
        """
        ...
