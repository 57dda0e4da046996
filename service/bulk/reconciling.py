"""The end of a run: whether what the ledger says is what Weaviate has."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from service.bulk.ledger import Totals
from service.bulk.stages import Target
from service.core.objects.writing import IndexEntries
from service.domain import ReturnFields
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
        sampled: objects that were looked for.
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
        stored = totals.distinct + totals.outdated
        least, most = max(self.before, stored), self.before + stored
        if not least <= self.counted <= most:
            expected = f"{most}" if least == most else f"{least} to {most}"
            yield (
                f"the collection has {self.counted} objects, and {expected} are expected: {self.before} that it had "
                f"before the first run, {totals.distinct} of this input, and {totals.outdated} of earlier versions of "
                "its files"
            )
        if self.absent:
            yield f"of {self.sampled} objects that were looked for, {self.absent} are not there"
        if self.unfound:
            yield f"of {self.sampled} objects that were looked for, {self.unfound} are not found by their vectors"


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What the ledger says, and what the outputs have.

    Attributes:
        totals: of the ledger.
        collection: None if objects go to Parquet alone.
        in_files: rows of the Parquet files; None if there are none.
    """

    totals: Totals
    collection: InCollection | None
    in_files: int | None

    @property
    def faults(self) -> list[str]:
        """What does not fit, in words with numbers; nothing if all does."""
        found = [] if self.collection is None else list(self.collection.faults(self.totals))
        if self.in_files is not None and self.in_files != self.totals.kept:
            found.append(f"the Parquet files have {self.in_files} rows, and {self.totals.kept} are expected")
        return found


async def look_into(store: Store, target: Target, before: int, ids: Sequence[UUID]) -> InCollection:
    """Count the objects of a collection, search some by their own vectors, and mend what Weaviate lost.

    Args:
        store: where the collection is.
        target: the collection.
        before: objects that the collection had before the first run.
        ids: the objects to look for.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    collection, scope, entries = target.collection, target.scope, IndexEntries(store)
    vectors = [each for each in collection.bound_part.vectors if not each.multi]
    fields = ReturnFields(vectors=[each.name for each in vectors])
    absent = mended = unfound = 0
    for start in range(0, len(ids), AT_ONCE):
        some = ids[start : start + AT_ONCE]
        found = await store.get_objects(collection.name, some, fields, scope)
        absent += len(set(some)) - len(found)
        for vector in vectors:
            having = {id_: each.vectors[vector.name] for id_, each in found.items() if vector.name in each.vectors}
            mending = await entries.mend(collection.name, vector, having, scope)
            mended += len(mending.found)
            unfound += len(mending.unseen) + len(mending.failures) + len(mending.gone)
    counted = await store.count_objects(collection.name, scope)
    return InCollection(before, counted, len(set(ids)), absent, mended, unfound)
