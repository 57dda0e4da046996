"""A store in memory, held to the same contract as Weaviate by tests/service/store/store_suite.py."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast
from uuid import UUID

import numpy as np

from embedders.contract import Vector
from service.domain import (
    BLOBS,
    Blend,
    Collection,
    DataType,
    Distance,
    Filter,
    Hit,
    Keywords,
    ObjectChange,
    ObjectValue,
    Property,
    PropertyValue,
    ReturnFields,
    Scope,
    SearchOptions,
    SearchSpec,
    StoredObject,
    TargetVectors,
    TenantActivity,
    hash_image,
)
from service.errors import (
    InvalidRequest,
    ObjectNotFound,
    StoreRejected,
    StoreUnavailable,
    TenantInactive,
    TenantNotFound,
    VectorRemoved,
    Violation,
)
from service.store.base import NO_TENANT, Deletion, WriteFailure
from tests.fakes.blending import blend_hits, keyword_score
from tests.fakes.collections import FakeCollections
from tests.fakes.distances import has_vectors, join_distances
from tests.fakes.filtering import matches
from tests.fakes.shaping import shape_hits
from tests.fakes.values import fits, store_value

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,254}")


class FakeStore(FakeCollections):
    """Keeps everything in dictionaries and searches by brute force.

    Attributes:
        rejected: why objects of these ids are refused by put_objects.
        options: what narrowed each search by vector and each listing, in order; auto_limit changes nothing here.
        puts: how many objects each put_objects call brought, in order.
        scopes: whose objects each call was about, in order.
        undeletable: why objects of these ids are refused by delete_objects.
        max_deletions: objects in one delete_objects.
        lost: objects and named vectors whose index has lost them.
        unlinked: those whose index has an entry that no other leads to: only a comparison of all entries finds it.
        unindexable: objects that reindex_vector does not bring back.
        unindexed: objects that the next put_objects stores and calls failed, since their vectors find no room.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rejected: dict[UUID, str] = {}
        self.puts: list[int] = []
        self.options: list[SearchOptions] = []
        self.scopes: list[Scope] = []
        self.undeletable: dict[UUID, str] = {}
        self.max_deletions = 3
        self.lost: set[tuple[UUID, str]] = set()
        self.unlinked: set[tuple[UUID, str]] = set()
        self.unindexable: set[UUID] = set()
        self.unindexed: set[UUID] = set()

    async def count_objects(self, collection: str, scope: Scope = NO_TENANT, filters: Filter | None = None) -> int:
        """Return how many objects a collection holds, or how many of them fit a filter."""
        self._enter("count_objects")
        return sum(matches(each, filters) for each in self._within(self._find(collection), scope).values())

    async def delete_objects(self, collection: str, filters: Filter, scope: Scope = NO_TENANT) -> Deletion:
        """Delete objects that fit a filter, a few at a time; those of `undeletable` stay."""
        self._enter("delete_objects")
        objects = self._within(self._find(collection), scope)
        turn = [each.id for each in objects.values() if matches(each, filters)]
        turn = sorted(turn, key=lambda id_: (id_ in self.undeletable, id_))[: self.max_deletions]
        for id_ in turn:
            if id_ not in self.undeletable:
                del objects[id_]
        refused = {id_: StoreRejected(self.undeletable[id_]) for id_ in turn if id_ in self.undeletable}
        return Deletion([id_ for id_ in turn if id_ not in refused], refused)

    async def put_objects(
        self, collection: str, objects: Sequence[StoredObject], scope: Scope = NO_TENANT
    ) -> list[WriteFailure | None]:
        """Write objects, each on its own."""
        self._enter("put_objects")
        self.puts.append(len(objects))
        found = self._find(collection)
        if found.multi_tenancy is not None and found.multi_tenancy.auto_creation and scope.tenant:
            self.tenants[found.name].setdefault(scope.tenant, TenantActivity.ACTIVE)
        within = self._within(found, scope)
        return [self._put(found, within, each) or self._index(each) for each in objects]

    async def get_object(
        self, collection: str, id_: UUID, fields: ReturnFields, scope: Scope = NO_TENANT
    ) -> StoredObject:
        """Return an object."""
        self._enter("get_object")
        objects = self._within(self._find(collection), scope)
        if id_ not in objects:
            raise ObjectNotFound(str(id_))
        return _select(objects[id_], fields)

    async def get_objects(
        self, collection: str, ids: Sequence[UUID], fields: ReturnFields, scope: Scope = NO_TENANT
    ) -> dict[UUID, StoredObject]:
        """Return those objects of certain ids that are there."""
        self._enter("get_objects")
        objects = self._within(self._find(collection), scope)
        return {id_: _select(objects[id_], fields) for id_ in ids if id_ in objects}

    async def update_object(self, collection: str, change: ObjectChange, scope: Scope = NO_TENANT) -> None:
        """Change parts of an object, and nothing else of it."""
        self._enter("update_object")
        found = self._find(collection)
        objects = self._within(found, scope)
        if change.id not in objects:
            raise ObjectNotFound(str(change.id))
        before = objects[change.id]
        images = {**before.images, **change.images}
        vectors = {**before.vectors, **change.vectors}
        if change.lost_vectors:
            _check_rewritable(found, before, change)
        # Of an image whose hash is kept, the store has the hash among the properties.
        cleared = {name: None for name, content in change.images.items() if content is None and name in found.hashes}
        after = StoredObject(
            change.id,
            {**before.properties, **change.properties, **cleared},
            {name: content for name, content in images.items() if content is not None},
            {name: vector for name, vector in vectors.items() if name not in change.lost_vectors},
        )
        refusal = self._put(found, objects, after)
        if refusal is not None:
            raise refusal

    async def reindex_vector(
        self, collection: str, id_: UUID, vector_name: str, vector: Vector, scope: Scope = NO_TENANT
    ) -> None:
        """Enter a vector that an object has into its index, which has lost it."""
        self._enter("reindex_vector")
        found = await self.get_object(collection, id_, ReturnFields(vectors=[vector_name]), scope)
        if not np.array_equal(found.vectors.get(vector_name, ()), vector):
            return
        await self.update_object(collection, ObjectChange(id_, vectors={vector_name: vector}), scope)
        if id_ not in self.unindexable:
            self.lost.discard((id_, vector_name))
            self.unlinked.discard((id_, vector_name))

    async def search(self, collection: str, spec: SearchSpec) -> list[Hit]:
        """Return the nearest objects, or those with certain words, best first; or list objects."""
        self._enter("search")
        found, options = self._find(collection), spec.options
        if spec.query is None or isinstance(spec.query, TargetVectors):
            self.options.append(options)
        objects = [each for each in self._within(found, spec.scope).values() if matches(each, options.filters)]
        match spec.query:
            case None:
                hits = [Hit(each) for each in _listed(objects, options)]
            case TargetVectors() as targets:
                hits = self._near(found, objects, targets, options)
            case Keywords() as keywords:
                hits = _with_words(objects, keywords)
            case Blend(targets=targets) as blend:
                near = [] if targets.words_only else self._near(found, objects, targets, SearchOptions(options.filters))
                words = [] if blend.keywords is None else _with_words(objects, blend.keywords)
                hits = blend_hits(near, words, blend)
        hits = shape_hits(hits[spec.offset : spec.offset + spec.limit], options)
        return [replace(each, object=_select(each.object, spec.fields)) for each in hits]

    def _near(
        self, collection: Collection, objects: Sequence[StoredObject], targets: TargetVectors, options: SearchOptions
    ) -> list[Hit]:
        """Return objects by distance; one that lacks the named vector is not seen."""
        for name in targets.vectors:
            named = collection.find_vector(name)
            if named is None:
                raise VectorRemoved(name)
            if named.distance is None:
                raise StoreRejected(f"named vector {name!r} of collection {collection.name!r} cannot be searched")
        # As Weaviate: what a filter lets through is compared one by one.
        hidden = self.lost | self.unlinked if options.filters is None else self.lost
        seen = [each for each in objects if has_vectors(each, targets, hidden)]
        if any(
            each.vectors[name].shape != targets.vectors[name].shape
            for each in seen
            for name in targets.vectors.keys() & each.vectors.keys()
        ):
            raise StoreRejected("vector lengths don't match")
        farthest = 2 * (1 - options.certainty) if options.certainty is not None else options.distance
        measured = sorted(zip(join_distances(collection, targets, seen), seen, strict=True), key=_by)
        cosine = all(each.distance is Distance.COSINE for each in collection.vectors if each.name in targets.vectors)
        return [
            Hit(each, distance=distance, certainty=1 - distance / 2 if cosine else None)
            for distance, each in measured
            if farthest is None or distance <= farthest
        ]

    def _within(self, collection: Collection, scope: Scope) -> dict[UUID, StoredObject]:
        self.scopes.append(scope)
        tenants = self.tenants.get(collection.name)
        if (tenants is None) is bool(scope.tenant):
            rule = "has no tenants; leave this out" if tenants is None else "has tenants; name one"
            raise InvalidRequest([Violation("scope.tenant", f"collection {collection.name!r} {rule}")])
        if tenants is not None and scope.tenant not in tenants:
            raise TenantNotFound(scope.tenant)
        if tenants is not None and tenants[scope.tenant] is not TenantActivity.ACTIVE:
            if collection.multi_tenancy is None or not collection.multi_tenancy.auto_activation:
                raise TenantInactive(scope.tenant)
            tenants[scope.tenant] = TenantActivity.ACTIVE
        return self._objects.setdefault(f"{collection.name}/{scope.tenant}" if tenants else collection.name, {})

    def _put(
        self, collection: Collection, objects: dict[UUID, StoredObject], object_: StoredObject
    ) -> StoreRejected | None:
        removed = next((name for name in object_.vectors if name in collection.removed_vectors), None)
        if removed is not None:
            raise StoreUnavailable(f"named vector {removed!r} was removed a moment ago; send it again")
        fault = self.rejected.get(object_.id) or next(_faults(collection, object_, list(objects.values())), None)
        if fault is not None:
            return StoreRejected(fault)
        before = objects.get(object_.id, StoredObject(object_.id)).vectors
        # As Weaviate: a vector that is the same is not indexed again.
        changed = [name for name, each in object_.vectors.items() if not np.array_equal(before.get(name, ()), each)]
        self.lost -= {(object_.id, name) for name in changed}
        objects[object_.id] = StoredObject(
            object_.id,
            {
                name: store_value(_type_of(collection, name), value)
                for name, value in object_.properties.items()
                if value is not None
            }
            | {name: hash_image(object_.images[name]) for name in collection.hashes & object_.images.keys()},
            {name: content for name, content in object_.images.items() if name not in collection.hashes},
            {name: np.array(vector, np.float32) for name, vector in object_.vectors.items()},
        )
        return None

    def _index(self, object_: StoredObject) -> StoreUnavailable | None:
        if object_.id not in self.unindexed:
            return None
        self.unindexed.remove(object_.id)
        self.lost |= {(object_.id, name) for name in object_.vectors}
        return StoreUnavailable("Weaviate has no room: not enough memory")


def _by(measured: tuple[float, StoredObject]) -> tuple[float, UUID]:
    return measured[0], measured[1].id


def _faults(collection: Collection, object_: StoredObject, stored: Sequence[StoredObject]) -> Iterator[str]:
    for name, value in object_.properties.items():
        data_type = _type_of(collection, name)
        if data_type is None:
            yield f"no such prop with name {name!r} found in class {collection.name!r}"
        elif value is not None and not fits(data_type, value):
            yield f"invalid {data_type.value} property {name!r} on class {collection.name!r}"
    for name in object_.images:
        if _type_of(collection, name) not in BLOBS:
            yield f"no such blob with name {name!r} found in class {collection.name!r}"
    for name, vector in object_.vectors.items():
        if collection.find_vector(name) is None:
            yield f"collection {collection.name!r} does not have configuration for vector {name!r}"
        if vector.ndim != 1 or not np.isfinite(vector).all() or not vector.any():
            yield f"vector {name!r}: holds NaN or infinite values, or only zeros"
        if any(name in other.vectors and other.vectors[name].shape != vector.shape for other in stored):
            yield "vector lengths don't match"


def _check_rewritable(collection: Collection, before: StoredObject, change: ObjectChange) -> None:
    """Refuse what Weaviate can do only by writing a hash as if it was an image."""
    for name in collection.hashes & before.properties.keys() - change.images.keys():
        raise StoreRejected(
            f"the object would lose a vector, which would spoil {name!r}, a blobHash; send its image too"
        )


def _type_of(collection: Collection, name: str) -> DataType | None:
    property_ = collection.find_property(name)
    return None if property_ is None else property_.data_type


def _select(object_: StoredObject, fields: ReturnFields) -> StoredObject:
    return StoredObject(
        object_.id,
        {
            name: _parts_of(object_.properties[name], fields.nested.get(name, ()))
            for name in fields.properties
            if name in object_.properties
        },
        {name: object_.images[name] for name in fields.images if name in object_.images},
        {name: object_.vectors[name].copy() for name in fields.vectors if name in object_.vectors},
        {name: str(object_.properties[name]) for name in fields.hashes if name in object_.properties},
    )


def _parts_of(value: PropertyValue, parts: Sequence[Property]) -> PropertyValue:
    """Return of an object, or of each of a list of them, what is asked for; of other values all."""
    if isinstance(value, ObjectValue):
        return ObjectValue(
            {each.name: _parts_of(value[each.name], each.nested) for each in parts if each.name in value}
        )
    if isinstance(value, list) and parts:
        return cast("PropertyValue", [_parts_of(cast("PropertyValue", each), parts) for each in value])
    return value


def _with_words(objects: Sequence[StoredObject], keywords: Keywords) -> list[Hit]:
    """Return the objects with certain words, best first."""
    hits = [Hit(each, score=keyword_score(each, keywords)) for each in objects]
    return sorted((each for each in hits if each.score), key=lambda each: (-(each.score or 0.0), each.object.id))


def _listed(objects: Sequence[StoredObject], options: SearchOptions) -> list[StoredObject]:
    """Return objects in the order of a listing."""
    listed = sorted(
        (each for each in objects if options.after is None or each.id > options.after), key=lambda each: each.id
    )
    made = {each.id: number for number, each in enumerate(objects)}
    for order in reversed(options.sort):
        name = order.property
        if name == "_creationTimeUnix":
            listed.sort(key=lambda each: made[each.id], reverse=order.descending)
            continue
        # As Weaviate: what has no value comes first, and last when descending.
        listed.sort(key=lambda each: (name in each.properties, each.properties.get(name)), reverse=order.descending)
    return listed
