"""A bulk job, from the command to its result: what is left to do is done, and then everything is counted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from embedders.images.likeness import Threshold
from service.bulk import PATIENCE_S
from service.bulk.accounts import Accounts, Progress
from service.bulk.fetching import Web
from service.bulk.ledger import Ledger, Totals, name_of
from service.bulk.likeness import Measuring, some_pictures
from service.bulk.loop import BackgroundLoop
from service.bulk.parquet import ParquetOutput, checked_location, schema_of
from service.bulk.pipeline import Pipeline, Sizes, measured_threshold
from service.bulk.reading import Reading
from service.bulk.reconciling import SAMPLE, Reconciliation, count_objects, look_into
from service.bulk.stages import Target
from service.core.objects.duplicates import DuplicateAction, DuplicateCheck
from service.domain import Collection, NamedVector, Scope
from service.error_table import reason_for
from service.errors import ImageUriNotAllowed
from service.fetching import Fetcher, Origin, find_origin, parse_uri
from service.settings import Settings, WeaviateSettings
from service.sources.errors import InvalidMapping
from service.sources.fragments import Fragment, fragments, schema
from service.sources.mapping import Mapping as ColumnMapping
from service.sources.mapping import Plan
from service.sources.schema import Schema
from service.store.embedded.server import EmbeddedWeaviate
from service.store.weaviate import WeaviateStore
from service.wiring import listed_origins

BEFORE, THRESHOLD = "_objects_before", "_threshold"
"""Names in the ledger of what was so when it began."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to do.

    Attributes:
        locations: files, folders, patterns and URLs.
        collection: where objects go; it exists.
        ledger: the ledger's location.
        mapping: which column is what.
        tenant: whose objects they are.
        truncate: whether texts may be cut to what the model reads.
        sizes: of the pipeline.
        patience_s: how long to wait for a Weaviate or a NIM that does not answer.
        output: a folder or a URL for objects with their vectors as Parquet; empty for none.
        stores: whether objects go to the collection; without it they go to Parquet alone.
        duplicates: what to do with rows that duplicate another object, as a `DuplicateAction`; empty to store all
            without looking.
        threshold: the least cosine of near-duplicates; None to measure it.
    """

    locations: Sequence[str]
    collection: str
    ledger: str
    mapping: ColumnMapping = field(default_factory=ColumnMapping)
    tenant: str = ""
    truncate: bool = False
    sizes: Sizes = field(default_factory=Sizes)
    patience_s: float = PATIENCE_S
    output: str = ""
    stores: bool = True
    duplicates: str = ""
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a job did, and whether everything adds up.

    Attributes:
        found: fragments of the input.
        done_before: those that earlier runs had done.
        progress: of this run.
        reconciliation: None while fragments are left, as some could not be read.
        threshold: from which cosine on pictures are near-duplicates, if it was measured.
    """

    found: int
    done_before: int
    progress: Progress
    reconciliation: Reconciliation | None
    threshold: Threshold | None = None

    @property
    def faults(self) -> list[str]:
        """What is wrong, in words; nothing if every row has its outcome and everything adds up."""
        unread = [f"{location}: {reason}" for location, reason in self.progress.unreadable]
        return [*unread, *(self.reconciliation.faults if self.reconciliation else ())]


def run(job: Job, settings: Settings, advance: Callable[[Progress], None]) -> Result:
    """Do what is left of a job.

    Args:
        job: what to do.
        settings: the embedders and Weaviate.
        advance: called with the progress again and again.

    Raises:
        BulkStopped: an embedder or Weaviate fails for too long; what is done counts, and a repetition goes on.
        InvalidSource: the input cannot be read.
        InvalidMapping: it does not fit the collection, or that has no named vector by which duplicates are found.
        InvalidSettings: the list of origins is wrong, or names a file of certificates that holds none.
        LedgerFailed: the ledger cannot be read or written, or another command has begun with it.
        ServiceError: the collection cannot take the objects, the ledger is of another job, or the output is of another
            ledger or cannot be written.
    """
    if job.output:
        job = replace(job, output=checked_location(job.output))
    found = fragments(job.locations)
    columns = schema(found)
    origins = listed_origins(settings)
    with _store(settings) as (loop, store, where):
        loop.run(_check_certificates(origins))
        ledger = Ledger(job.ledger)
        collection = loop.run(store.get_collection(job.collection))
        plan = _plan(job, columns, collection)
        web = Web(origins, settings.limits.max_image_bytes, job.patience_s)
        reading = Reading(plan, collection, job.tenant, web)
        output = _output(job, collection, plan, ledger)
        threshold = _threshold(job, ledger, settings, collection, partial(some_pictures, found, reading))
        check = _check(job, collection, threshold)
        target = Target(collection, Scope(job.tenant), where, job.patience_s, output, job.stores, check)
        facts: dict[str, Any] = {THRESHOLD: threshold and asdict(threshold)}
        if job.stores:
            facts[BEFORE] = loop.run(count_objects(store, collection, target.scope))
        recorded = _begin(ledger, output, {**_identity(job, collection), **facts})
        doubtful = ledger.enter()
        named = {_name(each): each for each in found}
        done = ledger.done()
        left = {name: each for name, each in named.items() if name not in done}
        progress = _carry_out(Pipeline(settings, target, reading, _sizes(job), job.truncate), ledger, left, advance)
        reconciliation = None
        totals = ledger.totals(set(named))
        if output is not None:
            _clear(output, ledger, totals)
        if not progress.unreadable:
            names = sorted(named)
            ids = ledger.all_ids(names) if doubtful or progress.outages else ledger.some_ids(names, SAMPLE)
            within = loop.run(look_into(store, target, recorded[BEFORE], ids)) if job.stores else None
            in_files = None if output is None else output.count(named)
            reconciliation = Reconciliation(len(named), totals, within, in_files)
            ledger.forget(reconciliation.lacking)
            if not reconciliation.faults:
                ledger.leave()
    return Result(len(named), len(named) - len(left), progress, reconciliation, threshold)


def _clear(output: ParquetOutput, ledger: Ledger, totals: Totals) -> None:
    """Remove from the output what other commands left there."""
    left_by_others = output.left_by_others(totals.runs)
    # A command that enters after this check has written none of them.
    ledger.check_alone()
    output.remove(left_by_others)


def _threshold(
    job: Job,
    ledger: Ledger,
    settings: Settings,
    collection: Collection,
    pictures: Callable[[NamedVector], Sequence[bytes]],
) -> Threshold | None:
    """Return from which cosine on pictures are near-duplicates, as it was measured when the ledger began.

    Args:
        job: what to do.
        ledger: where it is recorded.
        settings: the embedders.
        collection: where objects go.
        pictures: some of the input, of which a named vector is made.

    Returns:
        None if nobody asked for it, or the job names a threshold.

    Raises:
        BulkStopped: it cannot be measured.
        InvalidSource: it cannot, because the input cannot be read.
    """
    if not job.duplicates or job.threshold is not None:
        return None
    if begun := ledger.begun():
        # What is done was compared by it. If the ledger is of another job, that is told later.
        return Threshold(**found) if (found := begun.get(THRESHOLD)) else None
    vector = _compared(collection)
    what = Measuring(settings, collection.name, vector, pictures(vector), job.patience_s)
    return measured_threshold(what, job.sizes)


def _check(job: Job, collection: Collection, threshold: Threshold | None) -> DuplicateCheck | None:
    """Return which objects are duplicates, and what to do with them; None to store all."""
    if not job.duplicates:
        return None
    least = job.threshold if threshold is None else threshold.min_cosine
    return DuplicateCheck(DuplicateAction(job.duplicates), least or 0.0, _compared(collection).name)


def _compared(collection: Collection) -> NamedVector:
    """Return the named vector by which duplicates are found, as in an import: the first that is made of pictures.

    Raises:
        InvalidMapping: there is none.
    """
    for each in collection.bound_part.vectors:
        if each.image_fields:
            return each
    names = ", ".join(each.name for each in collection.vectors)
    raise InvalidMapping([f"duplicates are found by a named vector of pictures, and there is none; it has: {names}"])


def _sizes(job: Job) -> Sizes:
    """Return the sizes of the pipeline. Where duplicates are looked for, one process writes unless more are asked for.

    Several do not see what the others write at the same moment.
    """
    return replace(job.sizes, writers=job.sizes.writers or 1) if job.duplicates else job.sizes


@dataclass(frozen=True, slots=True)
class Look:
    """What a job would do.

    Attributes:
        found: fragments of the input.
        columns: their columns.
        plan: what becomes of each row.
        origins: from where pictures would be fetched.
    """

    found: Sequence[Fragment]
    columns: Schema
    plan: Plan
    origins: tuple[Origin, ...]

    def refusal(self, uri: str) -> str:
        """Return why a picture would not be fetched, as far as that is known without asking anyone; else empty."""
        try:
            find_origin(self.origins, parse_uri(uri))
        except ImageUriNotAllowed as error:
            return f"{reason_for(error)}: {error}"
        return ""


def look(job: Job, settings: Settings) -> Look:
    """Return what a job would do, and do nothing.

    Raises:
        InvalidSource: the input cannot be read.
        InvalidMapping: it does not fit the collection, or that has no named vector by which duplicates are found.
        InvalidSettings: the list of origins is wrong, or names a file of certificates that holds none.
        ServiceError: there is no such collection.
    """
    found = fragments(job.locations)
    columns = schema(found)
    origins = listed_origins(settings)
    with _store(settings) as (loop, store, _):
        loop.run(_check_certificates(origins))
        collection = loop.run(store.get_collection(job.collection))
        plan = _plan(job, columns, collection)
        _check(job, collection, None)
    return Look(found, columns, plan, origins)


async def _check_certificates(origins: Sequence[Origin]) -> None:
    """Check that the certificates of origins can be read, before any process needs them.

    Raises:
        InvalidSettings: they cannot.
    """
    async with Fetcher(origins):
        pass


def _plan(job: Job, columns: Schema, collection: Collection) -> Plan:
    plan = job.mapping.bind(columns, collection)
    if plan.tenant:
        raise InvalidMapping([f"{plan.tenant!r}: a bulk job is for one tenant; name it with --tenant"])
    return plan


def _begin(ledger: Ledger, output: ParquetOutput | None, run: Mapping[str, Any]) -> dict[str, Any]:
    """Record what the ledger and the output belong to, and return that.

    Raises:
        InvalidRequest: one of them belongs to something else.
        LedgerFailed: one of them cannot be read or written.
    """
    if output is not None:
        # Before the ledger records this output, and again: others may have begun while the threshold was measured.
        output.check(ledger.id)
    recorded = ledger.begin(run)
    if output is not None:
        output.claim(ledger.id)
    return recorded


def _carry_out(
    pipeline: Pipeline, ledger: Ledger, left: Mapping[str, Fragment], advance: Callable[[Progress], None]
) -> Progress:
    """Run the pipeline for the fragments that are left, by the names of their entries."""
    accounts = Accounts(ledger, left)
    advance(accounts.progress)
    if left:
        for table in pipeline.outcomes(left):
            accounts.take(table)
            advance(accounts.progress)
    return accounts.progress


@contextmanager
def _store(settings: Settings) -> Iterator[tuple[BackgroundLoop, WeaviateStore, WeaviateSettings]]:
    """Yield a store with its event loop, and the settings with which other processes reach the same Weaviate."""
    with ExitStack() as ends:
        loop, where = BackgroundLoop(), settings.weaviate
        ends.callback(loop.close)
        if where.embedded:
            weaviate = EmbeddedWeaviate(where)
            ends.callback(lambda: loop.run(weaviate.stop()))
            loop.run(weaviate.start())
            where = weaviate.client_settings
        store = WeaviateStore(where)
        ends.callback(lambda: loop.run(store.close()))
        loop.run(store.start())
        yield loop, store, where


def _name(fragment: Fragment) -> str:
    return name_of(fragment.location, fragment.part, fragment.identity)


def _output(job: Job, collection: Collection, plan: Plan, ledger: Ledger) -> ParquetOutput | None:
    """Return where a job's Parquet files go; None if it writes none.

    Raises:
        InvalidRequest: it has the output of another ledger.
        LedgerFailed: it, or the ledger, cannot be read.
    """
    if not job.output:
        return None
    names = [*(each.name for each in plan.properties.values()), *plan.images.values()]
    dimensions = {each.name: each.space.dimension for each in collection.vectors if each.space}
    output = ParquetOutput(job.output, schema_of(collection, names, dimensions), ledger.run)
    # Before a model is loaded.
    output.check(ledger.id)
    return output


def _identity(job: Job, collection: Collection) -> dict[str, Any]:
    """Return what ids and vectors depend on; with another of them, what a ledger lists as done is not done."""
    return {
        "collection": collection.name,
        "tenant": job.tenant,
        "columns": dict(job.mapping.columns),
        "images": job.mapping.images,
        "spaces of the input": dict(job.mapping.spaces),
        "truncate": job.truncate,
        "stores": job.stores,
        "output": job.output,
        "duplicates": f"{job.duplicates}, threshold {job.threshold}" if job.duplicates else None,
        "spaces of the collection": {each.name: each.space.id for each in collection.vectors if each.space},
    }
