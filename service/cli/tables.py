"""Tables, tars and remote pictures as objects of a collection: `vecgate import` of everything but a local folder."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import typer
from rich.progress import Progress

from service.cli.imports import Import
from service.cli.journal import Journal
from service.cli.likeness import SAMPLE
from service.cli.output import (
    EXIT_FAILED,
    EXIT_WRONG_USE,
    Doing,
    describe_error,
    fail,
    note,
    print_table,
    progress_console,
    say,
    shorten,
    to_terminal,
)
from service.cli.pictures import outcome_reason
from service.domain.collections import (
    Collection,
    DataType,
    MultiTenancy,
    NamedVector,
    Property,
    Space,
    WeightedField,
)
from service.sources import (
    Fragment,
    InvalidMapping,
    InvalidSource,
    Mapping,
    NewObject,
    Plan,
    Row,
    RowRefused,
    Schema,
    fragments,
    read,
    schema,
)
from service.sources.rows import size_of
from service.sources.storage import without_secrets
from vecgate.client import Client, ImportOutcome, Object, Reference, VecgateError
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb

VECTOR = "default"
"""The named vector of a collection that is created for a source."""
TRIED_ROWS = 1000
"""Rows that a dry run tries."""
MAX_TRIED = 20
"""Places on the web of which a dry run tries a picture."""
GROUP_ROWS, GROUP_BYTES = 1000, 2**25
"""Objects, and their bytes, that are held to be sent by tenant."""
SHOWN_ROWS = 3
SHOWN_PLACES = 20
"""Rows of one reason that a terminal shows."""
MAX_PLACES = 1000
"""Rows of one reason that are kept to be named."""
MAX_REASONS = 100
TriedRow: TypeAlias = tuple[Row, NewObject | RowRefused]
"""A row, and its object or why it has none."""


@dataclass(slots=True)
class Failures:
    """What is not stored, by reason: how many, and where the first ones are."""

    counts: dict[str, int] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.counts.values())

    def add(self, reason: str, place: str) -> None:
        """Count one."""
        if len(self.counts) >= MAX_REASONS and reason not in self.counts:
            reason = "other reasons"
        self.counts[reason] = self.counts.get(reason, 0) + 1
        places = self.places.setdefault(reason, [])
        if len(places) < MAX_PLACES:
            places.append(place)


@dataclass(slots=True)
class TableSummary:
    """The outcomes of the rows.

    Attributes:
        stored: how many are stored.
        skipped: how many are passed over, because the journal says that they are stored.
        failures: those that are not.
        left_out: how many are not stored because they duplicate others.
        duplicates: what each duplicate duplicates; also of those that are stored.
        unreadable: why a fragment could not be read to its end.
        stopped: why the import ended before the last row; None when it did not.
    """

    stored: int = 0
    skipped: int = 0
    failures: Failures = field(default_factory=Failures)
    left_out: int = 0
    duplicates: Failures = field(default_factory=Failures)
    unreadable: list[str] = field(default_factory=list)
    stopped: VecgateError | None = None


@dataclass(frozen=True, slots=True)
class Tables:
    """What is to be imported.

    Attributes:
        found: the fragments.
        columns: their columns.
        mapping: which column becomes what.
    """

    found: Sequence[Fragment]
    columns: Schema
    mapping: Mapping


def mapping_of(file: Path | None, columns: Sequence[str], images: str, key: str = "") -> Mapping:
    """Return the mapping of a file and of options; end the command if there is a fault."""
    try:
        return (Mapping() if file is None else Mapping.load(file)).with_options(columns, images, key)
    except InvalidMapping as error:
        _fail_with(error)


def open_tables(locations: Sequence[str], mapping: Mapping) -> Tables:
    """Look at sources; end the command if they cannot be read."""
    try:
        found = fragments(locations)
        return Tables(found, schema(found), mapping)
    except InvalidSource as error:
        fail(str(error), EXIT_WRONG_USE)


def plan_for(tables: Tables, collection: Collection) -> Plan:
    """Return what becomes of each row; end the command with every fault if the source does not fit."""
    try:
        return tables.mapping.bind(tables.columns, collection)
    except InvalidMapping as error:
        _fail_with(error)


def _fail_with(error: InvalidMapping) -> NoReturn:
    first, *more = error.faults
    fail(first, EXIT_WRONG_USE, more=more)


def import_tables(client: Client, tables: Tables, chosen: Import) -> None:
    """Import tables, or say what would be imported, and end the command.

    Raises:
        VecgateError: a call failed.
    """
    found, exists = collection_for(client, chosen, tables)
    plan = plan_for(tables, to_domain(found))
    if chosen.dry_run:
        fine = show_dry_run(tables, plan, Trial(client, found).refusal, exists=exists, limit=chosen.limit)
        raise typer.Exit(0 if fine else EXIT_FAILED)
    with chosen.journal() as journal:
        if not exists:
            create(client, found)
        chosen.begin(journal, client)
        check = chosen.duplicate_check(client, _sample(tables, plan))
        console = progress_console()
        with Progress(Doing(), console=console, disable=not console.is_terminal, transient=True) as progress:
            task = progress.add_task("", total=None)
            sending = Sending(
                client, plan, chosen, journal, check, lambda words: progress.update(task, description=words)
            )
            summary = sending.send(tables.found)
    for column, reason in plan.unused.items():
        note(f"the column {column!r} is not imported: {reason}")
    counts = f"{plan.collection}: {summary.stored} stored, {summary.failures.count} failed"
    counts += f", {summary.skipped} stored before" if summary.skipped else ""
    counts += f", {summary.left_out} left out as duplicates" if summary.left_out else ""
    say(counts, style="bold")
    show_failures(summary.failures, summary.unreadable)
    show_failures(summary.duplicates, ())
    if summary.stopped is not None:
        fail(*describe_error(summary.stopped, target=client.target))
    if summary.failures.count or summary.unreadable:
        raise typer.Exit(EXIT_FAILED)


def collection_for(client: Client, chosen: Import, tables: Tables) -> tuple[pb.Collection, bool]:
    """Return the collection of a name, or the one to create for a source, and whether it exists.

    Raises:
        VecgateError: a call failed.
    """
    try:
        return client.get_collection(chosen.collection), True
    except VecgateError as error:
        if error.reason != "COLLECTION_NOT_FOUND":
            raise
    properties = tables.mapping.new_properties(tables.columns)
    here = {each.name for each in properties}
    for field_ in chosen.text_fields:
        if field_.name not in here:
            fail(f"--text-field {field_.name}: there is no such column", EXIT_WRONG_USE)
    spaces = {each.space for each in tables.columns.columns if each.space}
    images = [each.name for each in properties if each.data_type is DataType.BLOB]
    if not (images or chosen.text_fields or spaces):
        fail(
            "there is no column of pictures; map one with --column COLUMN=image, "
            "or name the texts to embed with --text-field",
            EXIT_WRONG_USE,
        )
    embedder = _embedder(client, chosen.embedder, spaces)
    vector = pb.VectorConfig(
        name=VECTOR,
        embedder=embedder.name,
        image_fields=[pb.WeightedField(name=each) for each in images],
        text_fields=chosen.text_fields,
        space=embedder.space,
        dimension=embedder.dimension,
    )
    made = pb.Collection(name=chosen.collection, properties=map(_property_to_pb, properties), vectors=[vector])
    return made, False


def _embedder(client: Client, name: str, spaces: AbstractSet[str]) -> embedding_pb.EmbedderInfo:
    """Return the embedder of a name; without one, that of the vectors in the source, or the first one."""
    embedders = client.embedders().embedders
    fitting = [each for each in embedders if (each.name == name if name else each.space in spaces)]
    if name and not fitting:
        fail(f"there is no embedder {name!r}; there are {', '.join(each.name for each in embedders)}", EXIT_WRONG_USE)
    return next(iter(fitting or embedders), embedding_pb.EmbedderInfo())


def create(client: Client, wanted: pb.Collection) -> None:
    """Create a collection.

    Raises:
        VecgateError: the call failed.
    """
    for vector in wanted.vectors:
        vector.ClearField("space")
        vector.ClearField("dimension")
    client.create_collection(wanted)
    note(f"the collection {wanted.name} is created")


def to_domain(found: pb.Collection) -> Collection:
    """Return a collection as sources know it: properties, named vectors with their spaces, whether it has tenants."""
    vectors = (
        NamedVector(
            each.name,
            Space(each.space, each.dimension, each.model) if each.space else None,
            tuple(WeightedField(name.name) for name in each.image_fields),
        )
        for each in found.vectors
    )
    tenants = MultiTenancy() if found.multi_tenancy.enabled else None
    return Collection(found.name, tuple(map(_property, found.properties)), tuple(vectors), multi_tenancy=tenants)


_TYPES = {each: property_pb.DataType.Value(f"DATA_TYPE_{each.name}") for each in DataType}
_TYPES_BACK = {number: each for each, number in _TYPES.items()}


def _property(found: property_pb.Property) -> Property:
    nested = tuple(map(_property, found.nested_properties))
    return Property(found.name, _TYPES_BACK.get(found.data_type), nested=nested)


def _property_to_pb(made: Property) -> property_pb.Property:
    assert made.data_type is not None, "it was made from a column with a type"
    nested = map(_property_to_pb, made.nested)
    return property_pb.Property(name=made.name, data_type=_TYPES[made.data_type], nested_properties=nested)


@dataclass(slots=True)
class Sending:
    """Sends the rows of a source. Whatever fails is in the summary.

    Attributes:
        client: the connection.
        plan: what becomes of each row.
        chosen: the options.
        journal: says which are stored already, and learns of those that are stored now.
        duplicates: what to do with duplicates; None to store all.
        show: called with the state of the import in words for each row that is done, stored or not.
    """

    client: Client
    plan: Plan
    chosen: Import
    journal: Journal | None = None
    duplicates: object_pb.DuplicateCheck | None = None
    show: Callable[[str], object] = lambda _: None
    summary: TableSummary = field(default_factory=TableSummary)
    _sent: deque[tuple[str, str, str]] = field(default_factory=deque)

    def send(self, found: Sequence[Fragment]) -> TableSummary:
        """Send the rows of fragments, in order."""
        rows = islice(readable_rows(found, self.plan, self.summary.unreadable), self.chosen.limit)
        try:
            if self.plan.tenant:
                self._send_by_tenant(rows)
            else:
                self._import(self.chosen.tenant, self._objects(rows))
        except VecgateError as error:
            self.summary.stopped = error
        return self.summary

    def _send_by_tenant(self, rows: Iterator[TriedRow]) -> None:
        """Send some rows at a time, those of each tenant in calls for it."""
        objects = self._objects(rows)
        while some := _group(objects):
            # What was sent is told apart by tenant, so the order of what is noted follows.
            noted = [self._sent.popleft() for _ in some]
            tenants: dict[str, list[int]] = {}
            for at, (tenant, _) in enumerate(some):
                tenants.setdefault(tenant, []).append(at)
            for tenant, places in tenants.items():
                self._sent.extend(noted[at] for at in places)
                self._import(tenant, (some[at] for at in places))

    def _objects(self, rows: Iterator[TriedRow]) -> Iterator[tuple[str, Object]]:
        for row, new in rows:
            if isinstance(new, RowRefused):
                self.summary.failures.add(_reason_of(new), _place_of(new))
                self._show()
                continue
            images = {name: Reference(each) if isinstance(each, str) else each for name, each in new.images.items()}
            made = Object(new.properties, images, new.vectors, new.id)
            digest = self.journal.digest(made, new.tenant) if self.journal else ""
            if self.journal and self.journal.has(made.id, digest, new.tenant):
                self.summary.skipped += 1
                self._show()
                continue
            self._sent.append((row.where, digest, new.tenant))
            yield new.tenant, made

    def _import(self, tenant: str, objects: Iterator[tuple[str, Object]]) -> None:
        made = (each for _, each in objects)
        for outcome in self.client.import_objects(
            self.plan.collection, made, truncate=self.chosen.truncate, tenant=tenant, duplicates=self.duplicates
        ):
            self._note(outcome)

    def _note(self, outcome: ImportOutcome) -> None:
        where, digest, tenant = self._sent.popleft()
        if outcome.error is not None:
            self.summary.failures.add(outcome_reason(outcome.error), where)
        self.summary.stored += outcome.stored
        self.summary.left_out += outcome.skipped
        if outcome.duplicate_of is not None:
            how = "same content" if outcome.duplicate_of.same_content else f"cosine {outcome.duplicate_of.cosine:.4f}"
            self.summary.duplicates.add("duplicates", f"{where}: {outcome.duplicate_of.id}, {how}")
        if self.journal and outcome.stored:
            self.journal.add(outcome.id, digest, tenant)
        self._show()

    def _show(self) -> None:
        self.show(
            f"importing into {self.plan.collection}: {self.summary.stored} stored, {self.summary.failures.count} failed"
        )


def _group(objects: Iterator[tuple[str, Object]]) -> list[tuple[str, Object]]:
    """Take the next objects, as many as are held in memory at the same time."""
    some: list[tuple[str, Object]] = []
    size = 0
    while size < GROUP_BYTES and len(some) < GROUP_ROWS and (found := next(objects, None)):
        some.append(found)
        size += size_of(found[1].properties) + size_of(found[1].images)
    return some


def readable_rows(found: Sequence[Fragment], plan: Plan, unreadable: list[str]) -> Iterator[TriedRow]:
    """Yield the rows of fragments with what becomes of them.

    A fragment that cannot be read to its end, or of which a picture cannot be read now, is noted, and the next one
    follows.
    """
    for each in found:
        try:
            for batch in read(each, plan.columns):
                for row in batch:
                    yield row, _tried(plan, row)
        except InvalidSource as error:
            unreadable.append(str(error))


def _tried(plan: Plan, row: Row) -> NewObject | RowRefused:
    try:
        return plan.object(row)
    except RowRefused as error:
        return error


def _sample(tables: Tables, plan: Plan) -> Iterator[bytes]:
    """Yield the pictures of the first rows that have any."""
    for _, made in islice(readable_rows(tables.found, plan, []), SAMPLE):
        if not isinstance(made, RowRefused):
            yield from (each for each in made.images.values() if isinstance(each, bytes))


@dataclass(slots=True)
class Trial:
    """Lets the server fetch the first picture of each place on the web: only it knows its list of origins.

    Attributes:
        client: the connection.
        collection: whose embedder gets the pictures.
    """

    client: Client
    collection: pb.Collection
    _tried: set[str] = field(default_factory=set)
    _failed: bool = False

    def refusal(self, uri: str) -> str:
        """Return why the server has not fetched a picture; empty if it has, or if it has fetched another from there.

        What it may not fetch is asked for each picture: nothing is fetched for it, and a place may be allowed in part.
        When a call fails, that is noted, and no more is tried.
        """
        origin = "/".join(uri.split("/", 3)[:3])
        if self._failed or origin in self._tried or len(self._tried) == MAX_TRIED:
            return ""
        embedders = [each.embedder for each in self.collection.vectors if each.image_fields]
        try:
            fault = self.client.embed([Reference(uri)], embedder=next(iter(embedders), "")).items[0].error
        except VecgateError as error:
            self._failed = True
            note(f"no more pictures on the web are tried: {outcome_reason(error)}")
            return ""
        if fault is None or fault.reason != "IMAGE_URI_NOT_ALLOWED":
            self._tried.add(origin)
        return "" if fault is None else outcome_reason(fault)


def show_dry_run(tables: Tables, plan: Plan, refusal: Callable[[str], str], *, exists: bool, limit: int | None) -> bool:
    """Print the mapping, the first rows and what would be refused, and return whether nothing would be.

    Args:
        tables: what is to be imported.
        plan: what becomes of each row.
        refusal: returns why a picture on the web is not fetched; empty if nothing is known against it.
        exists: whether the collection does.
        limit: how many rows to try; None for TRIED_ROWS.
    """
    kind, count = tables.columns.kind, len({each.location for each in tables.found})
    say(f"{plan.collection}{'' if exists else ' (would be created)'}: {kind}, files or folders: {count}", style="bold")
    targets = _targets(tables.columns, plan)
    shown = {each.name: each.words for each in tables.columns.columns if each.name in plan.unused}
    shown |= {path: found.words for path in targets if (found := tables.columns.find(path))}
    print_table(
        ["column", "type", "becomes"],
        [(name, words, targets.get(name) or f"- ({plan.unused[name]})") for name, words in shown.items()],
    )
    refused, unreadable = Failures(), list[str]()
    references = {*plan.references, *(each.name for column, each in plan.properties.items() if column in plan.images)}
    fine = 0
    for row, made in islice(readable_rows(tables.found, plan, unreadable), limit or TRIED_ROWS):
        if isinstance(made, RowRefused):
            refused.add(_reason_of(made), _place_of(made))
            continue
        faults = [(name, why) for name, uri in plan.uris(made).items() if (why := refusal(uri))]
        if faults:
            name, why = faults[0]
            refused.add(f"{name}: {why}", row.where)
            continue
        fine += 1
        if fine <= SHOWN_ROWS:
            say(f"{row.where}: {_shown_object(made, references)}")
    say(f"{fine} rows tried without a fault, {refused.count} would be refused; nothing is stored")
    show_failures(refused, unreadable)
    return not (refused.count or unreadable)


def _targets(columns: Schema, plan: Plan) -> dict[str, str]:
    """Return what becomes of each column, and which of them refer to pictures."""
    names = {column for column, each in plan.properties.items() if each.name in plan.references}
    names |= {each for each in plan.images if (found := columns.find(each)) and found.type is DataType.TEXT}
    return {column: f"{word} (by reference)" if column in names else word for column, word in plan.targets().items()}


def show_failures(failures: Failures, unreadable: Sequence[str]) -> None:
    """Print what is not stored, by reason."""
    most = SHOWN_PLACES if to_terminal() else MAX_PLACES
    for reason, count in failures.counts.items():
        say(f"{reason} ({count})")
        places = failures.places[reason][:most]
        for place in places:
            say(f"  {place}")
        if count > len(places):
            say(f"  and {count - len(places)} more")
    for each in unreadable:
        say(f"not read to its end: {each}")


def _reason_of(error: RowRefused) -> str:
    return f"{error.column}: {error.reason}" if error.column else error.reason


def _place_of(error: RowRefused) -> str:
    return f"{error.row}: {error.detail}" if error.detail else error.row


def _shown_object(made: NewObject, references: AbstractSet[str]) -> str:
    """Return an object in a line. The query of a reference is left out: a signature in it is a secret."""
    shown = {
        name: without_secrets(value) if name in references and isinstance(value, str) else value
        for name, value in made.properties.items()
    }
    parts: list[Any] = [f"id {made.id}"] if made.id else []
    parts += [f"tenant {made.tenant}"] if made.tenant else []
    parts += [f"{name}={shorten(str(value))}" for name, value in shown.items()]
    parts += [
        f"{name}: {without_secrets(each)}" if isinstance(each, str) else f"{name}: {len(each)} bytes"
        for name, each in made.images.items()
    ]
    parts += [f"{name}: a vector of {len(vector)}" for name, vector in made.vectors.items()]
    return ", ".join(parts)
