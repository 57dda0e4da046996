"""Searching: the query becomes a vector, which the store takes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypedDict

import numpy as np
import structlog

from embedders.contract import EmbedderSpec
from embedders.errors import CallerKeyRejected, EmbedderError
from embedders.telemetry.metrics import FAILOVERS
from service.core.embedder_pool import EmbedderPool
from service.core.objects.checks import check_return_fields, parse_id
from service.core.searching.keywords import check_keyword_properties
from service.core.searching.options import check_certainty, check_options, with_certainty
from service.core.searching.queries import Hybrid, Near, NearObject, Query
from service.core.searching.references import linked_collections
from service.core.searching.sources import Source, vector_source
from service.core.searching.targets import TargetChoice, default_target, named_targets, targets_of_query
from service.core.searching.vectors import Asked, QueryVector, QueryVectors
from service.domain import (
    Collection,
    Hit,
    Keywords,
    NamedVector,
    ReturnFields,
    Scope,
    SearchOptions,
    StoredObject,
    TargetVectors,
)
from service.errors import collecting, noting
from service.store.base import EVERYTHING, NO_TENANT, Store

ANY_TARGET = TargetChoice()
"""The server's own choice."""

NO_VECTOR = np.zeros(0, np.float32)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReturnNames:
    """Which fields to return, by name, as the caller asked; no properties means all but blobs."""

    properties: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The hits, nearest first, and the embedders of the query, that of the first searched vector first."""

    hits: list[Hit]
    embedders: Sequence[EmbedderSpec] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Which of the hits to return, what of them, and whose objects."""

    limit: int
    offset: int
    fields: ReturnFields
    options: SearchOptions
    scope: Scope

    def arguments(self) -> "PageArguments":
        """Return the arguments that all searches of a store take."""
        return {
            "limit": self.limit,
            "offset": self.offset,
            "fields": self.fields,
            "options": self.options,
            "scope": self.scope,
        }


class PageArguments(TypedDict):
    """What Page gives to a store."""

    limit: int
    offset: int
    fields: ReturnFields
    options: SearchOptions
    scope: Scope


class Searcher:
    """Finds and returns objects."""

    def __init__(self, store: Store, embedders: EmbedderPool) -> None:
        self._store = store
        self._embedders = embedders
        self._vectors = QueryVectors(store, embedders)

    async def search(
        self,
        name: str,
        query: Query,
        *,
        targets: TargetChoice = ANY_TARGET,
        limit: int,
        offset: int,
        returned: ReturnNames,
        options: SearchOptions = EVERYTHING,
        scope: Scope = NO_TENANT,
        api_key: str | None = None,
    ) -> SearchResult:
        """Return the objects nearest to a query, or list objects.

        Args:
            name: the collection.
            query: what to look for.
            targets: the named vectors to search; none leaves it to the collection and the embedders that work.
            limit: hits at most.
            offset: hits to pass over.
            returned: which fields to return.
            options: what narrows the search.
            scope: the tenant to search, and how many replicas must answer.
            api_key: the caller's own key for the embedder's backend; None for this server's.

        Raises:
            CollectionNotFound: there is no such collection.
            TenantNotFound: the collection has no such tenant.
            ObjectNotFound: the collection has no object to search with.
            InvalidRequest: a tenant that is missing or too much, an unknown name, a filter or a vector that does not
                fit, an input that cannot be embedded.
            CollectionNotBound: the named vector is bound to no space.
            SpaceMismatch: the named vector is bound to a space that the query cannot come from.
            EmbedderError: the embedder failed.
            StoreUnavailable: the store failed.
        """
        collection = self._embedders.resolve(await self._store.get_collection(name, fresh=False))
        asked = Asked(collection, scope, api_key)
        fields, options, vectors = await self._check(collection, query, targets, returned, options)
        page = Page(limit, offset, fields, options, scope)
        if query is None:
            return SearchResult(await self._store.list_objects(name, **page.arguments()))
        if isinstance(query, Keywords):
            return SearchResult(await self._store.search_keywords(name, query, **page.arguments()))
        if isinstance(query, NearObject):
            found = await self._vectors.of_object(asked, vectors, query.id, "near_object.id")
            return SearchResult(await self._store.search(name, targets.with_vectors(found), **page.arguments()))
        return await self._search_embedded(asked, query, targets, vectors, page)

    async def get_object(self, name: str, id_: str, returned: ReturnNames, scope: Scope = NO_TENANT) -> StoredObject:
        """Return the object of an id, which is a UUID in text form.

        Raises:
            CollectionNotFound: there is no such collection.
            TenantNotFound: the collection has no such tenant.
            ObjectNotFound: the collection has no object of that id.
            InvalidRequest: a tenant that is missing or too much, an unknown field or named vector, no UUID.
        """
        collection = self._embedders.resolve(await self._store.get_collection(name, fresh=False))
        with collecting() as violations:
            with noting(violations):
                uuid = parse_id(id_, "id")
            with noting(violations):
                fields = check_return_fields(collection, returned.properties, returned.images, returned.vectors)
        return await self._store.get_object(name, uuid, fields, scope)

    async def _check(
        self, collection: Collection, query: Query, targets: TargetChoice, returned: ReturnNames, options: SearchOptions
    ) -> tuple[ReturnFields, SearchOptions, list[NamedVector]]:
        """Return what to return, what narrows the search, and what it searches; see _targets.

        Raises:
            InvalidRequest: something does not fit the collection; all violations are listed.
        """
        linked = await linked_collections(self._store, collection, options.filters)
        with collecting() as violations:
            with noting(violations):
                fields = check_return_fields(collection, returned.properties, returned.images, returned.vectors)
            with noting(violations):
                by_vector = not isinstance(query, Hybrid | Keywords)
                options = check_options(collection, options, linked, by_vector=by_vector)
            with noting(violations):
                check_keyword_properties(collection, query)
            with noting(violations):
                vectors = self._targets(collection, query, targets)
                # Those behind the first one only stand in for it where none is named.
                searched = vectors if targets.names else vectors[:1]
                with noting(violations):
                    check_certainty(searched, options)
                self._vectors.check_vectors(searched, query)
            if violations:
                # Nothing will be embedded, which else would tell.
                with noting(violations):
                    self._vectors.check_texts(query)
        return fields, options, vectors

    def _targets(self, collection: Collection, query: Query, choice: TargetChoice) -> list[NamedVector]:
        """Return the named vectors to search: all that are named, or those that may stand in for each other."""
        if query is None or isinstance(query, Keywords):
            return []
        if choice.names:
            return named_targets(collection, choice.names)
        if isinstance(query, Hybrid) and query.words_only:
            return []
        default = self._embedders.default_vector(collection)
        if isinstance(query, NearObject):
            return [default_target(collection, default)]
        served = [each.spec.space for each in self._embedders.all]
        return targets_of_query(collection, vector_source(query), served, default)

    async def _search_embedded(
        self, asked: Asked, query: Near | Hybrid, choice: TargetChoice, targets: Sequence[NamedVector], page: "Page"
    ) -> SearchResult:
        name, source = asked.collection.name, vector_source(query)
        made: Sequence[QueryVector] = []
        if isinstance(query, Hybrid) and query.words_only:
            # Nothing is embedded, so that words are found while no embedder works.
            found = TargetVectors({each.name: NO_VECTOR for each in asked.collection.vectors[:1]})
        elif choice.names:
            made = await asyncio.gather(*(self._vectors.make(asked, each, source) for each in targets))
            found = choice.with_vectors({each.target.name: each.vector for each in made})
        else:
            made = [await self._first_query_vector(asked, with_certainty(targets, page.options), source)]
            found = choice.with_vectors({each.target.name: each.vector for each in made})
        if isinstance(query, Hybrid):
            hits = await self._store.search_hybrid(name, found, query.blend, **page.arguments())
        else:
            hits = await self._store.search(name, found, **page.arguments())
        specs = {each.embedder.name: each.embedder for each in made if each.embedder is not None}
        return SearchResult(hits, list(specs.values()))

    async def _first_query_vector(self, asked: Asked, targets: Sequence[NamedVector], source: Source) -> QueryVector:
        """Return the query's vector in the space of the first target whose embedders work."""
        name = asked.collection.name
        for target, other in pairwise(targets):
            try:
                return await self._vectors.make(asked, target, source)
            except CallerKeyRejected:
                raise  # The caller shall learn of it, and not be served by others.
            except EmbedderError as error:
                log.info("search_target_switched", collection=name, failed=target.name, reason=str(error))
                failed, tried = (self._embedders.for_vector(name, each)[0] for each in (target, other))
                FAILOVERS.labels(failed.spec.name, tried.spec.name).inc()
        return await self._vectors.make(asked, targets[-1], source)
