"""A folder of pictures as objects of a collection: which files, which ids, which properties, and sending them."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid5

from service.cli.journal import Journal
from service.cli.sidecar import Row, Sidecar, normal_path
from vecgate.client import Client, ImportOutcome, Object, VecgateError
from vecgate.v1 import collection_service_pb2 as pb

__all__ = [
    "IMAGE_PROPERTY",
    "PATH_PROPERTY",
    "ImportSummary",
    "PictureFolder",
    "picture_id",
    "scan_folder",
    "schema_of",
    "send_pictures",
]

IMAGE_PROPERTY = "image"
PATH_PROPERTY = "path"
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
# Part of every id: with another one a second import would store everything twice.
NAMESPACE = UUID("6f0c9a52-3f7e-5d0b-9a39-0b5f6a0f4c1e")


@dataclass(frozen=True, slots=True)
class PictureFolder:
    """A folder of pictures.

    Attributes:
        folder: the folder.
        files: its pictures, relative to it, in order.
        sidecar: the table of their properties.
        rows_without_picture: rows that name a file which is not there or is no picture.
        pictures_without_row: pictures that the table does not name; empty without a table.
    """

    folder: Path
    files: tuple[str, ...]
    sidecar: Sidecar | None
    rows_without_picture: tuple[Row, ...]
    pictures_without_row: tuple[str, ...]

    def properties(self, file: str) -> dict[str, object]:
        """Return a picture's properties."""
        row = self.sidecar.rows.get(normal_path(file)) if self.sidecar else None
        return {PATH_PROPERTY: normal_path(file), **(row.properties if row else {})}


@dataclass(slots=True)
class ImportSummary:
    """What became of the pictures.

    Attributes:
        stored: how many are stored.
        skipped: how many are passed over, because the journal says that they are stored.
        failed: the files that are not, by reason.
        stopped: why the import ended before the last picture; None when it did not.
    """

    stored: int = 0
    skipped: int = 0
    failed: dict[str, list[str]] = field(default_factory=dict)
    stopped: VecgateError | None = None

    @property
    def failed_count(self) -> int:
        """How many are not stored."""
        return sum(map(len, self.failed.values()))

    def add(self, file: str, outcome: ImportOutcome) -> None:
        """Count a picture."""
        if outcome.error is None:
            self.stored += 1
        else:
            self.fail(file, _reason(outcome.error))

    def fail(self, file: str, reason: str) -> None:
        """Count a picture that is not stored."""
        self.failed.setdefault(reason, []).append(file)


def picture_id(collection: str, file: str) -> str:
    """Return a picture's id: the same for the same collection and path on every system."""
    return str(uuid5(NAMESPACE, f"{collection}/{normal_path(file)}"))


def scan_folder(folder: Path, sidecar: Sidecar | None, *, limit: int | None = None) -> PictureFolder:
    """Find the pictures in a folder and its folders, and match them with the table.

    Raises:
        OSError: the folder cannot be read.
    """
    found = sorted(
        each.relative_to(folder).as_posix()
        for each in folder.rglob("*")
        if each.suffix.lower() in SUFFIXES and not each.is_dir()
    )
    names = {normal_path(file) for file in found}
    rows = sidecar.rows if sidecar else {}
    return PictureFolder(
        folder=folder,
        files=tuple(found[:limit]),
        sidecar=sidecar,
        rows_without_picture=tuple(row for file, row in rows.items() if file not in names),
        pictures_without_row=tuple(file for file in found[:limit] if sidecar and normal_path(file) not in rows),
    )


def schema_of(
    collection: str, pictures: PictureFolder, *, text_fields: Sequence[pb.WeightedField] = (), embedder: str = ""
) -> pb.Collection:
    """Return the collection that a folder needs: the image, the path, the table's columns, and one named vector."""
    types = dict(pictures.sidecar.types) if pictures.sidecar else {}
    return pb.Collection(
        name=collection,
        properties=[
            pb.Property(name=IMAGE_PROPERTY, data_type=pb.DATA_TYPE_BLOB, description="The picture."),
            pb.Property(name=PATH_PROPERTY, data_type=pb.DATA_TYPE_TEXT, description="Where it was in its folder."),
            *(pb.Property(name=name, data_type=data_type) for name, data_type in types.items()),
        ],
        vectors=[
            pb.VectorConfig(
                name="default",
                embedder=embedder,
                image_fields=[pb.WeightedField(name=IMAGE_PROPERTY)],
                text_fields=text_fields,
            )
        ],
    )


def send_pictures(
    client: Client,
    collection: str,
    pictures: PictureFolder,
    *,
    truncate: bool = False,
    with_path: bool = True,
    tenant: str = "",
    journal: Journal | None = None,
    advance: Callable[[], None] = lambda: None,
) -> ImportSummary:
    """Import pictures. Files are read as they are sent; whatever fails is in the summary.

    Args:
        client: the connection.
        collection: the collection's name.
        pictures: what to import.
        truncate: whether to cut texts that are longer than the model reads.
        with_path: whether the collection has the property for the path.
        tenant: whose pictures they are.
        journal: says which are stored already, and learns of those that are stored now.
        advance: called once for each picture that is done, stored or not.
    """
    summary = ImportSummary()
    sent: deque[tuple[str, str]] = deque()

    def objects() -> Iterator[Object]:
        for file in pictures.files:
            try:
                content = (pictures.folder / file).read_bytes()
            except OSError as error:
                summary.fail(file, f"the file cannot be read: {error.strerror}")
                advance()
                continue
            properties = pictures.properties(file)
            if not with_path:
                del properties[PATH_PROPERTY]
            made = Object(properties, images={IMAGE_PROPERTY: content}, id=picture_id(collection, file))
            digest = journal.digest(made) if journal else ""
            if journal and journal.has(made.id, digest):
                summary.skipped += 1
                advance()
                continue
            sent.append((file, digest))
            yield made

    try:
        for outcome in client.import_objects(collection, objects(), truncate=truncate, tenant=tenant):
            file, digest = sent.popleft()
            summary.add(file, outcome)
            if journal and outcome.error is None:
                journal.add(outcome.id, digest)
            advance()
    except VecgateError as error:
        summary.stopped = error
    return summary


def _reason(error: VecgateError) -> str:
    # The message itself names the field with the object's number in its call, which would set equal reasons apart.
    descriptions = [each.description for each in error.violations] or [error.message]
    return f"{error.reason or error.code.name}: {'; '.join(descriptions)}"
