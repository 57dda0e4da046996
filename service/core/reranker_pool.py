"""The rerankers of the server: which one reranks, and whose turn it is."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace

import structlog
from opentelemetry.trace import Span, SpanKind
from opentelemetry.util.types import AttributeValue

from embedders.errors import EmbedderOverloaded
from embedders.front.failover import ask_first
from embedders.reranking import RERANK, Passage, RankOutcome, RerankerSpec, WatchedReranker
from embedders.telemetry import tracing
from embedders.telemetry.metrics import RERANKED_PASSAGES, RERANKER_RUNNING, RERANKER_SECONDS, RERANKER_WAITING
from service.access import calling_account
from service.core.backend_pool import CHECK_INTERVAL_S, BackendPool
from service.errors import RerankerNotFound
from service.process.metrics import KEPT_ORDERS, RERANKER_UP

log = structlog.get_logger(__name__)

MAX_WAITING_CALLS = 256
"""Searches that wait for a reranker; their pictures are not read yet. More are refused."""


class RerankerGroup:
    """A reranker as callers name it: one address, or several that stand in for each other.

    Args:
        members: in order of preference; the first one's name is the group's.
    """

    def __init__(self, members: Sequence[WatchedReranker]) -> None:
        self.members = members
        self.waiting = 0
        self.running = 0
        self._room = asyncio.Semaphore(sum(each.spec.slots for each in members))

    @property
    def spec(self) -> RerankerSpec:
        """That of the first member."""
        return self.members[0].spec

    @property
    def fault(self) -> str | None:
        """Why no member works; None if one does."""
        faults = [each.health.fault for each in self.members]
        return None if None in faults else faults[0]

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for room; inside the block a search may hold pictures.

        Raises:
            EmbedderOverloaded: too many searches wait.
        """
        name = self.spec.name
        if self.waiting >= MAX_WAITING_CALLS:
            raise EmbedderOverloaded(f"{self.waiting} searches wait for the reranker {name}, which is the most")
        self.waiting += 1
        RERANKER_WAITING.labels(name).set(self.waiting)
        try:
            await self._room.acquire()
        finally:
            self.waiting -= 1
            RERANKER_WAITING.labels(name).set(self.waiting)
        self.running += 1
        RERANKER_RUNNING.labels(name).set(self.running)
        try:
            yield
        finally:
            self.running -= 1
            RERANKER_RUNNING.labels(name).set(self.running)
            self._room.release()


class RerankerPool(BackendPool[WatchedReranker]):
    """The server's rerankers by name.

    Args:
        groups: those that stand in for each other, in order of preference.
        check_interval_s: seconds between checks of a reranker that had no successful call meanwhile.
    """

    def __init__(
        self, groups: Sequence[Sequence[WatchedReranker]] = (), *, check_interval_s: float = CHECK_INTERVAL_S
    ) -> None:
        super().__init__([member for group in groups for member in group], check_interval_s=check_interval_s)
        self._groups = {group[0].spec.name: RerankerGroup(group) for group in groups}

    async def start(self) -> None:
        """Start and check all rerankers in the background: searches without them need not wait."""
        self._monitors = [
            asyncio.create_task(self._begin(member), name=f"checks-{member.spec.name}") for member in self._members
        ]

    async def _begin(self, member: WatchedReranker) -> None:
        await member.start()
        await self._check(member)
        await self._check_forever(member)

    def get(self, name: str) -> RerankerGroup:
        """Return the reranker of a name.

        Raises:
            RerankerNotFound: there is none.
        """
        if (found := self._groups.get(name)) is None:
            has = f"this server has: {', '.join(self._groups)}" if self._groups else "this server has none"
            raise RerankerNotFound(name, has)
        return found

    @property
    def groups(self) -> Sequence[RerankerGroup]:
        """All rerankers as callers name them."""
        return list(self._groups.values())

    async def rerank(
        self, group: RerankerGroup, query: str, passages: Sequence[Passage], api_key: str | None
    ) -> tuple[WatchedReranker, list[RankOutcome]]:
        """Score passages with the first member that works; see embedders.front.failover.

        Args:
            group: which reranker.
            query: what to compare the passages with.
            passages: at least one.
            api_key: the caller's own key; it is sent to a reranker that takes callers' keys only. Where this one does
                not, an embedder of the search does.

        Raises:
            EmbedderError: as Reranker.rerank.
        """

        async def ask(member: WatchedReranker) -> list[RankOutcome]:
            return await self._rerank(member, query, passages, api_key if member.spec.caller_keys else None)

        own_key = api_key is not None and group.spec.caller_keys
        async with calling_account.get().embedding(len(passages)):
            return await ask_first(group.members, ask, own_key=own_key, tell_last=True)

    async def _rerank(
        self, member: WatchedReranker, query: str, passages: Sequence[Passage], api_key: str | None
    ) -> list[RankOutcome]:
        name, began_s = member.spec.name, time.perf_counter()
        scored = rejected = 0
        try:
            with _span(member.spec, len(passages)):
                outcomes = await member.rerank(query, passages, replace(RERANK, api_key=api_key))
            scored = sum(isinstance(each, float) for each in outcomes)
            rejected = len(outcomes) - scored
            return outcomes
        finally:
            RERANKER_SECONDS.labels(name).observe(time.perf_counter() - began_s)
            for outcome, count in (
                ("scored", scored),
                ("rejected", rejected),
                ("failed", len(passages) - scored - rejected),
            ):
                RERANKED_PASSAGES.labels(name, outcome).inc(count)
            self._report(member)

    def _note(self, member: WatchedReranker, fault: str | None) -> None:
        spec = member.spec
        RERANKER_UP.labels(spec.name).set(fault is None)
        KEPT_ORDERS.labels(spec.name)
        if fault is None:
            log.info("reranker_ready", reranker=spec.name, model=spec.model)
        else:
            log.warning("reranker_unavailable", reranker=spec.name, fault=fault)


def _span(spec: RerankerSpec, passages: int) -> AbstractContextManager[Span]:
    """Return a span for the work of a reranker for one call."""
    if not tracing.active():
        return tracing.NOTHING
    attributes: dict[str, AttributeValue] = {
        "gen_ai.operation.name": "rerank",
        "gen_ai.provider.name": spec.name,
        "gen_ai.request.model": spec.model,
        "vecgate.passages": passages,
    }
    return tracing.span(f"rerank {spec.model}", attributes, kind=SpanKind.CLIENT)
