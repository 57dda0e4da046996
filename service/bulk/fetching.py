"""Pictures on the web that rows refer to: fetched a few rows ahead, by the service's own fetcher."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from embedders.errors import ImageTooLarge
from service.bulk.loop import BackgroundLoop
from service.bulk.patience import BulkStopped, patiently
from service.errors import ImageNotServed, ImageUnreachable, ImageUriNotAllowed

if TYPE_CHECKING:
    from service.fetching import Fetcher, Origin

AHEAD_ROWS = 16
"""Rows whose pictures are fetched before they are read; as many connections has an origin."""

Fault = ImageUriNotAllowed | ImageNotServed | ImageTooLarge | ImageUnreachable
Fetched = Mapping[str, bytes | Fault]
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


NOTHING = Web((), 0, 0.0)
"""Every URI is refused."""


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

    def ahead(self, rows: Iterable[tuple[T, Mapping[str, str]]]) -> Iterator[tuple[T, Fetched]]:
        """Yield rows in order with the pictures that they refer to, while those of the next rows are fetched.

        Args:
            rows: each with URIs by property.

        Raises:
            BulkStopped: the certificates of an origin cannot be read on this machine.
        """
        waiting: deque[tuple[T, Future[Fetched]]] = deque()
        for row, uris in rows:
            if not (uris or waiting):
                yield row, {}
                continue
            waiting.append((row, self._start(uris)))
            while waiting and (len(waiting) > AHEAD_ROWS or waiting[0][1].done()):
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()

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
                raise BulkStopped(f"pictures cannot be fetched: {error}") from error
        loop, fetcher = self._open
        return loop.submit(self._fetch(fetcher, uris))

    async def _fetch(self, fetcher: "Fetcher", uris: Mapping[str, str]) -> Fetched:
        found = await asyncio.gather(*(self._fetch_one(fetcher, each) for each in uris.values()))
        return dict(zip(uris, found, strict=True))

    async def _fetch_one(self, fetcher: "Fetcher", uri: str) -> bytes | Fault:
        attempt = partial(fetcher.fetch, uri, max_bytes=self._web.max_image_bytes)
        try:
            return await patiently(attempt, ImageUnreachable, self._web.patience_s)
        except (ImageUriNotAllowed, ImageNotServed, ImageTooLarge, ImageUnreachable) as error:
            # Without the frames, which hold what has arrived.
            return error.with_traceback(None)


async def _end(fetcher: "Fetcher") -> None:
    """Cancel what is being fetched, and close the connections."""
    begun = asyncio.all_tasks() - {asyncio.current_task()}
    for each in begun:
        each.cancel()
    await asyncio.gather(*begun, return_exceptions=True)
    await fetcher.close()
