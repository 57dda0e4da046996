"""Vectors that are entered into an index again while Weaviate stores objects and then says that it refuses them."""

from uuid import UUID

import numpy as np
import pytest

from embedders.contract import Vector
from service.domain import ObjectChange, ReturnFields, Scope, StoredObject
from service.errors import ServiceError, StoreRejected, StoreUnavailable
from service.settings import WeaviateSettings
from service.store.base import NO_TENANT
from service.store.weaviate import WeaviateStore
from service.store.weaviate.objects import nudge
from tests.conftest import assert_close
from tests.service.store.store_suite import make_vector

ONE = UUID(int=1)
OWN = make_vector(0.1, -2, 0.3)
NO_ENTRYPOINT = StoreRejected("update vector index for target vector other: no valid entrypoint available")


class Failing(WeaviateStore):
    """Stores each vector that it is given, or not, and then fails as often as it is told to.

    Attributes:
        stored: the vector of the only object.
        written: how many vectors were given.
    """

    def __init__(self, *errors: ServiceError | None, stores: bool = True) -> None:
        super().__init__(WeaviateSettings())
        self.stored, self.written = OWN, 0
        self._errors, self._stores = list(errors), stores

    async def get_object(
        self,
        collection: str,  # noqa: ARG002
        id_: UUID,
        fields: ReturnFields | None = None,  # noqa: ARG002
        scope: Scope = NO_TENANT,  # noqa: ARG002
    ) -> StoredObject:
        return StoredObject(id_, {}, {}, {"main": self.stored})

    async def update_object(
        self,
        collection: str,  # noqa: ARG002
        change: ObjectChange,
        scope: Scope = NO_TENANT,  # noqa: ARG002
    ) -> None:
        error = self._errors.pop(0)
        self.written += 1
        if error is None or self._stores:
            self.stored = change.vectors["main"]
        if error is not None:
            raise error


def same_bits(one: Vector, other: Vector) -> bool:
    return bool(np.array_equal(one, other))


@pytest.mark.parametrize("error", [NO_ENTRYPOINT, StoreUnavailable("Weaviate has no room: not enough memory")])
async def test_a_vector_has_its_own_bits_although_the_first_write_stored_another_one_and_failed(
    error: ServiceError,
) -> None:
    store = Failing(error, None)

    await store.reindex_vector("Pictures", ONE, "main", OWN)

    assert same_bits(store.stored, OWN)
    assert store.written == 2


async def test_a_refusal_that_stores_nothing_is_said_and_nothing_more_is_written() -> None:
    store = Failing(NO_ENTRYPOINT, stores=False)

    with pytest.raises(StoreRejected, match="no valid entrypoint"):
        await store.reindex_vector("Pictures", ONE, "main", OWN)

    assert same_bits(store.stored, OWN)
    assert store.written == 1


async def test_a_last_write_that_stores_nothing_is_said_and_leaves_a_vector_a_smallest_step_away() -> None:
    store = Failing(None, NO_ENTRYPOINT, stores=False)

    with pytest.raises(StoreRejected, match="no valid entrypoint"):
        await store.reindex_vector("Pictures", ONE, "main", OWN)

    assert same_bits(store.stored, nudge(OWN))
    assert not same_bits(store.stored, OWN)
    assert_close(store.stored, OWN)


async def test_a_last_write_that_fails_is_said() -> None:
    store = Failing(None, NO_ENTRYPOINT)

    with pytest.raises(StoreRejected, match="no valid entrypoint"):
        await store.reindex_vector("Pictures", ONE, "main", OWN)

    assert same_bits(store.stored, OWN)
