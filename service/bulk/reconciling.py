"""The end of a run: whether what the ledger says is what Weaviate has."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from uuid import UUID

from service.bulk.ledger import Totals
from service.bulk.patience import patiently
from service.bulk.stages import Target
from service.core.objects.writing import IndexEntries
from service.domain import Collection, ReturnFields, Scope
from service.errors import StoreUnavailable, TenantNotFound
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
        lacking: the fragments of those that are not there.
    """

    before: int
    counted: int
    sampled: int
    absent: int
    mended: int
    unfound: int
    lacking: frozenset[str] = frozenset()

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
        in_files: rows of the Parquet files, by fragment; None if there are none.
    """

    fragments: int
    totals: Totals
    collection: InCollection | None
    in_files: Counter[str] | None

    @property
    def faults(self) -> list[str]:
        """What does not fit, in words with numbers; nothing if all does."""
        found = []
        if (absent := self.fragments - self.totals.fragments) > 0:
            found.append(f"{absent} of {self.fragments} fragments have no entry; repeat the command")
        if self.collection is not None:
            found += self.collection.faults(self.totals)
        if self.in_files is not None and self.in_files != Counter(self.totals.stored):
            found.append(f"the Parquet files have {self.in_files.total()} rows, and {self.totals.kept} are expected")
        if lacking := len(self.lacking):
            found.append(f"the same command does {lacking} of {self.fragments} fragments again; repeat it")
        return found

    @property
    def lacking(self) -> set[str]:
        """The fragments that are in the ledger, and of which rows or objects are missing, or there are too many."""
        found = set() if self.collection is None else set(self.collection.lacking)
        if self.in_files is not None:
            found |= {name for name, count in self.totals.stored.items() if self.in_files[name] != count}
        return found & self.totals.stored.keys()


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


async def look_into(store: Store, target: Target, before: int, ids: Iterable[tuple[UUID, str]]) -> InCollection:
    """Count the objects of a collection, search some by their own vectors, and mend what Weaviate lost.

    Waits for a store that does not answer, as long as the target's patience lasts.

    Args:
        store: where the collection is.
        target: the collection.
        before: objects that the collection had before the first run.
        ids: the objects to look for, each with its fragment, which are read as they are needed.

    Raises:
        LedgerFailed: ids cannot be read.
        StoreUnavailable: the store does not answer.
    """
    found = InCollection(before, 0, 0, 0, 0, 0)
    left = iter(ids)
    # Reading them may wait for an object store.
    while some := await asyncio.to_thread(lambda: dict(islice(left, AT_ONCE))):
        look = partial(_look_for, store, target, set(some))
        absent, mended, unfound = await patiently(look, StoreUnavailable, target.patience_s)
        found = replace(
            found,
            sampled=found.sampled + len(some),
            absent=found.absent + len(absent),
            mended=found.mended + mended,
            unfound=found.unfound + unfound,
            lacking=found.lacking | {some[each] for each in absent},
        )
    count = partial(count_objects, store, target.collection, target.scope)
    return replace(found, counted=await patiently(count, StoreUnavailable, target.patience_s))


async def _look_for(store: Store, target: Target, ids: set[UUID]) -> tuple[set[UUID], int, int]:
    """Return which of some objects are absent, how many were mended, and how many are not found.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    collection, scope, entries = target.collection, target.scope, IndexEntries(store)
    vectors = [each for each in collection.bound_part.vectors if not each.multi]
    fields = ReturnFields(vectors=[each.name for each in vectors])
    mended = unfound = 0
    there = await store.get_objects(collection.name, list(ids), fields, scope)
    for vector in vectors:
        having = {id_: each.vectors[vector.name] for id_, each in there.items() if vector.name in each.vectors}
        mending = await entries.mend(collection.name, vector, having, scope)
        for failure in mending.failures.values():
            if isinstance(failure, StoreUnavailable):
                raise failure
        mended += len(mending.found)
        unfound += len(mending.unseen) + len(mending.failures) + len(mending.gone)
    return ids - there.keys(), mended, unfound
