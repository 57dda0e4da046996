"""Changing parts of objects in Weaviate."""

from collections.abc import Mapping
from typing import Any

from weaviate.connect import executor
from weaviate.connect.v4 import _ExpectedStatusCodes
from weaviate.exceptions import UnexpectedStatusCodeError

from service.domain import ObjectChange, StoredObject
from service.errors import ObjectNotFound, StoreRejected
from service.store.weaviate.objects import Objects, to_weaviate
from service.store.weaviate.vector_schema import NAMELESS

NOT_FOUND = 404


async def update_in_weaviate(within: Objects, change: ObjectChange) -> None:
    """Change parts of an object.

    Raises:
        ObjectNotFound: there is no such object.
        StoreRejected: it is to lose a vector, and cannot without another loss.
    """
    images = {name: content for name, content in change.images.items() if content is not None}
    given = to_weaviate(StoredObject(change.id, change.properties, images, change.vectors))
    gone = [name for values in (change.properties, change.images) for name, value in values.items() if value is None]
    properties = {**(given.properties or {}), **dict.fromkeys(gone)}
    try:
        if change.lost_vectors:
            await _check_rewritable(within, change)
        await within.data.update(change.id, properties, vector=given.vector or None)
        if change.lost_vectors:
            await _drop_vectors(within, change)
    except UnexpectedStatusCodeError as error:
        if error.status_code == NOT_FOUND:
            raise ObjectNotFound(str(change.id)) from error
        raise


async def _drop_vectors(within: Objects, change: ObjectChange) -> None:
    """Write an object again as it is, but for some vectors, which is the only way to take one away."""
    connection = within._connection  # noqa: SLF001
    consistency = within.consistency_level
    level: dict[str, Any] = {} if consistency is None else {"consistency_level": consistency.value}
    tenant: dict[str, Any] = {"tenant": within.tenant} if within.tenant else {}
    # As JSON, so that values of types which this version does not handle stay as they are.
    found = await _read_json(within, f"/objects/{within.name}/{change.id}", {"include": "vector", **level, **tenant})
    vectors = dict(found.get("vectors") or {})
    if found.get("vector"):
        vectors[NAMELESS] = found["vector"]
    kept = {name: vector for name, vector in vectors.items() if name not in change.lost_vectors}
    properties = found.get("properties") or {}
    body = {"class": within.name, "id": str(change.id), "properties": properties, "vectors": kept, **tenant}
    written = connection.put(
        f"/objects/{within.name}/{change.id}",
        weaviate_object=body,
        params=level,
        error_msg="object",
        status_codes=_ExpectedStatusCodes(ok_in=[200, 204], error="replace object"),
    )
    await executor.aresult(written)


async def _check_rewritable(within: Objects, change: ObjectChange) -> None:
    """Check that an object can be written again as it is: Weaviate would make hashes of its hashes.

    Raises:
        StoreRejected: it has a property of type blobHash.
    """
    schema = await _read_json(within, f"/schema/{within.name}", {})
    hashes = [each["name"] for each in schema.get("properties") or () if each["dataType"] == ["blobHash"]]
    if hashes:
        raise StoreRejected(
            f"the object would lose {', '.join(change.lost_vectors)}, which Weaviate does only by storing it again;  "
            f"that would spoil {hashes[0]!r}, a blobHash; give the object a value for one of the vector's fields"
        )


async def _read_json(within: Objects, path: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    read = within._connection.get(  # noqa: SLF001
        path,
        params=dict(parameters),
        error_msg="object",
        status_codes=_ExpectedStatusCodes(ok_in=[200], error="read"),
    )
    answer: Mapping[str, Any] = (await executor.aresult(read)).json()
    return answer
