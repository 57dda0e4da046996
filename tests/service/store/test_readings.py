"""What a reading of a schema that callers share leaves behind."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from weakref import ref

import pytest

from service.errors import StoreUnavailable
from service.store.weaviate.collections import WeaviateCollections


class Request:
    """What a caller holds while it waits."""


class Failing:
    """A connection whose calls fail."""

    available = True

    @contextmanager
    def call(self, name: str = "") -> Iterator[None]:
        """Fail."""
        if name:
            raise StoreUnavailable("Weaviate does not answer")
        yield


async def test_a_shared_reading_that_fails_keeps_no_caller_s_request_in_memory() -> None:
    collections = WeaviateCollections(cast("Any", Failing()))
    kept: list[ref[Request]] = []

    async def call() -> None:
        request = Request()
        kept.append(ref(request))
        with pytest.raises(StoreUnavailable):
            await collections.get_collection("Pictures", fresh=False)

    gc.disable()
    try:
        await asyncio.gather(*(call() for _ in range(8)))
        await asyncio.sleep(0)
        assert not [each for each in kept if each() is not None]
    finally:
        gc.enable()
