"""Collections, their aliases and their tenants in Weaviate."""

import asyncio
import contextlib
import re
from collections.abc import Container, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Literal

from cachetools import LRUCache, TTLCache
from weaviate import WeaviateAsyncClient
from weaviate.aliases.alias import AliasReturn
from weaviate.collections.classes.tenants import (
    TenantCreate,
    TenantCreateActivityStatus,
    TenantUpdate,
    TenantUpdateActivityStatus,
)
from weaviate.connect import executor
from weaviate.connect.v4 import _ExpectedStatusCodes
from weaviate.exceptions import UnexpectedStatusCodeError, WeaviateUnsupportedFeatureError

from service.domain import Alias, Collection, NamedVector, Parameters, Tenant, TenantActivity, collection_name
from service.errors import LEADS_NOWHERE, AliasNotFound, CollectionNotFound, InvalidRequest, StoreRejected, Violation
from service.store.weaviate.connection import Connection, measured, read_json
from service.store.weaviate.schema import IndexChange, from_schema, index_changes, patch_schema, to_schema
from service.store.weaviate.vector_schema import NAMELESS, add_binding, drop_binding, restore_binding

SWITCH = "ENABLE_EXPERIMENTAL_ALTER_SCHEMA_DROP_VECTOR_INDEX_ENDPOINT"
"""What a Weaviate before 1.40 needs to remove named vectors; its refusal names it."""
REMOVES_SOUNDLY = (1, 39)
"""The first version after whose removals objects can be updated; no answer but the version tells it beforehand."""
UNKNOWN_CALL = frozenset((405, 501))
MAX_SCHEMAS = 1024
SCHEMA_MAX_AGE_S = 1.0
"""How long searches use a schema before it is read again; reading it takes as long as a small search."""
_COLLECTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,254}")


@measured
class WeaviateCollections:
    """The methods of a Store for collections, their aliases and their tenants.

    Created collections have their space binding in the schema; collections of other programs can be read. The first
    letter of a collection's name becomes a capital letter, and that of a property a small one, as in Weaviate.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._schemas: TTLCache[str, Collection] = TTLCache(MAX_SCHEMAS, SCHEMA_MAX_AGE_S)
        # From the last time that a caller read the collection.
        self._nameless: LRUCache[str, bool] = LRUCache(MAX_SCHEMAS)
        self._changes = 0
        self._readings: dict[str, asyncio.Task[Collection]] = {}

    async def create_collection(self, collection: Collection) -> None:
        """Create a collection, with the space binding of its named vectors in the schema."""
        name = collection_name(collection.name)
        with self._connection.call(name) as client:
            await client.collections.create_from_dict(to_schema(collection))
        self._forget(name)

    async def get_collection(self, name: str, *, fresh: bool = True) -> Collection:
        """Return a collection, even if another program created it."""
        name = check_name(name)
        if fresh or not self._connection.available:
            self._schemas.pop(name, None)
            return await self._read(name)
        if (seen := self._schemas.get(name)) is not None:
            return seen
        # All that find it too old at once share one answer.
        if (reading := self._readings.get(name)) is None:
            reading = self._readings[name] = asyncio.create_task(self._read(name), name="weaviate-schema")
            reading.add_done_callback(partial(self._end_reading, name))
        try:
            return await asyncio.shield(reading)
        finally:
            # The traceback of its error would keep this frame, and so the caller's request, until the collector runs.
            del reading

    def _end_reading(self, name: str, reading: asyncio.Task[Collection]) -> None:
        if self._readings.get(name) is reading:
            del self._readings[name]
        if not reading.cancelled():
            reading.exception()  # those who waited have raised it; none may be left

    async def _read(self, name: str) -> Collection:
        changes = self._changes
        try:
            with self._connection.call(name) as client:
                found = from_schema(await read_json(client, f"/schema/{name}"))
        except CollectionNotFound:
            raise await self._missing(name) from None
        if changes == self._changes:
            # Otherwise it may have been read before this program changed it.
            self._schemas[name] = found
        self._nameless[name] = self._nameless[found.name] = any(each.nameless for each in found.vectors)
        return found

    async def _missing(self, name: str) -> CollectionNotFound:
        """Return that there is no collection of a name; say so if the name is an alias that leads to nothing."""
        # Where aliases may not be read, this one says nothing.
        with contextlib.suppress(AliasNotFound, StoreRejected):
            await self.get_alias(name)
            return CollectionNotFound(name, LEADS_NOWHERE)
        return CollectionNotFound(name)

    async def _means_nameless(self, name: str, vectors: Container[str]) -> bool:
        """Return whether one of the vectors is the one without a name, for which searches and reads name none."""
        if NAMELESS not in vectors:
            return False
        if name not in self._nameless:
            await self.get_collection(name)
        return self._nameless[name]

    async def list_collections(self) -> list[Collection]:
        """Return all collections, sorted by name."""
        with self._connection.call() as client:
            schema = await read_json(client, "/schema")
        return sorted((from_schema(each) for each in schema.get("classes") or ()), key=lambda each: each.name)

    async def update_collection(self, collection: Collection) -> None:
        """Change a collection into the given one, and add what is new; a repeated call changes nothing."""
        name = check_name(collection.name)
        self._forget(name)
        with self._connection.call(name) as client:
            present = await read_json(client, f"/schema/{name}")
            if collection.reranker is not None and collection.reranker != from_schema(present).reranker:
                await _check_module(client, collection.reranker.module)
            schema, properties = patch_schema(present, collection)
            await _send_json(client, "put", f"/schema/{name}", schema)
            for each in properties:
                await _send_json(client, "post", f"/schema/{name}/properties", each)
            for change in index_changes(present, collection):
                await _change_index(client, name, change)
        self._forget(name)

    async def bind_vector(self, collection: str, vector: NamedVector) -> None:
        """Bind a vector that another client made to a space and to the properties it is made of."""
        name = check_name(collection)
        self._forget(name)
        with self._connection.call(name) as client:
            schema = await read_json(client, f"/schema/{name}")
            changed = StoreRejected(
                f"vector {vector.name!r} of {name!r} was bound or removed meanwhile; look at it again"
            )
            if not _has_binding(schema, vector):
                raise changed
            if not add_binding(schema, vector):
                raise StoreRejected(
                    f"collection {name!r} has no property, and Weaviate keeps the binding with one: add a property"
                )
            try:
                await _send_json(client, "put", f"/schema/{name}", schema)
            except UnexpectedStatusCodeError as error:
                # Weaviate refuses to change the binding that another call has made since.
                if _has_binding(await read_json(client, f"/schema/{name}"), vector):
                    raise
                raise changed from error
        self._forget(name)

    async def remove_vector(self, collection: str, vector: str) -> None:
        """Remove a named vector from a collection and from its objects; a repeated call changes nothing."""
        name = check_name(collection)
        self._forget(name)
        with self._connection.call(name) as client:
            version = str((await read_json(client, "/meta")).get("version"))
            if _numbers(version) < REMOVES_SOUNDLY:
                raise StoreRejected(
                    f"{vector!r} stays: after Weaviate {version} removes a named vector, it fails updates of objects; "
                    "take version 1.39 or newer"
                )
            # First, so that no vector of the same name, made right after the removal, gets the binding.
            schema = await read_json(client, f"/schema/{name}")
            if dropped := drop_binding(schema, vector):
                await _send_json(client, "put", f"/schema/{name}", schema)
            try:
                await _send_json(client, "delete", f"/schema/{name}/vectors/{vector}/index", {})
            except UnexpectedStatusCodeError as error:
                if dropped:
                    await _rebind(client, name, vector)
                if not _unknown_call(error) and SWITCH not in str(error):
                    raise
                raise StoreRejected(
                    f"this Weaviate does not remove named vectors; {vector!r} stays. Start Weaviate with "
                    f"{SWITCH}=true, or take version 1.40 or newer"
                ) from error
        self._forget(name)

    async def delete_collection(self, name: str) -> None:
        """Delete a collection and its objects."""
        name = check_name(name)
        # Weaviate reports success for a name that does not exist, and for an alias.
        if (await self.get_collection(name)).name != name:
            message = f"{name!r} is an alias; name the collection that it leads to, as GetCollection gives it"
            raise InvalidRequest([Violation("name", message)])
        with self._connection.call(name) as client:
            await client.collections.delete(name)
        self._forget(name)

    def _forget(self, name: str) -> None:
        """Forget the schema of a collection, which may be cached under aliases, too, or of an alias."""
        self._changes += 1
        self._readings.clear()  # what is being read may be from before the change
        self._nameless.pop(name, None)
        for each in [key for key, found in self._schemas.items() if name in (key, found.name)]:
            self._schemas.pop(each, None)

    async def create_alias(self, alias: Alias) -> None:
        """Give a collection another name."""
        name = collection_name(alias.name)
        with self._connection.call(alias.collection) as client:
            await client.alias.create(alias_name=name, target_collection=check_name(alias.collection))
        self._forget(name)

    async def get_alias(self, name: str) -> Alias:
        """Return an alias, even if its collection does not exist any more."""
        found = None
        # Weaviate older than 1.32 has no aliases.
        with self._connection.call() as client, contextlib.suppress(WeaviateUnsupportedFeatureError):
            found = await client.alias.get(alias_name=_alias_name(name))
        if found is None:
            raise AliasNotFound(name)
        return Alias(found.alias, found.collection)

    async def list_aliases(self) -> list[Alias]:
        """Return all aliases, sorted by name."""
        found: Mapping[str, AliasReturn] = {}
        with self._connection.call() as client, contextlib.suppress(WeaviateUnsupportedFeatureError):
            found = await client.alias.list_all()
        return [Alias(each.alias, each.collection) for _, each in sorted(found.items())]

    async def update_alias(self, alias: Alias) -> None:
        """Let an alias lead to another collection."""
        name, target = _alias_name(alias.name), check_name(alias.collection)
        try:
            with self._connection.call(target) as client:
                updated = await client.alias.update(alias_name=name, new_target_collection=target)
        finally:
            # Also when it is not known whether the alias was switched.
            self._forget(name)
        if not updated:
            raise AliasNotFound(alias.name)

    async def delete_alias(self, name: str) -> None:
        """Delete an alias, and nothing of its collection."""
        real = _alias_name(name)
        try:
            with self._connection.call() as client:
                deleted = await client.alias.delete(alias_name=real)
        finally:
            self._forget(real)
        if not deleted:
            raise AliasNotFound(name)

    async def create_tenants(self, collection: str, tenants: Sequence[Tenant]) -> None:
        """Add tenants to a collection with tenants; an existing tenant stays unchanged."""
        name = check_name(collection)
        with self._connection.call(name) as client:
            await client.collections.use(name).tenants.create(tenants_to_create(tenants))

    async def list_tenants(self, collection: str, names: Sequence[str] = ()) -> list[Tenant]:
        """Return all tenants of a collection, or the existing ones of the given names, sorted by name."""
        name = check_name(collection)
        with self._connection.call(name) as client:
            tenants = client.collections.use(name).tenants
            return tenants_from_weaviate(await (tenants.get_by_names(list(names)) if names else tenants.get()))

    async def update_tenants(self, collection: str, tenants: Sequence[Tenant]) -> None:
        """Change the activity of existing tenants."""
        name = check_name(collection)
        with self._connection.call(name) as client:
            await client.collections.use(name).tenants.update(tenants_to_update(tenants))

    async def delete_tenants(self, collection: str, names: Sequence[str]) -> None:
        """Delete tenants and their objects; a tenant that does not exist is not an error."""
        name = check_name(collection)
        with self._connection.call(name) as client:
            await client.collections.use(name).tenants.remove(list(names))


def _has_binding(schema: Mapping[str, Any], vector: NamedVector) -> bool:
    """Return whether a vector has the same binding in a schema, which may be none."""
    present = from_schema(schema).find_vector(vector.name)
    return present is not None and present.binding == vector.binding


def check_name(name: str) -> str:
    """Return a collection's name in Weaviate's spelling.

    Raises:
        CollectionNotFound: no collection has that name.
    """
    # Names become parts of paths.
    if not _COLLECTION_NAME.fullmatch(name):
        raise CollectionNotFound(name)
    return collection_name(name)


def _alias_name(name: str) -> str:
    """Return an alias's name in Weaviate's spelling.

    Raises:
        AliasNotFound: no alias has that name.
    """
    if not _COLLECTION_NAME.fullmatch(name):
        raise AliasNotFound(name)
    return collection_name(name)


async def _rebind(client: WeaviateAsyncClient, name: str, vector: str) -> None:
    """Bind a vector again that Weaviate did not remove."""
    schema = await read_json(client, f"/schema/{name}")
    if restore_binding(schema, vector):
        await _send_json(client, "put", f"/schema/{name}", schema)


async def _check_module(client: WeaviateAsyncClient, name: str) -> None:
    # Weaviate accepts any name in an update, and cannot remove it later.
    modules = (await read_json(client, "/meta")).get("modules") or {}
    if name not in modules:
        raise StoreRejected(f"Weaviate refused: module with name {name} doesn't exist")


async def _send_json(
    client: WeaviateAsyncClient, method: Literal["post", "put", "delete"], path: str, body: Parameters
) -> None:
    # The client's own update supports only parameters that it knows.
    send = getattr(client._connection, method)  # noqa: SLF001
    accepted = _ExpectedStatusCodes(ok_in=[200, 202], error="schema")
    await executor.aresult(send(path, dict(body), error_msg="schema", status_codes=accepted))


async def _change_index(client: WeaviateAsyncClient, collection: str, change: IndexChange) -> None:
    try:
        await _send_json(client, change.method, f"/schema/{collection}{change.path}", change.body)
    except UnexpectedStatusCodeError as error:
        if not _unknown_call(error):
            raise
        await _send_json(client, "put", f"/schema/{collection}{change.path_in_1_38}", change.body_in_1_38)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", version)[:2])


def _unknown_call(error: UnexpectedStatusCodeError) -> bool:
    """Return whether Weaviate has no such call at all, as an older version may answer."""
    return error.status_code in UNKNOWN_CALL or (error.status_code == HTTPStatus.NOT_FOUND and "path /" in str(error))


def tenants_to_create(tenants: Sequence[Tenant]) -> list[TenantCreate]:
    """Return tenants as the client creates them: active or inactive ones."""
    return [
        TenantCreate(name=each.name, activity_status=TenantCreateActivityStatus(each.activity.value))
        for each in tenants
    ]


def tenants_to_update(tenants: Sequence[Tenant]) -> list[TenantUpdate]:
    """Return tenants as the client updates them: active, inactive or offloaded ones."""
    return [
        TenantUpdate(name=each.name, activity_status=TenantUpdateActivityStatus(each.activity.value))
        for each in tenants
    ]


def tenants_from_weaviate(found: Mapping[str, Any]) -> list[Tenant]:
    """Return tenants by name from what the client returns."""
    return [Tenant(name, TenantActivity(found[name].activity_status.value)) for name in sorted(found)]
