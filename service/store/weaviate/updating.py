"""Changing parts of objects in Weaviate."""

from collections.abc import Mapping
from typing import Any

from weaviate.connect import executor
from weaviate.connect.v4 import _ExpectedStatusCodes
from weaviate.exceptions import UnexpectedStatusCodeError

from service.domain import ObjectChange, StoredObject
from service.errors import ObjectNotFound
from service.store.weaviate.objects import to_weaviate
from service.store.weaviate.scope import Objects

__all__ = ["update_in_weaviate"]

NOT_FOUND = 404


async def update_in_weaviate(within: Objects, change: ObjectChange) -> None:
    """Change parts of an object.

    Raises:
        ObjectNotFound: there is no such object.
    """
    images = {name: content for name, content in change.images.items() if content is not None}
    given = to_weaviate(StoredObject(change.id, change.properties, images, change.vectors))
    gone = [name for values in (change.properties, change.images) for name, value in values.items() if value is None]
    properties = {**(given.properties or {}), **dict.fromkeys(gone)}
    try:
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
    path = f"/objects/{within.name}/{change.id}"
    consistency = within.consistency_level
    level: dict[str, Any] = {} if consistency is None else {"consistency_level": consistency.value}
    tenant: dict[str, Any] = {"tenant": within.tenant} if within.tenant else {}
    read = connection.get(
        path,
        params={"include": "vector", **level, **tenant},
        error_msg="object",
        status_codes=_ExpectedStatusCodes(ok_in=[200], error="read object"),
    )
    # As JSON, so that values of types which this version does not handle stay as they are.
    found: Mapping[str, Any] = (await executor.aresult(read)).json()
    vectors = {name: vector for name, vector in (found.get("vectors") or {}).items() if name not in change.lost_vectors}
    body = {"class": within.name, "id": str(change.id), "properties": found["properties"], "vectors": vectors, **tenant}
    written = connection.put(
        path,
        weaviate_object=body,
        params=level,
        error_msg="object",
        status_codes=_ExpectedStatusCodes(ok_in=[200, 204], error="replace object"),
    )
    await executor.aresult(written)
