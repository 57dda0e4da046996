"""Pictures by reference: fetched a few at a time, and counted as long as they are held."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import replace
from time import perf_counter
from typing import Protocol

from embedders.contract import InputLimits
from embedders.errors import ImageTooLarge
from service.core.objects.checks import DraftObject
from service.errors import (
    ImageFault,
    ImageNotServed,
    ImageUnreachable,
    ImageUriNotAllowed,
    InvalidRequest,
    ServiceError,
    Violation,
    rejection,
)
from service.process.holding import hold
from service.process.metrics import FETCH_SECONDS, FETCHED_BYTES, FETCHES

MAX_TOGETHER_BYTES = 128 * 1024 * 1024
"""Bytes of the fetched pictures of one object, of one EmbedInputs call, or of one search."""
PART = 64
"""Pictures that are embedded together: what a NIM takes at once."""
PART_BYTES = 64 * 1024 * 1024
"""Bytes of pictures at which a part is embedded, or what was fetched ahead is read, before more are fetched."""
AT_ONCE = 16
"""Pictures of one part that are fetched at the same time; objects, and pictures, that an import fetches ahead."""

OUTCOMES: dict[type[ImageFault], str] = {
    ImageUriNotAllowed: "not_allowed",
    ImageNotServed: "not_served",
    ImageUnreachable: "unreachable",
    ImageTooLarge: "too_large",
}
"""What the metrics call a fetch that ended so."""
Fetched = bytes | ImageFault
"""A picture, or why there is none."""
_Ahead = deque[tuple[int, asyncio.Task[DraftObject]]]
"""Objects that are fetched ahead: how many pictures each names, and what fetches them."""


class Source(Protocol):
    """Where pictures come from."""

    async def fetch(self, uri: str, *, max_bytes: int, count: Callable[[int], None] | None = None) -> bytes:
        """Return the bytes that a URI leads to.

        Raises:
            ImageFault: there are none.
        """
        ...


class Pictures:
    """Fetches the pictures that calls name.

    Args:
        source: where they come from; without one every URI is refused.
        max_image_bytes: the most bytes of one.
    """

    def __init__(self, source: Source | None = None, *, max_image_bytes: int = InputLimits().max_image_bytes) -> None:
        self._source = source
        self._max_image_bytes = max_image_bytes

    async def fetch(self, uris: Mapping[str, str]) -> dict[str, Fetched]:
        """Return pictures, which count to what the call holds until it ends.

        Args:
            uris: by path in the request.

        Raises:
            Overloaded: the calls of the server hold as much as they may.
        """
        left, add = MAX_TOGETHER_BYTES, hold.get()

        def count(size: int) -> None:
            nonlocal left
            if size > left:
                raise ImageTooLarge(
                    f"the images that are fetched together have more than {MAX_TOGETHER_BYTES} bytes; name fewer of "
                    "them in one call or object"
                )
            add(size)
            left -= size

        return await self._all(uris, count)

    async def in_parts(self, uris: Mapping[str, str]) -> AsyncGenerator[dict[str, Fetched], None]:
        """Yield pictures in parts, each of which is held until the next one is asked for.

        A caller that does not read it to its end closes it, which gives back what the last part held.

        Args:
            uris: by path in the request.

        Raises:
            Overloaded: the calls of the server hold as much as they may.
        """
        add, paths = hold.get(), list(uris)
        part: dict[str, Fetched] = {}
        size = 0
        for start in range(0, len(paths), AT_ONCE):
            part |= await self._all({each: uris[each] for each in paths[start : start + AT_ONCE]}, add)
            size = sum(len(each) for each in part.values() if isinstance(each, bytes))
            if len(part) >= PART or size >= PART_BYTES or start + AT_ONCE >= len(paths):
                try:
                    yield part
                finally:
                    add(-size)
                part = {}

    async def filled(self, drafts: Iterable[DraftObject]) -> AsyncGenerator[DraftObject, None]:
        """Yield objects in order, with the images that they name by URI; a few objects are fetched ahead.

        A caller that does not read it to its end closes it, which ends what is fetched ahead.
        """
        ahead = _Ahead()
        try:
            for draft in drafts:
                if not (draft.references or ahead):
                    yield draft
                    continue
                ahead.append((len(draft.references), asyncio.create_task(self.fill(draft))))
                while _is_enough(ahead):
                    yield await ahead.popleft()[1]
            while ahead:
                yield await ahead.popleft()[1]
        finally:
            for _, task in ahead:
                task.cancel()
            await asyncio.gather(*(task for _, task in ahead), return_exceptions=True)

    async def fill(self, draft: DraftObject) -> DraftObject:
        """Return an object with the images that it names by URI.

        Raises:
            Overloaded: the calls of the server hold as much as they may.
        """
        if not draft.references or draft.faults:
            return draft
        fetched = await self.fetch(draft.references)
        images = {name: each for name, each in fetched.items() if isinstance(each, bytes)}
        faults: list[Violation] = []
        error: ServiceError | None = None
        for name, each in fetched.items():
            if not isinstance(each, bytes):
                found = fault_at(each, f'{draft.path}.images["{name}"].uri')
                if isinstance(found, InvalidRequest):
                    faults += found.violations
                else:
                    error = found
        return replace(
            draft,
            images={**draft.images, **images},
            fetched=sum(map(len, images.values())),
            faults=faults,
            error=None if faults else error,
        )

    async def _all(self, uris: Mapping[str, str], count: Callable[[int], None]) -> dict[str, Fetched]:
        """Return pictures; what is raised ends all fetches."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {path: group.create_task(self._one(uri, count)) for path, uri in uris.items()}
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return {path: task.result() for path, task in tasks.items()}

    async def _one(self, uri: str, count: Callable[[int], None]) -> Fetched:
        start_s = perf_counter()
        found = await self._fetched(uri, count)
        if not isinstance(found, ImageUriNotAllowed):
            # What is refused takes no time, and would hide how slow the origins are.
            FETCH_SECONDS.observe(perf_counter() - start_s)
        if isinstance(found, bytes):
            FETCHES.labels("fetched").inc()
            FETCHED_BYTES.inc(len(found))
        else:
            FETCHES.labels(OUTCOMES[type(found)]).inc()
        return found

    async def _fetched(self, uri: str, count: Callable[[int], None]) -> Fetched:
        if self._source is None:
            return ImageUriNotAllowed(
                "this server fetches no images; send their bytes, or ask its operator to list the origin"
            )
        held = 0

        def note(size: int) -> None:
            nonlocal held
            count(size)
            held += size

        try:
            return await self._source.fetch(uri, max_bytes=self._max_image_bytes, count=note)
        except tuple(OUTCOMES) as error:
            count(-held)
            # Without the frames, which hold what has arrived.
            return error.with_traceback(None)


def _is_enough(ahead: _Ahead) -> bool:
    """Return whether no more is fetched before the first object is read.

    An object may name many pictures, and large ones, so objects alone are no bound. What one raised is raised here.
    """
    named = sum(count for count, _ in ahead)
    unread = sum(task.result().fetched for _, task in ahead if task.done())
    return len(ahead) >= AT_ONCE or named >= AT_ONCE or unread >= PART_BYTES


def fault_at(fault: ImageFault, field: str) -> ServiceError:
    """Return why there is no picture, as the error of the field that names it."""
    match fault:
        case ImageTooLarge():
            return rejection(fault, field)
        case ImageUriNotAllowed():
            return InvalidRequest([Violation(field, str(fault), "IMAGE_URI_NOT_ALLOWED")])
    return type(fault)(f"{field}: {fault}")


NO_PICTURES = Pictures()
"""Fetches nothing."""
