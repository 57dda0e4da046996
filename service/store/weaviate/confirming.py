"""Making Weaviate write down what it has acknowledged."""

from collections.abc import Sequence
from uuid import UUID

import structlog
from weaviate.classes.query import Filter
from weaviate.exceptions import WeaviateBaseError

from service.errors import ServiceError, StoreRejected
from service.store.weaviate.errors import reject, translate
from service.store.weaviate.objects import Objects

_log = structlog.get_logger(__name__)


async def confirm(within: Objects, ids: Sequence[UUID]) -> dict[UUID, ServiceError]:
    """Make Weaviate write down the objects of some ids with their index entries, and return why it cannot, by id.

    Weaviate 1.39 answers a batch while the last index entries of it are in its memory, to be written with whatever
    comes next; killed before that, it forgets them. A deletion that only tells what it would delete writes all of them.
    """
    try:
        answer = await within.data.delete_many(Filter.by_id().contains_any(ids), dry_run=True, verbose=True)
    except WeaviateBaseError as error:
        translated = translate(error, within.name)
        if not isinstance(translated, StoreRejected):
            raise
        # Such as a key that may write and not delete.
        _log.warning("index_entries_unconfirmed", collection=within.name, reason=str(translated))
        return {}
    return {
        UUID(int=each.uuid.int): reject(each.error or "it said no reason", within.name)
        for each in answer.objects
        if not each.successful
    }
