"""Searching: the query is embedded in the space of the named vector that is searched."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import structlog

from embedders.errors import CallerKeyRejected, EmbedderError, InputRejected
from embedders.inputs import QUERY, Embedding, ImageInput, Input, TextInput, Vector
from embedders.spec import EmbedderSpec
from service.core.conformance import check_return_fields, parse_vector
from service.core.embed import EmbedderPool
from service.core.filtering import check_filter
from service.core.importing import join
from service.domain import Collection, Hit, NamedVector, SearchOptions, StoredObject
from service.errors import InvalidRequest, SpaceMismatch, Violation, rejection
from service.store.base import EVERYTHING, Store

__all__ = ["NearImage", "NearText", "NearVector", "Query", "ReturnNames", "SearchResult", "Searcher"]


log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NearText:
    """Look for what is near to texts; of several, to the mean of their vectors."""

    concepts: tuple[str, ...]
    truncate: bool = False


@dataclass(frozen=True, slots=True)
class NearImage:
    """Look for what is near to an encoded picture."""

    content: bytes


@dataclass(frozen=True, slots=True)
class NearVector:
    """Look for what is near to a vector.

    Attributes:
        data: little-endian float32 bytes.
        space: the space that it comes from, or empty when the caller does not say.
    """

    data: bytes
    space: str = ""


Query = NearText | NearImage | NearVector | None
"""What to look for; None lists objects."""


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
            api_key: the caller's own key for the embedder's backend; None for this server's.

        Raises:
            CollectionNotFound: there is no such collection.
            InvalidRequest: an unknown name, a filter or a vector that does not fit, an input that cannot be embedded.
            CollectionNotBound: the named vector is bound to no space.
            SpaceMismatch: the named vector is bound to a space that the query cannot come from.
            EmbedderError: the embedder failed.
            StoreUnavailable: the store failed.
        """
        collection = await self._store.get_collection(name)
        fields = check_return_fields(collection, returned.properties, returned.images, returned.vectors)
        if options.filters is not None:
            options = replace(options, filters=check_filter(collection, options.filters, "filters"))
        if query is None:
            hits = await self._store.list_objects(name, limit=limit, offset=offset, fields=fields, options=options)
            return SearchResult(hits, None)
        targets = self._targets(collection, target_vector, query)
        target, spec, vector = await self._first_query_vector(collection, targets, query, api_key)
        hits = await self._store.search(
            name, target.name, vector, limit=limit, offset=offset, fields=fields, options=options
        )
        return SearchResult(hits, spec)

    async def get_object(self, name: str, id_: UUID, returned: ReturnNames) -> StoredObject:
        """Return an object.

        Raises:
            CollectionNotFound: there is no such collection.
            ObjectNotFound: the collection has no object of that id.
            InvalidRequest: an unknown field or named vector.
        """
        collection = await self._store.get_collection(name)
        fields = check_return_fields(collection, returned.properties, returned.images, returned.vectors)
        return await self._store.get_object(name, id_, fields)

    def _targets(
        self, collection: Collection, name: str, query: NearText | NearImage | NearVector
    ) -> list[NamedVector]:
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
        query: NearText | NearImage | NearVector,
        api_key: str | None,
    ) -> tuple[NamedVector, EmbedderSpec | None, Vector]:
        """Return the first target whose embedders work, and the query's vector in its space."""
        for target in targets[:-1]:
            try:
                return target, *await self._query_vector(collection, target, query, api_key)
            except CallerKeyRejected:
                raise  # The caller shall learn of it, and not be served by others.
            except EmbedderError as error:
                log.info("search_target_switched", collection=collection.name, failed=target.name, reason=str(error))
        return targets[-1], *await self._query_vector(collection, targets[-1], query, api_key)

    async def _query_vector(
        self,
        collection: Collection,
        target: NamedVector,
        query: NearText | NearImage | NearVector,
        api_key: str | None,
    ) -> tuple[EmbedderSpec | None, Vector]:
        match query:
            case NearVector(data, space):
                if space and target.space and space != target.space.id:
                    raise SpaceMismatch(
                        vector=target.name,
                        bound=target.space.id,
                        given=space,
                        bound_dimension=target.space.dimension,
                        given_dimension=len(data) // 4,
                    )
                dimension = target.space.dimension if target.space else None
                return None, parse_vector(data, dimension, "near_vector.vector.data")
            case NearImage(content):
                inputs: Sequence[Input] = [ImageInput(content)]
                paths = ["near_image.image.content"]
            case NearText(concepts, truncate):
                inputs = [TextInput(concept, truncate) for concept in concepts]
                paths = [f"near_text.concepts[{index}]" for index in range(len(concepts))]
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
            raise InvalidRequest([Violation("near_text.concepts", message, "INVALID_VECTOR")])
        return embedder.spec, joined
