"""Writing objects, also over those that are there: of these stays what this version does not handle."""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

from service.core.objects.indexing import PARALLEL
from service.domain import Collection, DataType, ObjectChange, Scope, StoredObject
from service.errors import ObjectNotFound, StoreRejected, StoreUnavailable
from service.store.base import Store, WriteFailure


async def overwrite(
    store: Store,
    collection: Collection,
    objects: Sequence[StoredObject],
    stored: Mapping[UUID, StoredObject],
    scope: Scope,
) -> list[WriteFailure | None]:
    """Write objects, each on its own; see Store.put_objects.

    The store replaces an object as a whole. Where the collection has properties that this version does not handle, one
    that is there is changed in all its other parts instead, so that the references and phone numbers of others stay.

    Args:
        store: where to.
        collection: the objects' collection.
        objects: what to write.
        stored: those of them that are there, with their vectors.
        scope: whose they are.
    """
    if not collection.unhandled:
        return await store.put_objects(collection.name, objects, scope)
    slots = asyncio.Semaphore(PARALLEL)

    async def change(object_: StoredObject) -> WriteFailure | None:
        try:
            async with slots:
                await store.update_object(collection.name, _change(collection, object_, stored[object_.id]), scope)
        except ObjectNotFound:
            return (await store.put_objects(collection.name, [object_], scope))[0]
        except (StoreRejected, StoreUnavailable) as error:
            return error
        return None

    new = [each for each in objects if each.id not in stored]
    put = await store.put_objects(collection.name, new, scope) if new else []
    failures = dict(zip((each.id for each in new), put, strict=True))
    there = [each for each in objects if each.id in stored]
    # All end before one of them raises what is no object's own, such as a tenant that is gone.
    for each, outcome in zip(there, await asyncio.gather(*map(change, there), return_exceptions=True), strict=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, StoreRejected | StoreUnavailable):
            raise outcome
        failures[each.id] = outcome
    return [failures[each.id] for each in objects]


def _change(collection: Collection, object_: StoredObject, before: StoredObject) -> ObjectChange:
    """Return what makes an object that is there into another one, but for what this version does not handle."""
    handled = [each for each in collection.properties if each.name not in collection.unhandled]
    blobs = [each.name for each in handled if each.data_type is DataType.BLOB]
    names = {each.name for each in handled if each.data_type is not DataType.BLOB} | object_.properties.keys()
    return ObjectChange(
        object_.id,
        {name: object_.properties.get(name) for name in names},
        {name: object_.images.get(name) for name in blobs},
        object_.vectors,
        [name for name in before.vectors if name not in object_.vectors],
    )
