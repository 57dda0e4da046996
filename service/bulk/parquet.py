"""Objects with their vectors as Parquet: embedded once, loaded as often as wanted.

A file has the rows that a writer had of one fragment in one batch. Its name begins with the name of the fragment's
entry in the ledger and that of the command, and the entry names the command that did it. So what a killed command left,
or one that still wrote after the next had begun, is known, and removed. Files of other names are never touched. A
marker says which ledger the folder belongs to.
"""

import io
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.exceptions import NotFoundError

from service.bulk.ledger import READ_AT_ONCE, failing, open_folder
from service.bulk.reading import REFUSED
from service.bulk.rows import Row
from service.domain import Collection, DataType, NamedVector, Property
from service.errors import InvalidRequest, Violation
from service.sources.mapping import ID, VECTOR_PREFIX
from service.sources.parquet import SPACE_KEY
from service.sources.storage import SCHEMES, WEB, look_at, open_file

VECTOR, MODEL, DIMENSION = "vecgate.vector", "vecgate.embedder", "vecgate.dimension"
"""Keys of the metadata beside that of the space, of the file and of each column of vectors."""
MARKER = "_vecgate-ledger"
"""The file with the id of the ledger."""
UNFIT = (ValueError, TypeError, OverflowError)
"""What pyarrow raises for values that have none."""
_FILE = re.compile(r"([0-9a-f]{32})-([0-9a-f]{8})-\d{12}\.parquet")

TYPES = {
    DataType.TEXT: pa.string(),
    DataType.INT: pa.int64(),
    DataType.NUMBER: pa.float64(),
    DataType.BOOLEAN: pa.bool_(),
    DataType.DATE: pa.string(),
    DataType.UUID: pa.string(),
    DataType.BLOB: pa.binary(),
    DataType.BLOB_HASH: pa.binary(),
    DataType.GEO_COORDINATES: pa.struct([("latitude", pa.float64()), ("longitude", pa.float64())]),
}


def checked_location(location: str) -> str:
    """Return the location of an output: a URL, or a local path, which becomes absolute.

    Raises:
        InvalidRequest: nothing can be written at such a URL.
    """
    scheme, found, _ = location.partition("://")
    if not found:
        return str(Path(location).absolute())
    if scheme.lower() not in (written := SCHEMES - WEB):
        known = ", ".join(sorted(f"{each}://" for each in written))
        message = f"{location}: {scheme}:// cannot be written; name a local path or one of {known}"
        raise InvalidRequest([Violation("output", message)])
    return location


@dataclass(frozen=True, slots=True)
class ParquetOutput:
    """A folder of Parquet files.

    Attributes:
        location: a folder or the URL of an object store.
        schema: of each file: `id`, the properties and pictures that are mapped, and the named vectors.
        run: the command that writes, as `Ledger.run` names it.
    """

    location: str
    schema: pa.Schema
    run: str

    def write(self, rows: Sequence[Row]) -> None:
        """Write the rows of a batch that are alive, a file for each fragment; the same batch again replaces its files.

        Rows with a value that has no form in Parquet are rejected.

        Args:
            rows: the batch, with the rows that are rejected: others may be the next time.

        Raises:
            LedgerFailed: the location cannot be used.
            obstore.exceptions.BaseError, OSError: a file cannot be written.
        """
        files = open_folder(self.location)
        by_fragment: dict[str, list[Row]] = {}
        for row in (each for each in rows if not each.end):
            by_fragment.setdefault(row.fragment, []).append(row)
        for name, some in by_fragment.items():
            table = self._fitting_table([each for each in some if each.live])
            if not table.num_rows:
                continue
            file = io.BytesIO()
            pq.write_table(table, file, compression="zstd")
            # A row is in one batch of a job, so its number makes the name unique.
            first = min(each.number for each in some)
            obstore.put(files, f"{name}-{self.run}-{first:012}.parquet", file.getvalue())

    def check(self, ledger: str) -> None:
        """Check that the folder has not been claimed for another ledger.

        Args:
            ledger: the ledger's id; empty for one that begins.

        Raises:
            InvalidRequest: it has.
            LedgerFailed: the location cannot be used.
        """
        files = open_folder(self.location)
        with failing(self.location):
            try:
                found = bytes(obstore.get(files, MARKER).bytes()).decode(errors="replace")
            except (FileNotFoundError, NotFoundError):
                return
        if found != ledger:
            message = f"{self.location} has the output of another ledger; name that ledger, or another output"
            raise InvalidRequest([Violation("output", message)])

    def claim(self, ledger: str) -> None:
        """Mark the folder as the output of a ledger.

        Args:
            ledger: the ledger's id.

        Raises:
            LedgerFailed: the location cannot be used.
        """
        files = open_folder(self.location)
        with failing(self.location):
            obstore.put(files, MARKER, ledger.encode())

    def left_by_others(self, runs: Mapping[str, str]) -> list[str]:
        """Return what other commands left: files of fragments that have no entry, or one of another command.

        Args:
            runs: the commands that did the fragments, by the names of all entries of the ledger.

        Raises:
            LedgerFailed: the location cannot be used.
        """
        with failing(self.location):
            return [path for name, run, path in _listed(open_folder(self.location)) if runs.get(name) != run]

    def remove(self, paths: Sequence[str]) -> None:
        """Remove files.

        Args:
            paths: as `left_by_others` returns them.

        Raises:
            LedgerFailed: the location cannot be used.
        """
        with failing(self.location):
            if paths:
                obstore.delete(open_folder(self.location), paths)

    def count(self, names: Container[str]) -> Counter[str]:
        """Return how many rows the files of the fragments of these names have, by name.

        Raises:
            LedgerFailed: the location cannot be used.
            InvalidSource: a file cannot be read.
        """
        found: Counter[str] = Counter()
        with failing(self.location), ThreadPoolExecutor(READ_AT_ONCE) as threads:
            files = [(name, path) for name, _, path in _listed(open_folder(self.location)) if name in names]
            for (name, _), count in zip(files, threads.map(self._rows_of, (path for _, path in files)), strict=True):
                found[name] += count
        return found

    def _rows_of(self, path: str) -> int:
        with open_file(look_at(f"{self.location.rstrip('/')}/{path}")) as file:
            return int(pq.read_metadata(file).num_rows)

    def _fitting_table(self, rows: Sequence[Row]) -> pa.Table:
        """Return rows as a table, without those of a value that has no form there, which are rejected."""
        try:
            return self._table(rows)
        except UNFIT:
            for row in rows:
                for field in self.schema:
                    try:
                        self._column(field, [row])
                    except UNFIT as error:
                        row.reject(REFUSED, f"{field.name}: has no form in Parquet: {error}")
                        break
        return self._table(rows)

    def _table(self, rows: Sequence[Row]) -> pa.Table:
        return pa.table([self._column(each, rows) for each in self.schema], self.schema)

    def _column(self, field: pa.Field, rows: Sequence[Row]) -> pa.Array:
        objects = [each.object for each in rows if each.object is not None]
        values: list[Any]
        if field.name == ID:
            values = [str(each.id) for each in objects]
        elif vector := (field.metadata or {}).get(VECTOR.encode(), b"").decode():
            values = [each.vectors.get(vector) for each in objects]
        else:
            values = [each.properties.get(field.name, each.images.get(field.name)) for each in objects]
        return pa.array(values, field.type)


def schema_of(collection: Collection, names: Iterable[str], dimensions: Mapping[str, int]) -> pa.Schema:
    """Return the schema of files with objects of a collection.

    Args:
        collection: whose objects they are.
        names: the properties and pictures that objects get.
        dimensions: of the named vectors that objects get.
    """
    found = [each for name in names if (each := collection.find_property(name)) is not None]
    vectors = [each for each in collection.vectors if each.name in dimensions]
    taken = {ID, *(each.name for each in found)}
    fields = [
        pa.field(ID, pa.string()),
        *(pa.field(each.name, _type(each)) for each in found),
        *(_vector_field(each, dimensions[each.name], taken) for each in vectors),
    ]
    return pa.schema(fields, fields[-1].metadata if len(vectors) == 1 else None)


def _vector_field(vector: NamedVector, dimension: int, taken: Container[str]) -> pa.Field:
    assert vector.space is not None, "only bound vectors are made"
    told = {VECTOR: vector.name, SPACE_KEY: vector.space.id, MODEL: vector.space.model, DIMENSION: str(dimension)}
    name = f"{VECTOR_PREFIX}{vector.name}" if vector.name in taken else vector.name
    return pa.field(name, pa.list_(pa.float32(), dimension or -1), metadata=told)


def _type(declared: Property) -> pa.DataType:
    kind = declared.data_type
    assert kind is not None, "a plan has properties of known types only"
    if kind in (DataType.OBJECT, DataType.OBJECT_ARRAY):
        inner = pa.struct([(each.name, _type(each)) for each in declared.nested])
        return inner if kind is DataType.OBJECT else pa.list_(inner)
    if kind in TYPES:
        return TYPES[kind]
    return pa.list_(TYPES[DataType(kind.value.removesuffix("[]"))])


def _listed(files: Any) -> Iterator[tuple[str, str, str]]:
    """Yield the fragment, the command and the path of each file."""
    for each in obstore.list_with_delimiter(files)["objects"]:
        if found := _FILE.fullmatch(each["path"]):
            yield found[1], found[2], each["path"]
