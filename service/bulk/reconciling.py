"""The end of a run: whether what the ledger says is what Weaviate has."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

from service.bulk.ledger import Totals
from service.bulk.stages import Target
from service.core.objects.writing import IndexEntries
from service.domain import Collection, ReturnFields, Scope
from service.errors import TenantNotFound
from service.store.base import Store

SAMPLE = 200
"""Objects that are searched by their own vectors."""
AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class InCollection:
    """What Weaviate has.

    Attributes:
        before: objects that the collection had before the first run.
        counted: objects that it has now.
        sampled: objects that were looked for; one of several rows may count more than once.
        absent: those of them that are not there.
        mended: those that are there, and were found by their vectors only once they were entered into the index again.
        unfound: those that are there, and are not found by their own vectors.
    """

    before: int
    counted: int
    sampled: int
    absent: int
    mended: int
    unfound: int

    def faults(self, totals: Totals) -> Iterator[str]:
        """Yield what does not fit the ledger, in words with numbers."""
        least = max(self.before, totals.distinct + totals.outdated)
        if self.counted < least:
            yield (
                f"the collection has {self.counted} objects, and at least {least} are expected: it had {self.before} "
                f"before the first run, {totals.distinct} are of this input, and {totals.outdated} of earlier versions "
                "of its files"
            )
        if self.absent:
            yield f"of {self.sampled} objects that were looked for, {self.absent} are not there"
        if self.unfound:
            yield f"of {self.sampled} objects that were looked for, {self.unfound} are not found by their vectors"


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What the ledger says, and what the outputs have.

    Attributes:
        fragments: how many the input has.
        totals: of the ledger.
        collection: None if objects go to Parquet alone.
        in_files: rows of the Parquet files; None if there are none.
    """

    fragments: int
    totals: Totals
    collection: InCollection | None
    in_files: int | None

    @property
    def faults(self) -> list[str]:
        """What does not fit, in words with numbers; nothing if all does."""
        found = []
        if (absent := self.fragments - self.totals.fragments) > 0:
            found.append(f"{absent} of {self.fragments} fragments have no entry; repeat the command")
        if self.collection is not None:
            found += self.collection.faults(self.totals)
        if self.in_files is not None and self.in_files != self.totals.kept:
            found.append(f"the Parquet files have {self.in_files} rows, and {self.totals.kept} are expected")
        return found


async def count_objects(store: Store, collection: Collection, scope: Scope) -> int:
    """Return how many objects a collection has; 0 for a tenant that the first write creates.

    Raises:
        ServiceError: the store does not answer, or there is no such tenant.
    """
    try:
        return await store.count_objects(collection.name, scope)
    except TenantNotFound:
        if not collection.creates_tenants:
            raise
        return 0


async def look_into(store: Store, target: Target, before: int, ids: Iterable[UUID]) -> InCollection:
    """Count the objects of a collection, search some by their own vectors, and mend what Weaviate lost.

    Args:
        store: where the collection is.
        target: the collection.
        before: objects that the collection had before the first run.
        ids: the objects to look for, which are read as they are needed.

    Raises:
        LedgerFailed: ids cannot be read.
        StoreUnavailable: the store does not answer.
    """
    collection, scope, entries = target.collection, target.scope, IndexEntries(store)
    vectors = [each for each in collection.bound_part.vectors if not each.multi]
    fields = ReturnFields(vectors=[each.name for each in vectors])
    sampled = absent = mended = unfound = 0
    left = iter(ids)
    # Reading them may wait for an object store.
    while some := await asyncio.to_thread(lambda: set(islice(left, AT_ONCE))):
        found = await store.get_objects(collection.name, list(some), fields, scope)
        sampled += len(some)
        absent += len(some) - len(found)
        for vector in vectors:
            having = {id_: each.vectors[vector.name] for id_, each in found.items() if vector.name in each.vectors}
            mending = await entries.mend(collection.name, vector, having, scope)
            mended += len(mending.found)
            unfound += len(mending.unseen) + len(mending.failures) + len(mending.gone)
    counted = await count_objects(store, collection, scope)
    return InCollection(before, counted, sampled, absent, mended, unfound)
