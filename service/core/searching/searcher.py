"""Searching: the query becomes a vector, which the store takes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import structlog

from embedders.contract import EmbedderSpec
from embedders.errors import CallerKeyRejected, EmbedderError
from embedders.telemetry.metrics import FAILOVERS
from service.core.embedder_pool import EmbedderPool, key_refused
from service.core.objects.checks import check_return_fields
from service.core.reranker_pool import RerankerPool
from service.core.searching.checks import (
    check_certainty,
    check_keywords,
    check_options,
    default_target,
    named_targets,
    targets_of_query,
    with_certainty,
)
from service.core.searching.references import linked_collections
from service.core.searching.reranking import HitReranker, RerankReport, check_reranking
from service.core.searching.unseen import UnseenObjects
from service.core.searching.vectors import Asked, OwnVectors, QueryVector, QueryVectors
from service.domain import (
    Blend,
    Collection,
    Hit,
    Hybrid,
    Keywords,
    NamedVector,
    Near,
    NearObject,
    Query,
    ReturnFields,
    Search,
    SearchOptions,
    SearchSpec,
    TargetVectors,
)
from service.errors import CollectionNotFound, VectorRemoved, collecting, noting
from service.store.base import Store

NO_VECTOR = np.zeros(0, np.float32)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search finds.

    Attributes:
        hits: best first.
        embedders: those of the query, that of the first searched vector first.
        reranking: what a reranker of this server did; None where none was asked for.
    """

    hits: list[Hit]
    embedders: Sequence[EmbedderSpec] = ()
    reranking: RerankReport | None = None


class _Checked(NamedTuple):
    """What is known of a search before anything is embedded.

    Attributes:
        fields: what to return of the hits.
        options: those of the search, with filters in the types of the collection.
        targets: the named vectors to search; see Searcher._targets.
        own: the caller's own vectors.
    """

    fields: ReturnFields
    options: SearchOptions
    targets: list[NamedVector]
    own: OwnVectors


class Searcher:
    """Finds objects."""

    def __init__(self, store: Store, embedders: EmbedderPool, rerankers: RerankerPool | None = None) -> None:
        self._store = store
        self._embedders = embedders
        self._vectors = QueryVectors(store, embedders)
        self._reranker = HitReranker(store, rerankers or RerankerPool())
        self._unseen = UnseenObjects(store)

    async def close(self) -> None:
        """Stop what is done in the background. May be called twice."""
        await self._unseen.close()

    async def search(self, search: Search, api_key: str | None = None) -> SearchResult:
        """Return the objects that fit a query best.

        Args:
            search: what to look for.
            api_key: the caller's own key for the embedder's backend; None for this server's.

        Raises:
            CollectionNotFound: there is no such collection.
            RerankerNotFound: this server has no such reranker.
            TenantNotFound: the collection has no such tenant.
            ObjectNotFound: the query names an object that the collection does not have.
            InvalidRequest: a missing or superfluous tenant, an unknown name, a filter or a vector that does not fit, an
                input that cannot be embedded.
            CollectionNotBound: the named vector is bound to no space.
            SpaceMismatch: the named vector is bound to a space that the query cannot come from.
            EmbedderError: the embedder failed, or the reranker, and the hits may not keep their first order.
            StoreUnavailable: the store failed.
        """
        collection = self._embedders.resolve(await self._store.get_collection(search.collection, fresh=False))
        try:
            return await self._search(collection, search, api_key)
        except (CollectionNotFound, VectorRemoved) as error:
            now = self._embedders.resolve(await self._store.get_collection(search.collection))
            if now.name == collection.name and not isinstance(error, VectorRemoved):
                raise
            # What was seen a moment ago has changed: an alias was switched, and its old collection is deleted,
            # or a named vector is removed. Then another one is searched, or the caller hears which there are.
            return await self._search(now, search, api_key)

    async def _search(self, collection: Collection, search: Search, api_key: str | None) -> SearchResult:
        query = search.query
        checked = await self._check(collection, search)
        asked = self._asked(collection, search, checked, api_key)
        found: TargetVectors | Keywords | Blend
        embedders: Sequence[EmbedderSpec] = ()
        if isinstance(query, Keywords):
            found = query
        else:
            found, embedders = await self._embed(asked, search, checked.targets)
            if isinstance(query, Hybrid):
                found = replace(query.blend, targets=found)
        spec = SearchSpec(found, search.limit, search.offset, checked.fields, checked.options, search.scope)
        name = collection.name
        report = None
        if search.reranking is None:
            hits = await self._store.search(name, spec)
        else:
            hits, report = await self._reranker.search(name, spec, search.reranking, api_key)
        if not hits:
            self._unseen.look(name, spec)
        return SearchResult(hits, embedders, report)

    def _asked(self, collection: Collection, search: Search, checked: _Checked, api_key: str | None) -> Asked:
        """Return what is searched and with whose key, which one of embedder and reranker must take.

        Raises:
            InvalidRequest: the reranker does not take the caller's key, and no embedder of the query does.
            RerankerNotFound: this server has no such reranker.
        """
        if api_key is None or search.reranking is None:
            return Asked(collection, search.scope, api_key, own=checked.own)
        reranker, near = self._reranker.find(search.reranking).spec, _near_of(search.query)
        if not reranker.caller_keys and (near is None or not self._vectors.take_keys(checked.targets, near)):
            raise key_refused("reranker", [reranker.name], reranker.name)
        return Asked(collection, search.scope, api_key, reranker.caller_keys, checked.own)

    async def _check(self, collection: Collection, search: Search) -> _Checked:
        """Return what is known of a search before anything is embedded.

        Raises:
            InvalidRequest: something does not fit the collection; all violations are listed.
            RerankerNotFound: this server has no such reranker.
        """
        query, options = search.query, search.options
        near = _near_of(query)
        reranker = None if search.reranking is None else self._reranker.find(search.reranking).spec
        own: OwnVectors = {}
        linked = {} if options.filters is None else await linked_collections(self._store, collection, options.filters)
        with collecting() as violations:
            fields = check_return_fields(collection, search.returned, violations)
            by_vector = not isinstance(query, Hybrid | Keywords)
            options = check_options(collection, options, linked, violations, by_vector=by_vector)
            if search.reranking is not None and reranker is not None:
                check_reranking(collection, search.reranking, reranker, violations)
            if isinstance(query, Keywords):
                check_keywords(collection, query, violations)
            elif isinstance(query, Hybrid) and query.blend.keywords is not None:
                check_keywords(collection, query.blend.keywords, violations, needed=query.blend.alpha != 1)
            with noting(violations):
                targets = self._targets(collection, search)
                # Where none is named, those after the first one are searched only when its embedders do not work.
                searched = targets if search.targets.names else targets[:1]
                if options.certainty is not None:
                    check_certainty(searched, violations)
                if near is not None:
                    own = self._vectors.check_vectors(searched, near, violations)
            if violations and near is not None:
                # The embedder, which otherwise checks texts, is not asked.
                self._vectors.check_texts(near, violations)
        return _Checked(fields, options, targets, own)

    def _targets(self, collection: Collection, search: Search) -> list[NamedVector]:
        """Return the named vectors to search: all that are named, or else the one to search and its substitutes."""
        query = search.query
        if isinstance(query, Keywords):
            return []
        if search.targets.names:
            return named_targets(collection, search.targets.names)
        if isinstance(query, Hybrid) and query.words_only:
            return []
        if len(collection.vectors) == 1:
            return [collection.vectors[0]]
        default = self._embedders.default_vector(collection)
        if isinstance(query, NearObject) or not collection.vectors:
            return [default_target(collection, default)]
        served = [each.spec.space for each in self._embedders.all]
        return targets_of_query(collection, query.near if isinstance(query, Hybrid) else query, served, default)

    async def _embed(
        self, asked: Asked, search: Search, targets: Sequence[NamedVector]
    ) -> tuple[TargetVectors, list[EmbedderSpec]]:
        """Return the query's vectors, and their embedders, each once."""
        query, choice = search.query, search.targets
        made: Sequence[QueryVector] = []
        match query:
            case NearObject(path, id_):
                found = await self._vectors.of_objects(asked, targets, {path: id_})
                made = [QueryVector(each, found[path][each.name], None) for each in targets]
            case Hybrid() if query.words_only:
                # Nothing is embedded, so that words are found while no embedder works.
                return TargetVectors({each.name: NO_VECTOR for each in asked.collection.vectors[:1]}), []
            case Hybrid(near=near) | (Near() as near) if choice.names:
                made = await asyncio.gather(*(self._vectors.make(asked, each, near) for each in targets))
            case Hybrid(near=near) | (Near() as near):
                able = targets if search.options.certainty is None else with_certainty(targets)
                made = [await self._make_first(asked, able, near)]
        weights = dict(zip(choice.names, choice.weights, strict=False))
        vectors = TargetVectors({each.target.name: each.vector for each in made}, choice.join, weights)
        specs = {each.embedder.name: each.embedder for each in made if each.embedder is not None}
        return vectors, list(specs.values())

    async def _make_first(self, asked: Asked, targets: Sequence[NamedVector], near: Near) -> QueryVector:
        """Return the query's vector in the space of the first target whose embedders work."""
        name = asked.collection.name
        for target, other in pairwise(targets):
            try:
                return await self._vectors.make(asked, target, near)
            except CallerKeyRejected:
                raise  # The caller must see this instead of an answer from another embedder.
            except EmbedderError as error:
                log.info("search_target_switched", collection=name, failed=target.name, reason=str(error))
                FAILOVERS.labels(*map(self._embedders.name_for, (target, other))).inc()
        return await self._vectors.make(asked, targets[-1], near)


def _near_of(query: Query) -> Near | None:
    """Return the part of a query that is embedded, if it has one."""
    if isinstance(query, Hybrid):
        return query.near
    return query if isinstance(query, Near) else None
