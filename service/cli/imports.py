"""What an import is told on the command line, and its journal."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from service.cli.journal import InvalidJournal, Journal
from service.cli.likeness import image_vector, measure_threshold
from service.cli.output import EXIT_WRONG_USE, fail
from vecgate.client import Client
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import object_service_pb2 as object_pb


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
        """Let the journal start again if the collection, or the tenant, is empty.

        Of a collection with tenants as a whole it is not known.

        Raises:
            VecgateError: a call failed.
        """
        if journal is None:
            return
        found = client.get_collection(self.collection, self.tenant)
        if (self.tenant or not found.multi_tenancy.enabled) and not found.object_count:
            journal.forget()
