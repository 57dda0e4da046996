"""What an import is told on the command line, and its journal."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from service.cli.journal import InvalidJournal, Journal
from service.cli.likeness import image_vector, measure_threshold
from service.cli.output import EXIT_WRONG_USE, fail, note
from vecgate.client import Client, VecgateError, where
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import filter_pb2 as filter_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb

LOOKED_FOR_AT_ONCE = 100
"""Objects that are looked for in one call."""

SMALL = (
    property_pb.DATA_TYPE_BOOLEAN,
    property_pb.DATA_TYPE_INT,
    property_pb.DATA_TYPE_NUMBER,
    property_pb.DATA_TYPE_DATE,
    property_pb.DATA_TYPE_UUID,
    property_pb.DATA_TYPE_TEXT,
)
"""Types of properties that are quick to read, the smallest first."""


class Duplicates(Enum):
    """What to do with pictures that duplicate others."""

    SKIP = "skip"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class Import:
    """The options of an import.

    Attributes:
        collection: the collection's name.
        text_fields: columns to embed, used when the collection is created.
        embedder: the embedder's name, used when the collection is created; empty for the default one.
        truncate: whether to cut texts that are longer than the model reads.
        limit: how many pictures or rows to import; None for all.
        resume: the journal's file; None for none.
        tenant: whose objects they are.
        dry_run: whether to say what would be imported instead.
        duplicates: what to do with pictures that duplicate others; None to store all without looking.
        threshold: the least cosine of near-duplicates; None to measure it.
    """

    collection: str
    text_fields: Sequence[pb.WeightedField] = ()
    embedder: str = ""
    truncate: bool = False
    limit: int | None = None
    resume: Path | None = None
    tenant: str = ""
    dry_run: bool = False
    duplicates: Duplicates | None = None
    threshold: float | None = None

    @contextmanager
    def journal(self) -> Iterator[Journal | None]:
        """Yield the journal, if there is one; end the command if its file is something else."""
        if self.resume is None or self.dry_run:
            yield None
            return
        try:
            journal = Journal(self.resume, self.collection, self.tenant)
        except InvalidJournal as error:
            fail(str(error), EXIT_WRONG_USE)
        with journal:
            yield journal

    def duplicate_check(self, client: Client, pictures: Iterable[bytes]) -> object_pb.DuplicateCheck | None:
        """Return what the server does with duplicates; without a threshold it is measured with some pictures.

        Raises:
            VecgateError: a call failed.
        """
        if self.duplicates is None:
            return None
        vector = image_vector(client.get_collection(self.collection))
        threshold = measure_threshold(client, vector, pictures) if self.threshold is None else self.threshold
        wanted = object_pb.DuplicateAction.Value(f"DUPLICATE_ACTION_{self.duplicates.name}")
        return object_pb.DuplicateCheck(action=wanted, min_cosine=threshold, target_vector=vector.name)

    def begin(self, journal: Journal | None, client: Client) -> None:
        """Let the journal forget what the collection does not have, and say so.

        Raises:
            VecgateError: a call failed.
        """
        noted = [] if journal is None else journal.stored()
        if journal is None or not noted:
            return
        collection = client.get_collection(self.collection)
        with_tenants = collection.multi_tenancy.enabled
        note(f"looking for {len(noted)} objects that {self.resume} lists")
        of_tenants = defaultdict[str, list[str]](list)
        for id_, tenant in noted:
            of_tenants[tenant or self.tenant].append(id_)
        # Lines of earlier versions have no tenant, and a collection may be made again with or without tenants.
        there = {
            tenant: self._find(client, collection, ids, tenant) if bool(tenant) == with_tenants else frozenset[str]()
            for tenant, ids in of_tenants.items()
        }
        lost = [(id_, tenant) for id_, tenant in noted if id_ not in there[tenant or self.tenant]]
        if lost:
            journal.forget(lost)
            note(
                f"{len(lost)} of {len(noted)} objects that {self.resume} lists are not in {self.collection}, so their "
                "rows are imported again. If Weaviate was restored from a backup, import once without --resume: an "
                "object that has changed since then is there as it was, and its row is skipped"
            )

    def _find(self, client: Client, collection: pb.Collection, ids: Sequence[str], tenant: str) -> AbstractSet[str]:
        """Return those of some objects that are there, or all of them where this client may not look.

        Raises:
            VecgateError: a call failed.
        """
        try:
            return self._look(client, collection, ids, tenant)
        except VecgateError as error:
            if error.reason == "TENANT_NOT_FOUND":
                return set()
            # Such as a key that may only write, and a tenant that is not active.
            if error.reason not in ("PERMISSION_DENIED", "STORE_REJECTED"):
                raise
            whose = f" of tenant {tenant}" if tenant else ""
            note(f"what {self.resume} lists{whose} is taken for stored and not looked for: {error.message}")
            return set(ids)

    def _look(self, client: Client, collection: pb.Collection, ids: Sequence[str], tenant: str) -> set[str]:
        """Return those of some objects that are there.

        Raises:
            VecgateError: a call failed, or this client may not look.
        """
        own_id, there = where(object_field=filter_pb.OBJECT_FIELD_ID), set[str]()
        # Without any name all properties would come. A collection with none of these returns them, which is little.
        quick = sorted(
            (SMALL.index(each.data_type), each.name) for each in collection.properties if each.data_type in SMALL
        )
        names = [name for _, name in quick[:1]]
        try:
            for start in range(0, len(ids), LOOKED_FOR_AT_ONCE):
                some = own_id.contains_any(ids[start : start + LOOKED_FOR_AT_ONCE])
                found = client.list_objects(self.collection, filters=some, return_properties=names, tenant=tenant)
                there |= {each.id for each in found}
        except VecgateError as error:
            # Who may not list objects may know how many there are.
            if error.reason != "PERMISSION_DENIED" or client.get_collection(self.collection, tenant).object_count:
                raise
            return set()
        return there
