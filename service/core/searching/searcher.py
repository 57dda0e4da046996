"""Searching: which named vector is searched, and the query as a vector of its space."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypedDict
from uuid import UUID

import structlog

from embedders.errors import CallerKeyRejected, EmbedderError, InputRejected
from embedders.inputs import QUERY, Embedding, ImageInput, Input, TextInput, Vector
from embedders.metrics import FAILOVERS
from embedders.spec import EmbedderSpec
from service.core.conformance import check_return_fields, parse_vector
from service.core.embed import EmbedderPool
from service.core.searching.keywords import check_keyword_properties
from service.core.searching.options import check_certainty, check_options
from service.core.searching.queries import Hybrid, Near, NearImage, NearObject, NearText, NearVector, Query
from service.core.searching.sources import Source, vector_source
from service.core.vectorizing import join
from service.domain import Collection, Hit, Keywords, NamedVector, ReturnFields, Scope, SearchOptions, StoredObject
from service.errors import InvalidRequest, SpaceMismatch, Violation, rejection
from service.store.base import EVERYTHING, NO_TENANT, Store

__all__ = ["ReturnNames", "SearchResult", "Searcher"]


log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReturnNames:
    """Which fields to return, by name, as the caller asked; no properties means all but blobs."""

    properties: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The hits, nearest first, and the embedder of the query; None when nothing was embedded."""

    hits: list[Hit]
    embedder: EmbedderSpec | None


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

    async def search(
        self,
        name: str,
        query: Query,
        *,
        target_vector: str,
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
            target_vector: the named vector to search; empty where the collection has just one.
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
        fields = check_return_fields(collection, returned.properties, returned.images, returned.vectors)
        options = check_options(collection, options)
        page = Page(limit, offset, fields, options, scope)
        if query is None:
            return SearchResult(await self._store.list_objects(name, **page.arguments()), None)
        if isinstance(query, Keywords):
            check_keyword_properties(collection, query, "bm25")
            return SearchResult(await self._store.search_keywords(name, query, **page.arguments()), None)
        if isinstance(query, NearObject):
            target = self._target_of_object(collection, target_vector)
            check_certainty(target, options)
            vector = await self._vector_of_object(name, target, query.id, scope)
            return SearchResult(await self._store.search(name, target.name, vector, **page.arguments()), None)
        return await self._search_embedded(collection, query, target_vector, page, api_key)

    async def get_object(self, name: str, id_: UUID, returned: ReturnNames, scope: Scope = NO_TENANT) -> StoredObject:
        """Return an object.

        Raises:
            CollectionNotFound: there is no such collection.
            TenantNotFound: the collection has no such tenant.
            ObjectNotFound: the collection has no object of that id.
            InvalidRequest: a tenant that is missing or too much, an unknown field or named vector.
        """
        collection = self._embedders.resolve(await self._store.get_collection(name, fresh=False))
        fields = check_return_fields(collection, returned.properties, returned.images, returned.vectors)
        return await self._store.get_object(name, id_, fields, scope)

    async def _search_embedded(
        self, collection: Collection, query: Near | Hybrid, target_vector: str, page: "Page", api_key: str | None
    ) -> SearchResult:
        if isinstance(query, Hybrid) and query.blend.keywords is not None:
            check_keyword_properties(collection, query.blend.keywords, "hybrid.bm25")
        source = vector_source(query)
        targets = self._targets(collection, target_vector, source.near)
        target, spec, vector = await self._first_query_vector(collection, targets, source, api_key)
        check_certainty(target, page.options)
        name = collection.name
        if isinstance(query, Hybrid):
            hits = await self._store.search_hybrid(name, target.name, vector, query.blend, **page.arguments())
        else:
            hits = await self._store.search(name, target.name, vector, **page.arguments())
        return SearchResult(hits, spec)

    def _target_of_object(self, collection: Collection, name: str) -> NamedVector:
        """Return the named vector to search with an object of the collection: the named one, or the only one."""
        found = collection.find_vector(name or next((each.name for each in collection.vectors), ""))
        if found is None or (not name and len(collection.vectors) > 1):
            names = ", ".join(each.name for each in collection.vectors)
            where = "target_vectors[0]" if name else "target_vectors"
            message = f"choose one of the named vectors of collection {collection.name!r}: {names}"
            raise InvalidRequest([Violation(where, message, "UNKNOWN_VECTOR")])
        return found

    async def _vector_of_object(self, collection: str, target: NamedVector, id_: UUID, scope: Scope) -> Vector:
        found = await self._store.get_object(collection, id_, ReturnFields(vectors=[target.name]), scope)
        vector = found.vectors.get(target.name)
        if vector is None:
            message = f"the object has no vector {target.name!r}; choose another object or target vector"
            raise InvalidRequest([Violation("near_object.id", message, "UNKNOWN_VECTOR")])
        return vector

    def _targets(self, collection: Collection, name: str, query: Near) -> list[NamedVector]:
        """Return the named vectors that may be searched, in order of preference.

        Where none is named and each is of a space of its own, whichever embedder works decides.

        Raises:
            InvalidRequest: there is no such named vector, or several to choose from.
        """
        names = ", ".join(each.name for each in collection.vectors)
        if name:
            found = collection.find_vector(name)
            if found is not None:
                return [found]
            message = f"collection {collection.name!r} has no such named vector; it has: {names}"
            raise InvalidRequest([Violation("target_vectors[0]", message, "UNKNOWN_VECTOR")])
        if len(collection.vectors) == 1:
            return list(collection.vectors)
        by_space = {each.space.id: each for each in collection.vectors if each.space is not None}
        if isinstance(query, NearVector):
            by_space = {space: each for space, each in by_space.items() if space == query.space}
        elif len(by_space) < len(collection.vectors):
            by_space = {}
        served = dict.fromkeys(each.spec.space for each in self._embedders.all)
        if isinstance(query, NearVector) or not by_space.keys() & served:
            targets = list(by_space.values())
        else:
            targets = [by_space[space] for space in served if space in by_space]
        if not targets:
            message = f"collection {collection.name!r} has several named vectors; choose one of: {names}"
            raise InvalidRequest([Violation("target_vectors", message, "UNKNOWN_VECTOR")])
        return targets

    async def _first_query_vector(
        self,
        collection: Collection,
        targets: Sequence[NamedVector],
        query: Source,
        api_key: str | None,
    ) -> tuple[NamedVector, EmbedderSpec | None, Vector]:
        """Return the first target whose embedders work, and the query's vector in its space."""
        for target, other in pairwise(targets):
            try:
                return target, *await self._query_vector(collection, target, query, api_key)
            except CallerKeyRejected:
                raise  # The caller shall learn of it, and not be served by others.
            except EmbedderError as error:
                log.info("search_target_switched", collection=collection.name, failed=target.name, reason=str(error))
                failed, asked = (self._embedders.for_vector(collection.name, each)[0] for each in (target, other))
                FAILOVERS.labels(failed.spec.name, asked.spec.name).inc()
        return targets[-1], *await self._query_vector(collection, targets[-1], query, api_key)

    async def _query_vector(
        self,
        collection: Collection,
        target: NamedVector,
        source: Source,
        api_key: str | None,
    ) -> tuple[EmbedderSpec | None, Vector]:
        match source.near:
            case NearVector(data, space):
                if space and target.space and space != target.space.id:
                    raise SpaceMismatch(
                        vector=target.name,
                        bound=target.space.id,
                        given=space,
                        bound_dimension=target.space.dimension,
                        given_dimension=len(data) // 4,
                    )
                dimension = target.space.dimension or None if target.space else None
                return None, parse_vector(data, dimension, f"{source.path}.vector.data")
            case NearImage(content):
                inputs: Sequence[Input] = [ImageInput(content)]
                paths = [f"{source.path}.image.content"]
            case NearText(concepts, truncate):
                inputs = [TextInput(concept, truncate) for concept in concepts]
                paths = source.text_paths(len(concepts))
        embedder, outcomes = await self._embedders.embed_with_first(
            self._embedders.for_vector(collection.name, target), inputs, replace(QUERY, api_key=api_key)
        )
        refused = [
            rejection(outcome, path).violations[0]
            for outcome, path in zip(outcomes, paths, strict=True)
            if isinstance(outcome, InputRejected)
        ]
        if refused:
            raise InvalidRequest(refused)
        vectors = [outcome.vector for outcome in outcomes if isinstance(outcome, Embedding)]
        joined = join(vectors, [1.0] * len(vectors))
        if joined is None:
            message = "the vectors of these texts cancel each other out; search for them one by one"
            raise InvalidRequest([Violation(f"{source.path}.concepts", message, "INVALID_VECTOR")])
        return embedder.spec, joined
