"""A collection of pictures whose objects lack vectors."""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest

from service.domain import NamedVector, StoredObject, WeightedField
from tests.service.conftest import Wire

COUNT = 7
"""Objects in the collection."""

Make = Callable[[int], StoredObject]


@pytest.fixture
def make() -> Make:
    """Return what makes an object of a number, but for its vector."""
    return lambda number: StoredObject(UUID(int=number), {}, {}, {})


@pytest.fixture
async def pictures(wire: Wire, make: Make) -> Wire:
    """Return a server with seven objects; those of even numbers have no vector, and none has the vector `late`."""
    await wire.create_pictures()
    collection = await wire.store.get_collection("Pictures")
    (default,) = collection.vectors
    late = NamedVector("late", default.space, (), (WeightedField("title"),))
    wire.store._collections["Pictures"] = replace(collection, vectors=(default, late))
    objects = [
        replace(make(number), vectors={"default": wire.embedder.vector("old")} if number % 2 else {})
        for number in range(COUNT)
    ]
    assert await wire.store.put_objects("Pictures", objects) == [None] * COUNT
    wire.embedder.calls.clear()
    return wire
