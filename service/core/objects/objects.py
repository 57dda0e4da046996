"""Objects: getting, listing and deleting them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID

from service.access import Permission, calling_account, check_permission
from service.core.embedder_pool import EmbedderPool
from service.core.objects.checks import check_return_fields, parse_id
from service.core.objects.writing import Writes, keys_of
from service.core.searching.checks import check_options
from service.core.searching.filter_checks import check_filter
from service.core.searching.references import linked_collections, real_name
from service.domain import (
    Collection,
    Condition,
    Filter,
    Operator,
    ReturnNames,
    Scope,
    SearchOptions,
    SearchSpec,
    SortBy,
    StoredObject,
    Target,
    conditions,
)
from service.errors import (
    CollectionNotFound,
    InvalidRequest,
    ObjectNotFound,
    StoreRejected,
    VectorRemoved,
    Violation,
    collecting,
    noting,
)
from service.store.base import NO_TENANT, Store

MAX_NAMED = 1000
"""Ids that a report names."""
WINDOW = 10_000
"""Objects that Weaviate reads of a sorted or filtered listing: its default of QUERY_MAXIMUM_RESULTS."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of objects to list.

    Attributes:
        collection: whose objects.
        size: objects at most.
        filters: which objects; None for all.
        sort: what to sort by; empty for the store's order, which without filters is that of the ids.
        position: where the page begins: behind the object of an id, or behind so many objects. Pages of a windowed
            listing begin behind a number, others behind an id, or with 0 at the beginning.
        returned: which parts of the objects to return.
        scope: whose they are, and how many replicas must answer.
    """

    collection: str
    size: int
    filters: Filter | None = None
    sort: tuple[SortBy, ...] = ()
    position: UUID | int = 0
    returned: ReturnNames = field(default_factory=ReturnNames)
    scope: Scope = NO_TENANT

    @property
    def windowed(self) -> bool:
        """Whether pages begin behind a number of objects, and reach as far as the window."""
        return bool(self.filters or self.sort)


@dataclass(frozen=True, slots=True)
class ObjectPage:
    """The objects of a page, and whether others may follow."""

    objects: list[StoredObject]
    more: bool


@dataclass(frozen=True, slots=True)
class DeletionReport:
    """The result of the objects that matched a filter.

    Attributes:
        matched: how many matched.
        deleted: how many were deleted.
        ids: the first of those that were deleted, or would be.
        failures: why others were not, by id.
    """

    matched: int
    deleted: int = 0
    ids: list[UUID] = field(default_factory=list)
    failures: Mapping[UUID, StoreRejected] = field(default_factory=dict)


class Objects:
    """Gets, lists and deletes objects."""

    def __init__(self, store: Store, embedders: EmbedderPool, writes: Writes) -> None:
        self._store = store
        self._writes = writes
        self._embedders = embedders

    async def get(self, name: str, id_: str, returned: ReturnNames, scope: Scope = NO_TENANT) -> StoredObject:
        """Return the object of an id, which is a UUID in text form.

        Raises:
            CollectionNotFound: there is no such collection.
            TenantNotFound: the collection has no such tenant.
            ObjectNotFound: the collection has no object of that id.
            InvalidRequest: a missing or superfluous tenant, an unknown property or named vector, an invalid id.
            StoreUnavailable: the store failed.
        """
        collection = self._embedders.resolve(await self._store.get_collection(name, fresh=False))
        try:
            return await self._get(collection, id_, returned, scope)
        except CollectionNotFound:
            now = self._embedders.resolve(await self._store.get_collection(name))
            if now.name == collection.name:
                raise
            # An alias was switched, and the collection that it led to is deleted.
            return await self._get(now, id_, returned, scope)

    async def _get(self, collection: Collection, id_: str, returned: ReturnNames, scope: Scope) -> StoredObject:
        with collecting() as violations:
            with noting(violations):
                uuid = parse_id(id_, "id")
            fields = check_return_fields(collection, returned, violations)
        return await self._store.get_object(collection.name, uuid, fields, scope)

    async def real_name(self, name: str) -> str:
        """Return the name of the collection that an alias leads to; other names unchanged.

        Raises:
            StoreUnavailable: the store failed.
        """
        return await real_name(self._store, name)

    async def list_page(self, listing: Listing) -> ObjectPage:
        """Return a page of objects.

        Raises:
            CollectionNotFound: there is no such collection.
            TenantNotFound: the collection has no such tenant.
            InvalidRequest: a missing or superfluous tenant, an unknown property or named vector, a filter or a sort
                that does not fit, a page behind the window.
            StoreUnavailable: the store failed.
        """
        collection = self._embedders.resolve(await self._store.get_collection(listing.collection, fresh=False))
        try:
            return await self._list(collection, listing)
        except (CollectionNotFound, VectorRemoved):
            # What was seen a moment ago has changed.
            now = self._embedders.resolve(await self._store.get_collection(listing.collection))
            return await self._list(now, listing)

    async def _list(self, collection: Collection, listing: Listing) -> ObjectPage:
        name, returned = collection.name, listing.returned
        linked = await linked_collections(self._store, collection, listing.filters)
        options = SearchOptions(listing.filters, sort=listing.sort)
        with collecting() as violations:
            fields = check_return_fields(collection, returned, violations)
            options = check_options(collection, options, linked, violations)
        offset, limit = 0, listing.size
        if isinstance(listing.position, UUID):
            options = replace(options, after=listing.position)
        elif listing.windowed:
            offset, limit = listing.position, min(listing.size, WINDOW - listing.position)
            if limit <= 0:
                message = (
                    f"is behind the first {WINDOW} objects, and a listing with filters or sort goes no further; "
                    "narrow the filters, or leave out filters and sort to list all objects"
                )
                raise InvalidRequest([Violation("page_token", message)])
        hits = await self._store.search(name, SearchSpec(None, limit, offset, fields, options, listing.scope))
        more = len(hits) == limit
        if more and offset + limit == WINDOW:
            more = await self._store.count_objects(name, listing.scope, options.filters) > WINDOW
        return ObjectPage([hit.object for hit in hits], more)

    async def delete(self, name: str, id_: UUID, scope: Scope = NO_TENANT) -> None:
        """Delete an object.

        Raises:
            CollectionNotFound: there is no such collection.
            TenantNotFound: the collection has no such tenant.
            ObjectNotFound: the collection has no object of that id.
            InvalidRequest: a missing or superfluous tenant.
            StoreRejected: the store refused.
            StoreUnavailable: the store failed.
        """
        its = Condition(Target.ID, Operator.EQUAL, str(id_))
        name = (await self._store.get_collection(name)).name
        keys = keys_of(name, scope, [id_])
        deletion = await self._writes.run(keys, lambda: self._store.delete_objects(name, its, scope))
        for error in deletion.failures.values():
            raise error
        if not deletion.deleted:
            raise ObjectNotFound(str(id_))

    async def delete_fitting(
        self, name: str, filters: Filter, *, dry_run: bool, scope: Scope = NO_TENANT
    ) -> DeletionReport:
        """Delete all objects that match a filter, or count and name them.

        Raises:
            PermissionDenied: the client may not search, and could find out values by counting.
            CollectionNotFound: there is no such collection.
            TenantNotFound: the collection has no such tenant.
            InvalidRequest: a missing or superfluous tenant, a filter that does not fit.
            StoreRejected: the store refused.
            StoreUnavailable: the store failed; some of the objects may be deleted.
        """
        if dry_run or any(each.target is not Target.ID or each.references for each in conditions(filters)):
            what = "delete objects by their values, or count them"
            check_permission(calling_account.get().client, frozenset({Permission.SEARCH}), what)
        collection = await self._store.get_collection(name)
        name = collection.name
        linked = await linked_collections(self._store, collection, filters)
        filters = check_filter(collection, filters, linked)
        if dry_run:
            return await self._find_fitting(name, filters, scope)
        deleted = 0
        ids: list[UUID] = []
        failures: dict[UUID, StoreRejected] = {}
        while True:
            # The store deletes a bounded number at a time; those that it cannot delete match again the next time.
            deletion = await self._writes.run((), lambda: self._store.delete_objects(name, filters, scope))
            failures.update(deletion.failures)
            if not deletion.deleted:
                break
            deleted += len(deletion.deleted)
            ids += deletion.deleted[: MAX_NAMED - len(ids)]
        return DeletionReport(deleted + len(failures), deleted, ids, failures)

    async def _find_fitting(self, name: str, filters: Filter, scope: Scope) -> DeletionReport:
        count = await self._store.count_objects(name, scope, filters)
        hits = await self._store.search(name, SearchSpec(limit=MAX_NAMED, options=SearchOptions(filters), scope=scope))
        return DeletionReport(count, ids=[hit.object.id for hit in hits])
