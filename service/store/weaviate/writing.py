"""Writing, changing and deleting objects in Weaviate."""

from base64 import b64encode
from collections.abc import Container, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from uuid import UUID

import structlog
from weaviate import WeaviateAsyncClient
from weaviate.classes.query import Filter as ClientFilter
from weaviate.connect import executor
from weaviate.connect.v4 import _ExpectedStatusCodes
from weaviate.exceptions import UnexpectedStatusCodeError, WeaviateBaseError

from service.domain import DataType, Filter, ObjectChange, Scope, StoredObject
from service.errors import ObjectNotFound, ServiceError, StoreRejected, StoreUnavailable
from service.store.base import Deletion, WriteFailure
from service.store.weaviate.batches import Batch, add_object, send
from service.store.weaviate.connection import read_json
from service.store.weaviate.errors import reject, stays_without_entry, translate
from service.store.weaviate.filters import filter_to_weaviate
from service.store.weaviate.objects import Objects, to_weaviate
from service.store.weaviate.vector_schema import NAMELESS, as_mapping, is_removed

log = structlog.get_logger(__name__)


async def insert(
    client: WeaviateAsyncClient, collection: str, objects: Sequence[StoredObject], scope: Scope
) -> list[WriteFailure | None]:
    """Write objects, and return for each why it is not stored, or None. An object that Weaviate refuses fails alone."""
    outcomes: list[WriteFailure | None] = [None] * len(objects)
    batch, places = Batch(), []
    for place, each in enumerate(objects):
        try:
            add_object(batch, each, collection, scope.tenant)
            places.append(place)
        except (TypeError, ValueError) as error:
            outcomes[place] = StoreRejected(str(translate(error)))
    if places:
        for index, message in (await send(client, batch, scope)).items():
            outcomes[places[index]] = _failure(message, collection)
    return outcomes


def _failure(message: str, collection: str) -> WriteFailure:
    failure = reject(message, collection)
    if isinstance(failure, StoreRejected):
        return failure
    if isinstance(failure, StoreUnavailable) and stays_without_entry(message):
        return failure
    # Not the fault of one object. A read-only shard, for example, refuses its first object with a reason, and Weaviate
    # reports the others as stored although they are not.
    raise failure


async def confirm(within: Objects, ids: Sequence[UUID]) -> dict[UUID, ServiceError]:
    """Make Weaviate write objects and their index entries to disk, and return why it cannot, by id.

    Weaviate 1.39 answers a batch while its last index entries are still in memory, and loses them if it is killed
    before the next write. A dry run of a deletion writes them.
    """
    try:
        answer = await within.data.delete_many(ClientFilter.by_id().contains_any(ids), dry_run=True, verbose=True)
    except WeaviateBaseError as error:
        translated = translate(error, within.name)
        if not isinstance(translated, StoreRejected):
            raise
        # Such as an API key that may write but not delete.
        log.warning("index_entries_unconfirmed", collection=within.name, reason=str(translated))
        return {}
    return {
        UUID(int=each.uuid.int): reject(each.error or "no reason given", within.name)
        for each in answer.objects
        if not each.successful
    }


async def update_in_weaviate(within: Objects, change: ObjectChange) -> None:
    """Change parts of an object.

    Raises:
        ObjectNotFound: there is no such object.
        StoreRejected: a vector cannot be deleted without other losses.
    """
    images = {name: content for name, content in change.images.items() if content is not None}
    given = to_weaviate(StoredObject(change.id, change.properties, images, change.vectors))
    gone = [name for values in (change.properties, change.images) for name, value in values.items() if value is None]
    properties = {**(given.properties or {}), **dict.fromkeys(gone)}
    try:
        schema = await read_json(within, f"/schema/{within.name}") if change.lost_vectors else {}
        hashed = _hashed_properties(schema)
        if set(hashed) - change.images.keys():
            _check_rewritable(change, hashed, await _read_object(within, change.id))
        await within.data.update(change.id, properties, vector=given.vector or None)
        if change.lost_vectors:
            await _drop_vectors(within, change, {*change.lost_vectors, *_removed_vectors(schema)}, hashed)
    except UnexpectedStatusCodeError as error:
        if error.status_code == HTTPStatus.NOT_FOUND:
            raise ObjectNotFound(str(change.id)) from error
        raise


async def _drop_vectors(within: Objects, change: ObjectChange, gone: Container[str], hashed: Sequence[str]) -> None:
    """Write a changed object again without some of its vectors, which is the only way to delete one.

    Raises:
        StoreRejected: it has got the hash of another image meanwhile, which this write would spoil.
    """
    connection = within._connection  # noqa: SLF001
    level, tenant = _level(within), _tenant(within)
    found = await _read_object(within, change.id)
    _check_rewritable(change, hashed, found)
    given = {name: content for name in hashed if (content := change.images.get(name)) is not None}
    pictures = {name: b64encode(content).decode("ascii") for name, content in given.items()}
    vectors = dict(found.get("vectors") or {})
    if found.get("vector"):
        vectors[NAMELESS] = found["vector"]
    kept = {name: vector for name, vector in vectors.items() if name not in gone}
    properties = {**(found.get("properties") or {}), **pictures}
    body = {"class": within.name, "id": str(change.id), "properties": properties, "vectors": kept, **tenant}
    written = connection.put(
        f"/objects/{within.name}/{change.id}",
        weaviate_object=body,
        params=level,
        error_msg="object",
        status_codes=_ExpectedStatusCodes(ok_in=[200, 204], error="replace object"),
    )
    await executor.aresult(written)


def _removed_vectors(schema: Mapping[str, Any]) -> list[str]:
    """Return the named vectors that an object may still have and that Weaviate takes no more, as they were removed."""
    return [name for name, each in as_mapping(schema.get("vectorConfig")).items() if is_removed(as_mapping(each))]


def _hashed_properties(schema: Mapping[str, Any]) -> list[str]:
    """Return the names of the properties of which Weaviate keeps the hashes of images."""
    return [each["name"] for each in schema.get("properties") or () if each["dataType"] == [DataType.BLOB_HASH.value]]


async def _read_object(within: Objects, id_: UUID) -> Mapping[str, Any]:
    """Return an object as JSON, so that values of unhandled types stay as they are."""
    parameters = {"include": "vector", **_level(within), **_tenant(within)}
    found: Mapping[str, Any] = await read_json(within, f"/objects/{within.name}/{id_}", parameters)
    return found


def _level(within: Objects) -> dict[str, Any]:
    consistency = within.consistency_level
    return {} if consistency is None else {"consistency_level": consistency.value}


def _tenant(within: Objects) -> dict[str, Any]:
    return {"tenant": within.tenant} if within.tenant else {}


def _check_rewritable(change: ObjectChange, hashed: Sequence[str], found: Mapping[str, Any]) -> None:
    """Check that an object can be written again as it is. Weaviate would hash the hashes of images again.

    Raises:
        StoreRejected: it has a hash, and the change does not have the image.
    """
    stored = found.get("properties") or {}
    spoilt = next((name for name in hashed if stored.get(name) and name not in change.images), None)
    if spoilt is not None:
        raise StoreRejected(
            f"the object would lose {', '.join(change.lost_vectors)}. Weaviate deletes a vector only by writing the "
            f"object again, which would spoil {spoilt!r}, a blobHash; send its image too, or keep a value in one of "
            "the vector's fields"
        )


async def delete_fitting(within: Objects, filters: Filter) -> Deletion:
    """Delete the objects that match a filter, or as many as Weaviate deletes at a time.

    Raises:
        ServiceError: one of them failed for a reason that concerns all, such as a read-only store.
    """
    answer = await within.data.delete_many(filter_to_weaviate(filters), verbose=True)
    failures: dict[UUID, StoreRejected] = {}
    for each in answer.objects:
        if not each.successful:
            rejection = reject(each.error or "no reason given", within.name)
            if not isinstance(rejection, StoreRejected):
                raise rejection
            failures[UUID(int=each.uuid.int)] = rejection
    return Deletion([UUID(int=each.uuid.int) for each in answer.objects if each.successful], failures)
