"""A folder of pictures as objects of a collection: which files, which ids, which properties, and sending them."""

import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedders.images import formats as image_formats
from service.cli.imports import Import
from service.cli.journal import Journal
from service.cli.sidecar import Row, Sidecar
from service.domain.keys import as_text, key_id, normal_path
from service.process.printable import printable
from vecgate.client import Client, ImportOutcome, Object, VecgateError
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb

IMAGE_PROPERTY = "image"
PATH_PROPERTY = "path"
SUFFIXES = frozenset(suffix for suffixes in image_formats.SUFFIXES.values() for suffix in suffixes)
HEIC_SUFFIXES = frozenset(image_formats.HEIC_SUFFIXES)
LINKS_TO_FOLDERS = "links to folders"
# Of a file that is read into memory. No server takes as many for a picture.
MAX_FILE_BYTES = 2**29


@dataclass(frozen=True, slots=True)
class PictureFolder:
    """A folder of pictures.

    Attributes:
        folder: the folder.
        files: its pictures, relative to it, in order.
        sidecar: the table of their properties.
        rows_without_picture: rows that name a file which is missing or not a picture.
        pictures_without_row: pictures that the table does not name; empty without a table.
        refused: what can't be imported, folders among it, each with the reason.
        ignored: files that are not imported because their names do not end like a picture's, by suffix, and links to
            folders.
    """

    folder: Path
    files: tuple[str, ...]
    sidecar: Sidecar | None
    rows_without_picture: tuple[Row, ...]
    pictures_without_row: tuple[str, ...]
    refused: tuple[tuple[str, str], ...] = ()
    ignored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def properties(self, file: str) -> dict[str, object]:
        """Return a picture's properties."""
        row = self.sidecar.rows.get(normal_path(file)) if self.sidecar else None
        return {PATH_PROPERTY: normal_path(file), **(row.properties if row else {})}


@dataclass(slots=True)
class ImportSummary:
    """The outcomes of the pictures.

    Attributes:
        stored: how many are stored.
        skipped: how many are passed over, because the journal says that they are stored.
        left_out: how many are not stored because they duplicate others.
        duplicates: what each duplicate duplicates, by file; also of those that are stored.
        failed: the files that are not, by reason.
        stopped: why the import ended before the last picture; None when it did not.
    """

    stored: int = 0
    skipped: int = 0
    left_out: int = 0
    duplicates: dict[str, object_pb.Duplicate] = field(default_factory=dict)
    failed: dict[str, list[str]] = field(default_factory=dict)
    stopped: VecgateError | None = None

    @property
    def failed_count(self) -> int:
        """How many are not stored."""
        return sum(map(len, self.failed.values()))

    def add(self, file: str, outcome: ImportOutcome) -> None:
        """Count a picture."""
        if outcome.error is not None:
            self.fail(file, outcome_reason(outcome.error))
        else:
            self.stored += outcome.stored
            self.left_out += outcome.skipped
        if outcome.duplicate_of is not None:
            self.duplicates[file] = outcome.duplicate_of

    def fail(self, file: str, reason: str) -> None:
        """Count a picture that is not stored."""
        self.failed.setdefault(reason, []).append(file)


def picture_id(collection: str, file: str) -> str:
    """Return a picture's id: the same for the same collection and path on every system."""
    return key_id(collection, normal_path(file))


def scan_folder(folder: Path, sidecar: Sidecar | None, *, limit: int | None = None) -> PictureFolder:
    """Find the pictures in a folder and its folders, and match them with the table. Links to folders are not followed.

    Raises:
        OSError: the folder cannot be read.
    """
    found: dict[str, str] = {}
    refused: list[tuple[str, str]] = []
    ignored: dict[str, list[str]] = {}
    for file in _names(folder, refused, ignored):
        suffix = os.path.splitext(file)[1].lower()  # noqa: PTH122 -- a Path changes what it is made of
        if suffix not in SUFFIXES:
            if sidecar is None or folder / file != sidecar.path:
                ignored.setdefault(suffix or "no suffix", []).append(file)
        elif (other := found.setdefault(normal_path(file), file)) != file:
            refused.append((file, f"its path is that of {shown_path(other)}, spelled in another way; rename one"))
    files = tuple(found.values())[:limit]
    rows = sidecar.rows if sidecar else {}
    return PictureFolder(
        folder=folder,
        files=files,
        sidecar=sidecar,
        rows_without_picture=tuple(row for file, row in rows.items() if file not in found),
        pictures_without_row=tuple(file for file in files if sidecar and normal_path(file) not in rows),
        refused=tuple(refused),
        ignored={kind: tuple(names) for kind, names in ignored.items()},
    )


def _names(folder: Path, refused: list[tuple[str, str]], ignored: dict[str, list[str]]) -> list[str]:
    """Return the names of all files, relative to a folder, in order."""

    def relative(path: str) -> str:
        return Path(os.path.relpath(path, folder)).as_posix()

    def fail(error: OSError) -> None:
        if error.filename == str(folder):
            raise error
        refused.append((relative(error.filename), f"the folder cannot be read: {error.strerror}"))

    names: list[str] = []
    for parent, folders, files in os.walk(folder, onerror=fail):
        names += (relative(os.path.join(parent, each)) for each in files)  # noqa: PTH118 -- Paths take thrice the time
        links = [each for each in folders if os.path.islink(os.path.join(parent, each))]  # noqa: PTH114, PTH118
        if links:
            ignored.setdefault(LINKS_TO_FOLDERS, []).extend(relative(os.path.join(parent, each)) for each in links)  # noqa: PTH118
    return sorted(names)


def shown_path(file: str) -> str:
    """Return a path for people: in one line, characters that control a terminal escaped."""
    return printable(as_text(file))


def schema_of(
    collection: str, pictures: PictureFolder, *, text_fields: Sequence[pb.WeightedField] = (), embedder: str = ""
) -> pb.Collection:
    """Return the collection that a folder needs: the image, the path, the table's columns, and one named vector."""
    types = dict(pictures.sidecar.types) if pictures.sidecar else {}
    return pb.Collection(
        name=collection,
        properties=[
            property_pb.Property(name=IMAGE_PROPERTY, data_type=property_pb.DATA_TYPE_BLOB, description="The picture."),
            property_pb.Property(
                name=PATH_PROPERTY, data_type=property_pb.DATA_TYPE_TEXT, description="Where it was in its folder."
            ),
            *(property_pb.Property(name=name, data_type=data_type) for name, data_type in types.items()),
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
    chosen: Import,
    pictures: PictureFolder,
    *,
    with_path: bool = True,
    journal: Journal | None = None,
    duplicates: object_pb.DuplicateCheck | None = None,
    advance: Callable[[], None] = lambda: None,
) -> ImportSummary:
    """Import pictures. Files are read as they are sent; whatever fails is in the summary.

    Args:
        client: the connection.
        chosen: the options.
        pictures: what to import.
        with_path: whether the collection has the property for the path.
        journal: says which are stored already, and learns of those that are stored now.
        duplicates: what to do with duplicates; None to store all.
        advance: called once for each picture that is done, stored or not.
    """
    summary, sent = ImportSummary(), deque[tuple[str, str]]()
    for file, reason in pictures.refused:
        summary.fail(file, reason)

    def objects() -> Iterator[Object]:
        for file in pictures.files:
            try:
                content = read_picture(pictures.folder / file)
            except OSError as error:
                summary.fail(file, f"the file cannot be read: {error.strerror or error}")
                advance()
                continue
            properties = pictures.properties(file)
            if not with_path:
                del properties[PATH_PROPERTY]
            made = Object(properties, images={IMAGE_PROPERTY: content}, id=picture_id(chosen.collection, file))
            digest = journal.digest(made) if journal else ""
            if journal and journal.has(made.id, digest):
                summary.skipped += 1
                advance()
                continue
            sent.append((file, digest))
            yield made

    answers = client.import_objects(
        chosen.collection, objects(), truncate=chosen.truncate, tenant=chosen.tenant, duplicates=duplicates
    )
    try:
        for outcome in answers:
            file, digest = sent.popleft()
            summary.add(file, outcome)
            if journal and outcome.stored:
                journal.add(outcome.id, digest)
            advance()
    except VecgateError as error:
        summary.stopped = error
    return summary


def read_picture(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        OSError: it cannot be read, or is not a file that may be.
    """
    status = path.stat()
    # Reading a pipe waits forever, and some devices never end.
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is a pipe, a socket or a device")
    if status.st_size > MAX_FILE_BYTES:
        raise OSError(f"it has {status.st_size} bytes; the limit is {MAX_FILE_BYTES}")
    content = path.read_bytes()
    if not content:
        raise OSError("it is empty")
    return content


def outcome_reason(error: VecgateError) -> str:
    """Return why an object is not stored, equal for objects with the same fault."""
    # The message itself names the field with the object's number in its call, which would set equal reasons apart.
    descriptions = [each.description for each in error.violations] or [error.message]
    return f"{error.reason or error.code.name}: {'; '.join(descriptions)}"
