"""The store that keeps its objects in Weaviate."""

from collections.abc import Sequence
from uuid import UUID

import numpy as np
from weaviate.exceptions import UnexpectedStatusCodeError

from embedders.contract import Vector
from service.domain import (
    Blend,
    Filter,
    Hit,
    ObjectChange,
    ReturnFields,
    Scope,
    SearchSpec,
    StoredObject,
    TargetVectors,
)
from service.errors import ObjectNotFound, StoreRejected, StoreUnavailable
from service.settings import WeaviateSettings
from service.store.base import NO_TENANT, Deletion, Node, StoreState, WriteFailure
from service.store.weaviate.collections import WeaviateCollections, check_name
from service.store.weaviate.connection import Connection, measured, read_json
from service.store.weaviate.filters import filter_to_weaviate
from service.store.weaviate.objects import find_fault, nudge, objects_within
from service.store.weaviate.wire import ask, objects_request, read_hits, read_objects, search_request
from service.store.weaviate.writing import confirm, delete_fitting, insert, update_in_weaviate


@measured
class WeaviateStore(WeaviateCollections):
    """A Store over a Weaviate server that runs elsewhere or beside us.

    Objects and searches are here, collections in its base.
    """

    def __init__(self, settings: WeaviateSettings) -> None:
        """Remember where Weaviate is; nothing is sent before start.

        Raises:
            InvalidSettings: the key file cannot be read.
        """
        super().__init__(Connection(settings))

    @property
    def available(self) -> bool:
        """Whether Weaviate answered when it was last asked."""
        return self._connection.available

    async def start(self) -> None:
        """Connect, and go on connecting in the background for as long as Weaviate is down."""
        await self._connection.start()

    async def close(self) -> None:
        """Disconnect; calls in flight end with StoreUnavailable. May be called twice."""
        await self._connection.close()

    async def state(self) -> StoreState:
        """Return Weaviate's version and nodes."""
        with self._connection.call() as client:
            version = str((await read_json(client, "/meta")).get("version", ""))
            try:
                # Without their shards, which would be thousands where a collection has tenants.
                found = (await read_json(client, "/nodes", {"output": "minimal"})).get("nodes") or ()
            except UnexpectedStatusCodeError:
                found = ()  # Vecgate's key may not see them
        nodes = [Node(*(str(each.get(part, "")) for part in ("name", "status", "version"))) for each in found]
        return StoreState(version, sorted(nodes, key=lambda each: each.name))

    async def count_objects(self, collection: str, scope: Scope = NO_TENANT, filters: Filter | None = None) -> int:
        """Return how many objects a collection, or one of its tenants, holds, or how many of them fit a filter."""
        name = check_name(collection)
        fitting = None if filters is None else filter_to_weaviate(filters)
        with self._connection.call(name) as client:
            counted = await objects_within(client, name, scope).aggregate.over_all(filters=fitting, total_count=True)
        return counted.total_count or 0

    async def put_objects(
        self, collection: str, objects: Sequence[StoredObject], scope: Scope = NO_TENANT
    ) -> list[WriteFailure | None]:
        """Write objects, each on its own; one of an id that is there replaces it."""
        name = check_name(collection)
        faults = [find_fault(each) for each in objects]
        outcomes: list[WriteFailure | None] = [StoreRejected(fault) if fault is not None else None for fault in faults]
        sound = [index for index, fault in enumerate(faults) if fault is None]
        with self._connection.call(name) as client:
            within, cuts = objects_within(client, name, scope), self._connection.cuts
            written = await insert(client, name, [objects[index] for index in sound], scope)
            stored = [objects[index].id for index, outcome in zip(sound, written, strict=True) if outcome is None]
            unwritten = await confirm(within, stored) if stored else {}
        if self._connection.cuts != cuts:
            # After a restart Weaviate confirms what it has, and not what was in memory before.
            raise StoreUnavailable("the connection to Weaviate was cut during a write")
        for error in unwritten.values():
            raise error
        for index, outcome in zip(sound, written, strict=True):
            outcomes[index] = outcome
        return outcomes

    async def get_object(
        self, collection: str, id_: UUID, fields: ReturnFields, scope: Scope = NO_TENANT
    ) -> StoredObject:
        """Return an object."""
        found = await self.get_objects(collection, [id_], fields, scope)
        if id_ not in found:
            raise ObjectNotFound(str(id_))
        return found[id_]

    async def get_objects(
        self, collection: str, ids: Sequence[UUID], fields: ReturnFields, scope: Scope = NO_TENANT
    ) -> dict[UUID, StoredObject]:
        """Return those objects of certain ids that are there."""
        name = check_name(collection)
        if not ids:
            return {}
        nameless = await self._means_nameless(name, fields.vectors)
        with self._connection.call(name) as client:
            reply = await ask(client, objects_request(name, ids, fields, scope, nameless=nameless))
            return {each.id: each for each in read_objects(reply, fields)}

    async def update_object(self, collection: str, change: ObjectChange, scope: Scope = NO_TENANT) -> None:
        """Change parts of an object, and nothing else of it."""
        name = check_name(collection)
        fault = find_fault(StoredObject(change.id, change.properties, {}, change.vectors))
        if fault is not None:
            raise StoreRejected(fault)
        with self._connection.call(name) as client:
            await update_in_weaviate(objects_within(client, name, scope), change)

    async def reindex_vector(
        self, collection: str, id_: UUID, vector_name: str, vector: Vector, scope: Scope = NO_TENANT
    ) -> None:
        """Enter a vector that an object has into its index, which has lost it."""
        # Weaviate does not index an equal vector again, so a slightly different one is written first.
        nudged = nudge(vector)
        refusal = None
        for present, written in ((vector, nudged), (nudged, vector)):
            found = await self.get_object(collection, id_, ReturnFields(vectors=[vector_name]), scope)
            if not np.array_equal(found.vectors.get(vector_name, ()), present):
                break
            try:
                await self.update_object(collection, ObjectChange(id_, vectors={vector_name: written}), scope)
                refusal = None
            except (StoreRejected, StoreUnavailable) as error:
                # It may be stored all the same: Weaviate writes an object first and its index entries afterwards. So
                # the object is looked at again. It keeps the other vector, a smallest step away, only where the
                # second write stores nothing, or Weaviate goes away between the two.
                refusal = error
        if refusal is not None:
            raise refusal

    async def search(self, collection: str, spec: SearchSpec) -> list[Hit]:
        """Return the nearest objects, or those with certain words, best first; or list objects."""
        name = check_name(collection)
        targets = spec.query.targets if isinstance(spec.query, Blend) else spec.query
        searched = targets.vectors if isinstance(targets, TargetVectors) else ()
        nameless = await self._means_nameless(name, (*searched, *spec.fields.vectors))
        with self._connection.call(name) as client:
            return read_hits(await ask(client, search_request(name, spec, nameless=nameless)), spec)

    async def delete_objects(self, collection: str, filters: Filter, scope: Scope = NO_TENANT) -> Deletion:
        """Delete objects that fit a filter: all, or as many as the store takes at a time, and then at least one."""
        name = check_name(collection)
        with self._connection.call(name) as client:
            return await delete_fitting(objects_within(client, name, scope), filters)
