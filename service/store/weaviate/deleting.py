"""Deleting objects in Weaviate."""

from uuid import UUID

from service.domain import Filter
from service.errors import StoreRejected
from service.store.base import Deletion
from service.store.weaviate.errors import reject
from service.store.weaviate.filters import filter_to_weaviate
from service.store.weaviate.objects import Objects


async def delete_fitting(within: Objects, filters: Filter) -> Deletion:
    """Delete the objects that fit a filter, or as many as Weaviate takes at a time.

    Raises:
        ServiceError: one of them failed for a reason that is not its own, such as a store that takes no writes.
    """
    answer = await within.data.delete_many(filter_to_weaviate(filters), verbose=True)
    failures: dict[UUID, StoreRejected] = {}
    for each in answer.objects:
        if not each.successful:
            rejection = reject(each.error or "it said no reason", within.name)
            if not isinstance(rejection, StoreRejected):
                raise rejection
            failures[UUID(int=each.uuid.int)] = rejection
    return Deletion([UUID(int=each.uuid.int) for each in answer.objects if each.successful], failures)
