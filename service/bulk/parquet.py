"""Objects with their vectors as Parquet: embedded once, loaded as often as wanted.

A file has the rows that a writer had of one fragment in one batch. Its name begins with the name of the fragment's
entry in the ledger, so what a killed job left is known, and removed.
"""

import io
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq

from service.bulk.ledger import open_folder
from service.bulk.rows import Row
from service.domain import Collection, DataType, NamedVector, Property
from service.sources.storage import look_at, open_file

VECTOR, SPACE, MODEL, DIMENSION = "vecgate.vector", "vecgate.space", "vecgate.embedder", "vecgate.dimension"
"""Keys of the metadata, of the file and of each column of vectors."""
ID = "id"
NAME_CHARS = 32

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


@dataclass(frozen=True, slots=True)
class ParquetOutput:
    """A folder of Parquet files.

    Attributes:
        location: a folder or the URL of an object store.
        schema: of each file: `id`, the properties and pictures that are mapped, and the named vectors.
    """

    location: str
    schema: pa.Schema

    def write(self, rows: Sequence[Row]) -> None:
        """Write a batch of rows, a file for each fragment; the same batch again replaces its files.

        Raises:
            LedgerFailed: the location cannot be used.
            obstore.exceptions.BaseError, OSError: a file cannot be written.
        """
        files = open_folder(self.location)
        by_fragment: dict[str, list[Row]] = {}
        for row in rows:
            by_fragment.setdefault(row.fragment, []).append(row)
        for name, some in by_fragment.items():
            file = io.BytesIO()
            pq.write_table(self._table(some), file, compression="zstd")
            # A row is in one batch of a job, so its number makes the name unique.
            obstore.put(files, f"{name}-{min(each.number for each in some):012}.parquet", file.getvalue())

    def keep(self, names: Iterable[str]) -> None:
        """Remove the files of all fragments but those of these names: a killed job left them, or they are outdated."""
        files, kept = open_folder(self.location), set(names)
        old = [each["path"] for each in _listed(files) if each["path"][:NAME_CHARS] not in kept]
        if old:
            obstore.delete(files, old)

    def count(self) -> int:
        """Return how many rows all files have."""
        return sum(map(self._rows_of, (each["path"] for each in _listed(open_folder(self.location)))))

    def _rows_of(self, path: str) -> int:
        with open_file(look_at(f"{self.location.rstrip('/')}/{path}")) as file:
            return int(pq.read_metadata(file).num_rows)

    def _table(self, rows: Sequence[Row]) -> pa.Table:
        objects = [each.object for each in rows if each.object is not None]
        columns: dict[str, list[Any]] = {}
        for field in self.schema:
            if field.name == ID:
                columns[ID] = [str(each.id) for each in objects]
            elif vector := (field.metadata or {}).get(VECTOR.encode(), b"").decode():
                columns[field.name] = [each.vectors.get(vector) for each in objects]
            else:
                values = [each.properties.get(field.name, each.images.get(field.name)) for each in objects]
                columns[field.name] = values
        return pa.table(columns, self.schema)


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
    told = {VECTOR: vector.name, SPACE: vector.space.id, MODEL: vector.space.model, DIMENSION: str(dimension)}
    name = f"vector_{vector.name}" if vector.name in taken else vector.name
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


def _listed(files: Any) -> list[Any]:
    return [each for page in obstore.list(files) for each in page if each["path"].endswith(".parquet")]
