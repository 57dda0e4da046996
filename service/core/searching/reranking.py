"""The hits of a search in a new order, by a reranker of this server."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import structlog

from embedders.contract import Modality
from embedders.errors import CallerKeyRejected, EmbedderError, EmbedderUnavailable, InputRejected
from embedders.reranking import Passage, RankOutcome, RerankerSpec
from embedders.telemetry.timing import call_times, sooner
from service.core.reranker_pool import RerankerGroup, RerankerPool
from service.domain import (
    TEXTS,
    Collection,
    DataType,
    Hit,
    Reranking,
    ReturnFields,
    SearchSpec,
    some_of,
    unknown_property,
)
from service.errors import Violations, rejection
from service.process.metrics import KEPT_ORDERS
from service.store.base import Store

MAX_PICTURES_BYTES = 32 * 1024 * 1024
"""Bytes of the pictures that one call reranks. What a reranker works on at the same time lies in memory."""
PICTURES_AT_ONCE = 4
"""Pictures that are read from the store at the same time, each by its own call: they may have any size."""
KEPT_SHARE, MAX_KEPT_S = 0.25, 2.0
"""The share of the caller's time, and the most seconds, that are left for the response if the first order may stand."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RerankReport:
    """What a reranker did.

    Attributes:
        reranker: the one that answered; after a failure the one that was asked first.
        scored: hits that have a score.
        error: why the hits keep their first order; None if they are reranked.
    """

    reranker: RerankerSpec
    scored: int = 0
    error: EmbedderError | None = None


def check_reranking(collection: Collection, reranking: Reranking, spec: RerankerSpec, violations: Violations) -> None:
    """Note what of a reranking does not fit the collection or the reranker."""
    size, most = len(reranking.query.encode(errors="replace")), spec.limits.max_text_bytes
    if size > most:
        message = f"has {size} bytes; the reranker {spec.name!r} takes at most {most}; send a shorter text"
        violations.add("rerank.query", message, "TEXT_TOO_LONG")
    for name, path, types, kind in (
        (reranking.property, "rerank.property", TEXTS, "text"),
        (reranking.image_property, "rerank.image_property", frozenset({DataType.BLOB}), "blob"),
    ):
        found = collection.find_property(name)
        fitting = [each.name for each in collection.properties if each.data_type in types]
        if name and found is None:
            violations.append(unknown_property(collection, path, fitting, kind))
        elif found is not None and found.data_type not in types:
            hashed = found.data_type is DataType.BLOB_HASH
            fault = "keeps only the hashes of images" if hashed and kind == "blob" else f"is no {kind}"
            violations.add(path, f"{fault}; choose among: {some_of(fitting)}", "INVALID_PROPERTY")
    if reranking.image_property and Modality.IMAGE not in spec.modalities:
        message = f"the model {spec.model} of reranker {spec.name!r} reads no images; leave this out"
        violations.add("rerank.image_property", message)


@dataclass(frozen=True, slots=True)
class _Job:
    """One search whose hits are reranked: where, what with the caller's offset, limit and fields, and how."""

    collection: str
    spec: SearchSpec
    reranking: Reranking
    group: RerankerGroup
    api_key: str | None


class HitReranker:
    """Searches a store and lets a reranker sort the first hits.

    Args:
        store: where to search.
        rerankers: those of the server.
    """

    def __init__(self, store: Store, rerankers: RerankerPool) -> None:
        self._store = store
        self._rerankers = rerankers

    def find(self, reranking: Reranking) -> RerankerGroup:
        """Return the reranker that is asked for.

        Raises:
            RerankerNotFound: the server has none of that name.
        """
        return self._rerankers.get(reranking.reranker)

    async def search(
        self, collection: str, spec: SearchSpec, reranking: Reranking, api_key: str | None
    ) -> tuple[list[Hit], RerankReport]:
        """Return the hits of a search, the first ones sorted by a reranker, and what that did.

        Only then are offset and limit applied, and images and vectors of the remaining hits read.

        Args:
            collection: where to search.
            spec: what to find, with the caller's offset, limit and fields.
            reranking: how to sort it.
            api_key: the caller's own key; None for this server's.

        Raises:
            InvalidRequest: the reranker rejects the query or pictures.
            EmbedderError: the reranker failed, and the first order may not stand.
            StoreUnavailable: the store failed.
        """
        job = _Job(collection, spec, reranking, self.find(reranking), api_key)
        end, returned = spec.offset + spec.limit, spec.fields
        texts = [name for name in (reranking.property,) if name and name not in returned.properties]
        fields = replace(returned, properties=[*returned.properties, *texts], images=(), vectors=())
        wide = replace(spec, limit=max(end, reranking.first), offset=0, fields=fields)
        hits = await self._store.search(collection, wide)
        head = hits[: reranking.first]
        scores, report = await self._scores_or_none(job, head)
        kept = [*_sorted(head, scores), *hits[reranking.first :]][spec.offset : end]
        return await self._as_asked(job, kept, texts), report

    async def _scores_or_none(self, job: _Job, head: Sequence[Hit]) -> tuple[dict[UUID, float], RerankReport]:
        """Return the scores of hits by object; none if the reranker fails and their order may stand."""
        name = job.group.spec.name
        try:
            if job.reranking.keep_order and (times := call_times()) is not None:
                left_s = times.deadline_s - time.monotonic()
                return await self._scores_within(left_s - min(KEPT_SHARE * left_s, MAX_KEPT_S), job, head)
            return await self._scores(job, head)
        except EmbedderError as error:
            named = _named(error, name)
            if not job.reranking.keep_order or isinstance(error, CallerKeyRejected):
                raise named from error
            log.warning("rerank_failed", reranker=name, reason=str(error))
            KEPT_ORDERS.labels(name).inc()
            return {}, RerankReport(job.group.spec, error=named)

    async def _scores_within(
        self, share_s: float, job: _Job, head: Sequence[Hit]
    ) -> tuple[dict[UUID, float], RerankReport]:
        try:
            with sooner(time.monotonic() + share_s):
                async with asyncio.timeout(share_s):
                    return await self._scores(job, head)
        except TimeoutError as error:
            raise EmbedderUnavailable(f"it did not answer within {share_s:.1f} s, its share of the time") from error

    async def _scores(self, job: _Job, head: Sequence[Hit]) -> tuple[dict[UUID, float], RerankReport]:
        group, reranking = job.group, job.reranking
        texts = {hit.object.id: _text_of(hit, reranking.property) for hit in head}
        async with group.turn():
            pictures: Mapping[UUID, bytes] = dict.fromkeys(texts, b"")
            if reranking.image_property:
                pictures = await self._pictures(job, list(texts))
            # An object whose picture has no room is not judged by its text alone.
            passages = {id_: Passage(texts[id_], content) for id_, content in pictures.items() if texts[id_] or content}
            if not passages:
                return {}, RerankReport(group.spec)
            reranker, outcomes = await self._ask(job, list(passages.values()))
        scores = {id_: each for id_, each in zip(passages, outcomes, strict=True) if isinstance(each, float)}
        return scores, RerankReport(reranker, len(scores))

    async def _ask(self, job: _Job, passages: Sequence[Passage]) -> tuple[RerankerSpec, list[RankOutcome]]:
        group, reranking = job.group, job.reranking
        try:
            reranker, outcomes = await self._rerankers.rerank(group, reranking.query, passages, job.api_key)
        except InputRejected as error:
            pictures = reranking.image_property and Modality.IMAGE not in group.spec.modalities
            raise rejection(error, "rerank.image_property" if pictures else "rerank.query") from error
        return reranker.spec, outcomes

    async def _pictures(self, job: _Job, ids: Sequence[UUID]) -> dict[UUID, bytes]:
        """Return the pictures of the first objects, as far as they have room; an empty one for an object without."""
        pictures: dict[UUID, bytes] = {}
        property_, size = job.reranking.image_property, 0
        fields = ReturnFields(images=[property_])
        for start in range(0, len(ids), PICTURES_AT_ONCE):
            some = ids[start : start + PICTURES_AT_ONCE]
            read = (self._store.get_objects(job.collection, [id_], fields, job.spec.scope) for id_ in some)
            found = {id_: each for objects in await asyncio.gather(*read) for id_, each in objects.items()}
            for id_ in some:
                content = found[id_].images.get(property_, b"") if id_ in found else b""
                size += len(content)
                if size > MAX_PICTURES_BYTES:
                    return pictures
                pictures[id_] = content
        return pictures

    async def _as_asked(self, job: _Job, hits: Sequence[Hit], superfluous: Sequence[str]) -> list[Hit]:
        """Return hits with the images and vectors that the caller wants, and without what only the reranker read."""
        images, vectors = job.spec.fields.images, job.spec.fields.vectors
        more = {}
        if (images or vectors) and hits:
            fields = ReturnFields(images=images, vectors=vectors)
            more = await self._store.get_objects(
                job.collection, [hit.object.id for hit in hits], fields, job.spec.scope
            )
            # What was deleted meanwhile is no hit any more.
            hits = [hit for hit in hits if hit.object.id in more]
        shown = []
        for hit in hits:
            properties = {name: value for name, value in hit.object.properties.items() if name not in superfluous}
            object_ = replace(hit.object, properties=properties)
            if (rest := more.get(object_.id)) is not None:
                object_ = replace(object_, images=rest.images, vectors=rest.vectors)
            shown.append(replace(hit, object=object_))
        return shown


def _text_of(hit: Hit, property_: str) -> str:
    """Return the text that the reranker reads of a hit; the items of a list as lines."""
    value = hit.object.properties.get(property_) if property_ else None
    if isinstance(value, list):
        value = "\n".join(str(each) for each in value)
    return value if isinstance(value, str) else ""


def _sorted(hits: Sequence[Hit], scores: Mapping[UUID, float]) -> list[Hit]:
    """Return hits by their scores; equal ones, and behind them those without, in their order."""
    scored = [replace(hit, rerank_score=scores[hit.object.id]) for hit in hits if hit.object.id in scores]
    others = [hit for hit in hits if hit.object.id not in scores]
    return [*sorted(scored, key=lambda hit: -(hit.rerank_score or 0.0)), *others]


def _named(error: EmbedderError, name: str) -> EmbedderError:
    """Return a copy of an error that says which reranker it is about."""
    named = error.for_caller()
    named.args = (f"reranker {name!r}: {error}",)
    return named
