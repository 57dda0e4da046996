"""Pictures on the web that rows refer to: fetched a few rows ahead, by the service's own fetcher."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from embedders.errors import ImageTooLarge
from service.bulk.loop import BackgroundLoop
from service.bulk.patience import patiently
from service.errors import ImageFault, ImageNotServed, ImageUnreachable, ImageUriNotAllowed
from service.sources.errors import InvalidSource

if TYPE_CHECKING:
    from service.fetching import Fetcher, Origin

AHEAD = 16
"""Rows, and pictures that they refer to, that are fetched before the first of them is read; as many connections has an
origin."""
AHEAD_BYTES = 32 * 1024 * 1024
"""Bytes of the pictures of these rows at which no more are fetched before the first of them is read."""

Fetched = Mapping[str, bytes | ImageFault]
"""Pictures by property, or why there are none."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Web:
    """What may be fetched from the web, and how.

    Attributes:
        origins: from where; of none, every URI is refused.
        max_image_bytes: the most bytes of a picture.
        patience_s: how long to wait for an origin that does not answer.
    """

    origins: "tuple[Origin, ...]"
    max_image_bytes: int
    patience_s: float


@dataclass(frozen=True, slots=True)
class _Ahead(Generic[T]):
    """A row whose pictures are fetched ahead: how many it refers to, and the bytes of those that it has itself."""

    row: T
    fetched: Future[Fetched]
    named: int
    own_bytes: int

    @property
    def held_bytes(self) -> int:
        """The bytes of its pictures that are in memory."""
        found = self.fetched.result().values() if self.fetched.done() else ()
        return self.own_bytes + sum(len(each) for each in found if isinstance(each, bytes))


class Fetching:
    """Fetches pictures. Use it as a context manager; it starts nothing before it is needed."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._open: tuple[BackgroundLoop, Fetcher] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._open is not None:
            loop, fetcher = self._open
            loop.run(_end(fetcher))
            loop.close()

    def ahead(self, rows: Iterable[tuple[T, Mapping[str, str], int]]) -> Iterator[tuple[T, Fetched]]:
        """Yield rows in order with the pictures that they refer to, while those of the next rows are fetched.

        Args:
            rows: each with URIs by property, and the bytes of the pictures that it has itself.

        Raises:
            InvalidSource: the certificates of an origin cannot be read on this machine.
        """
        waiting: deque[_Ahead[T]] = deque()
        for row, uris, own_bytes in rows:
            if not (uris or waiting):
                yield row, {}
                continue
            waiting.append(_Ahead(row, self._start(uris), len(uris), own_bytes))
            while waiting and (_is_enough(waiting) or waiting[0].fetched.done()):
                first = waiting.popleft()
                yield first.row, first.fetched.result()
        while waiting:
            first = waiting.popleft()
            yield first.row, first.fetched.result()

    def _start(self, uris: Mapping[str, str]) -> Future[Fetched]:
        if self._open is None:
            # Loaded where rows refer to the web only: it takes a second.
            from service.fetching import Fetcher  # noqa: PLC0415
            from service.settings import InvalidSettings  # noqa: PLC0415

            self._open = BackgroundLoop(), Fetcher(self._web.origins)
            loop, fetcher = self._open
            try:
                loop.run(fetcher.__aenter__())
            except InvalidSettings as error:
                # Not BulkStopped: Ray takes what a generator raises for a fault of Ray's.
                raise InvalidSource("the web", f"pictures cannot be fetched: {error}") from error
        loop, fetcher = self._open
        return loop.submit(self._fetch(fetcher, uris))

    async def _fetch(self, fetcher: "Fetcher", uris: Mapping[str, str]) -> Fetched:
        found = await asyncio.gather(*(self._fetch_one(fetcher, each) for each in uris.values()))
        return dict(zip(uris, found, strict=True))

    async def _fetch_one(self, fetcher: "Fetcher", uri: str) -> bytes | ImageFault:
        attempt = partial(fetcher.fetch, uri, max_bytes=self._web.max_image_bytes)
        try:
            return await patiently(attempt, ImageUnreachable, self._web.patience_s)
        except (ImageUriNotAllowed, ImageNotServed, ImageTooLarge, ImageUnreachable) as error:
            # Without the frames, which hold what has arrived.
            return error.with_traceback(None)


def _is_enough(waiting: Sequence[_Ahead[T]]) -> bool:
    """Return whether no more is fetched before the first row is read; a row may have many pictures, and large ones."""
    named, held = sum(each.named for each in waiting), sum(each.held_bytes for each in waiting)
    return len(waiting) >= AHEAD or named >= AHEAD or held >= AHEAD_BYTES


async def _end(fetcher: "Fetcher") -> None:
    """Cancel what is being fetched, and close the connections."""
    begun = asyncio.all_tasks() - {asyncio.current_task()}
    for each in begun:
        each.cancel()
    await asyncio.gather(*begun, return_exceptions=True)
    await fetcher.close()
