"""The ledger: which fragments of the input are done, kept beside the output, on a disk or in an object store.

A fragment has an entry once each of its rows is stored, rejected or left out, and not before. So a repeated command
does what has no entry, whatever ended the command before, and on however many machines. An entry is named by what
identifies the content of its fragment: a changed file has another identity, and is done again.

    run.json                 what the ledger belongs to: the collection, what ids and vectors depend on, and its own id
    unfinished               the command that runs, as `Ledger.run` names it, or the last one, if it did not end well
    fragments/NAME.json      an entry; written last, in one piece
    ids/NAME                 the ids of its stored rows, 16 bytes each
    rejected/NAME.parquet    its rejected rows, with reasons; only if there are any
    duplicates/NAME.parquet  its rows that duplicate another object, if that was looked for; only if there are any
"""

import hashlib
import io
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, from_url

from service.errors import InvalidRequest, ServiceError, Violation

RUN, UNFINISHED, ENTRIES, IDS = "run.json", "unfinished", "fragments", "ids"
REJECTED, DUPLICATES = "rejected", "duplicates"
LEDGER_ID = "_ledger"
"""In run.json: a random text, by which an output tells whose it is."""
ID_BYTES = 16

READ_AT_ONCE = 16
"""Files of the ledger or the output that are read at the same time, and wait in memory until all of them are used."""

IDS_AT_ONCE = 4_000_000
"""Ids that are compared at a time, about 64 MB. More are compared in parts by their first bytes, and wait in temporary
files until then."""
PARTS_AT_ONCE = 96
"""Parts, each with a temporary file for the input and one for its earlier versions: some systems let a process open 256
files. Parts of more than 384 million ids are larger."""

PLACE = [("location", pa.string()), ("part", pa.string()), ("row", pa.int64()), ("place", pa.string())]
REJECTED_SCHEMA = pa.schema([*PLACE, ("reason", pa.string()), ("message", pa.string())])
DUPLICATES_SCHEMA = pa.schema(
    [
        *PLACE,
        ("id", pa.string()),
        ("duplicate_of", pa.string()),
        ("cosine", pa.float64()),
        ("same_content", pa.bool_()),
        ("skipped", pa.bool_()),
    ]
)


Found = TypeVar("Found")


class LedgerFailed(ServiceError):
    """The ledger cannot be read or written, or another command has begun with it; the message says where and why."""


class Entry(msgspec.Struct, frozen=True):
    """The result of a fragment.

    Attributes:
        name: its name here.
        location: where the fragment is.
        part: which part of that it is, in words.
        identity: what changes with its content.
        rows: how many rows it has.
        stored: how many of them are stored, or were found to be stored as the same object.
        rejected: how many are not, by reason.
        run: the command that did it, as `Ledger.run` names it.
        skipped: how many are left out because they duplicate another object.
        similar: how many are stored though they do.
    """

    name: str
    location: str
    part: str
    identity: str
    rows: int
    stored: int
    rejected: dict[str, int]
    run: str
    skipped: int = 0
    similar: int = 0


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that is not stored, by its number in the fragment and its place in the file, and why."""

    row: int
    place: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A row that duplicates another object, by its number in the fragment and its place in the file.

    Attributes:
        row: its number.
        place: its place.
        id: of its own object.
        duplicate_of: the id of the other one.
        cosine: of their vectors.
        same_content: whether these are made of the same texts and images.
        skipped: whether the row is left out.
    """

    row: int
    place: str
    id: str
    duplicate_of: str
    cosine: float
    same_content: bool
    skipped: bool


@dataclass(slots=True)
class Totals:
    """What all entries together say.

    Attributes:
        fragments: how many there are.
        rows: rows in.
        rejected: rows that are not stored, by reason.
        skipped: rows that are not stored because they duplicate another object.
        similar: rows that are stored though they do.
        distinct: the different ids of the rows that are stored: as many objects are.
        outdated: objects that only rows of earlier versions of changed fragments had; they are still stored.
        runs: which command did each fragment, by the names of all entries.
        stored: how many rows of each fragment as it is now are stored, by the names of their entries.
    """

    fragments: int = 0
    rows: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    similar: int = 0
    distinct: int = 0
    outdated: int = 0
    runs: dict[str, str] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        """Rows that are neither rejected nor left out."""
        return self.rows - sum(self.rejected.values()) - self.skipped

    @property
    def duplicates(self) -> int:
        """Rows whose object is that of another row, with its id."""
        return self.kept - self.distinct


def open_folder(location: str) -> Any:
    """Return a store of files by its URL, or by a local path, which is made.

    Raises:
        LedgerFailed: there is no such store, or it cannot be reached.
    """
    try:
        if "://" not in location:
            return LocalStore(Path(location).absolute(), mkdir=True)
        return from_url(location)
    except (BaseError, OSError, ValueError) as error:
        raise LedgerFailed(f"{location}: {_first_line(error)}") from error


@contextmanager
def failing(where: str) -> Iterator[None]:
    """Turn what a store of files raises into an error that names the place.

    Raises:
        LedgerFailed: the store failed.
    """
    try:
        yield
    except (BaseError, OSError) as error:
        raise LedgerFailed(f"{where}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def name_of(location: str, part: str, identity: str) -> str:
    """Return the name of a fragment's entry: 32 hexadecimal digits."""
    # Names of files need not be UTF-8; JSON has escapes for what is not.
    return hashlib.sha256(json.dumps([location, part, identity]).encode()).hexdigest()[:32]


def _uuid(id_: bytes) -> UUID:
    # numpy leaves out zeros at the end.
    return UUID(bytes=bytes(id_).ljust(ID_BYTES, b"\0"))


def _each_of(read: Callable[[str], Found], names: Sequence[str]) -> Iterator[Found]:
    """Yield what is read for each name, in their order, a few at a time."""
    with ThreadPoolExecutor(READ_AT_ONCE) as threads:
        for start in range(0, len(names), READ_AT_ONCE):
            # With all names, it would keep everything in memory that it has read and nobody has taken yet.
            yield from threads.map(read, names[start : start + READ_AT_ONCE])


class Ledger:
    """The ledger at one location. One command at a time writes it: when another one enters, the earlier one fails.

    Attributes:
        location: a folder or a URL.
        run: a random text that tells this command from others, 8 hexadecimal digits.
    """

    def __init__(self, location: str) -> None:
        """Open it.

        Raises:
            LedgerFailed: the location cannot be used.
        """
        self.location = location
        self.run = secrets.token_hex(4)
        self._files = open_folder(location)

    @property
    def id(self) -> str:
        """A random text that tells it from others; empty before it begins.

        Raises:
            LedgerFailed: it cannot be read.
        """
        return str(self.begun().get(LEDGER_ID, ""))

    def begun(self) -> dict[str, Any]:
        """Return what it belongs to, as `begin` recorded it; nothing before that.

        Raises:
            LedgerFailed: it cannot be read.
        """
        found = self._read(RUN)
        return {} if found is None else self._decode(RUN, found, dict[str, Any])

    def begin(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """Record what the ledger belongs to, or compare it with what was recorded, and return that.

        Args:
            run: what it belongs to; names that begin with an underscore are recorded and not compared.

        Raises:
            InvalidRequest: it belongs to something else.
            LedgerFailed: it cannot be read or written.
        """
        recorded = self.begun()
        if not recorded:
            new = {**run, LEDGER_ID: secrets.token_hex(16)}
            if self._create(RUN, msgspec.json.encode(new)):
                return new
            recorded = self.begun()
        wanted = msgspec.json.decode(msgspec.json.encode(run))
        for name in sorted(wanted.keys() | recorded.keys()):
            if not name.startswith("_") and recorded.get(name) != wanted.get(name):
                message = (
                    f"{self.location} is of a run with {name} = {recorded.get(name)!r}, and this one has "
                    f"{wanted.get(name)!r}; use another ledger"
                )
                raise InvalidRequest([Violation("ledger", message)])
        return recorded

    def enter(self) -> bool:
        """Note that this command runs, and return whether an earlier one did not end well.

        Raises:
            LedgerFailed: it cannot be read or written.
        """
        unfinished = self._read(UNFINISHED) is not None
        self._write(UNFINISHED, self.run.encode())
        return unfinished

    def check_alone(self) -> None:
        """Check that no other command has entered since this one did.

        Raises:
            LedgerFailed: one has, or the ledger cannot be read.
        """
        if self._read(UNFINISHED) != self.run.encode():
            raise LedgerFailed(
                f"{self.location}: another command uses this ledger since this one began, so this one stops; what is "
                "done counts. Wait until the other one has ended, and repeat this command"
            )

    def leave(self) -> None:
        """Note that the command ends well.

        Raises:
            LedgerFailed: it cannot be written, or another command has entered.
        """
        self.check_alone()
        with failing(self.location):
            obstore.delete(self._files, UNFINISHED)

    def done(self) -> set[str]:
        """Return the names of all entries.

        Raises:
            LedgerFailed: it cannot be read.
        """
        with failing(self.location):
            pages = obstore.list(self._files, ENTRIES)
            return {Path(each["path"]).stem for page in pages for each in page if each["path"].endswith(".json")}

    def add(
        self,
        entry: Entry,
        ids: Sequence[bytes],
        rejections: Sequence[Rejection],
        duplicates: Sequence[Duplicate] = (),
    ) -> None:
        """Add the entry of a fragment of which every row has its outcome; an entry that is there stays.

        Raises:
            LedgerFailed: it cannot be written, or another command has entered.
        """
        self.check_alone()
        self._write(f"{IDS}/{entry.name}", b"".join(ids))
        for folder, rows, schema in (
            (REJECTED, rejections, REJECTED_SCHEMA),
            (DUPLICATES, duplicates, DUPLICATES_SCHEMA),
        ):
            path = f"{folder}/{entry.name}.parquet"
            if not rows:
                # A command that was killed before the entry may have left some.
                self._remove(path)
                continue
            where = {"location": entry.location, "part": entry.part}
            file = io.BytesIO()
            pq.write_table(pa.Table.from_pylist([{**where, **asdict(each)} for each in rows], schema), file)
            self._write(path, file.getvalue())
        # Another command may have entered since the check. The first entry says whose files in an output count.
        self._create(f"{ENTRIES}/{entry.name}.json", msgspec.json.encode(entry))

    def forget(self, names: Iterable[str]) -> None:
        """Remove the entries of fragments that are to be done again.

        Raises:
            LedgerFailed: they cannot be removed, or another command has entered.
        """
        self.check_alone()
        for name in names:
            with failing(self.location):
                obstore.delete(self._files, f"{ENTRIES}/{name}.json")
            for folder in (REJECTED, DUPLICATES):
                self._remove(f"{folder}/{name}.parquet")

    def entries(self) -> Iterator[Entry]:
        """Yield all entries.

        Raises:
            LedgerFailed: they cannot be read.
        """
        paths = [f"{ENTRIES}/{name}.json" for name in sorted(self.done())]
        for path, content in zip(paths, _each_of(self._read, paths), strict=True):
            if content is not None:
                yield self._decode(path, content, Entry)

    def totals(self, current: set[str]) -> Totals:
        """Return what all entries together say.

        Args:
            current: the names of the fragments as they are now; other entries are of earlier versions.

        Raises:
            LedgerFailed: it cannot be read.
        """
        totals, others = Totals(), dict[str, int]()
        for entry in self.entries():
            totals.runs[entry.name] = entry.run
            if entry.name not in current:
                others[entry.name] = entry.stored
                continue
            totals.fragments += 1
            totals.rows += entry.rows
            totals.skipped += entry.skipped
            totals.similar += entry.similar
            totals.stored[entry.name] = entry.stored
            for reason, count in entry.rejected.items():
                totals.rejected[reason] = totals.rejected.get(reason, 0) + count
        # The few ids of entries that are no longer of the input are read beside the others.
        count = totals.rows + sum(others.values())
        parts = min(PARTS_AT_ONCE, max(1, -(-count // IDS_AT_ONCE)))
        old = self._ids_in_parts(others, parts)
        for ids, old_ids in zip(self._ids_in_parts(totals.stored, parts), old, strict=True):
            now = np.unique(ids)
            totals.distinct += now.size
            totals.outdated += np.setdiff1d(old_ids, now).size
        return totals

    def all_ids(self, names: Iterable[str]) -> Iterator[tuple[UUID, str]]:
        """Yield the ids of all stored rows of the fragments of these names, each with that name.

        Raises:
            LedgerFailed: it cannot be read.
        """
        return ((_uuid(each), name) for name in names for each in self._ids_of(name))

    def some_ids(self, names: Sequence[str], count: int) -> Iterator[tuple[UUID, str]]:
        """Yield about so many ids of stored rows, spread over the fragments of these names and over their rows.

        Each comes with the name of its fragment.

        Raises:
            LedgerFailed: it cannot be read.
        """
        chosen = names[:: max(1, len(names) // max(1, count))]
        each_of = max(1, -(-count // max(1, len(chosen))))
        found = (
            (_uuid(each), name)
            for name in chosen
            for ids in [self._ids_of(name)]
            for each in ids[:: max(1, ids.size // each_of)]
        )
        return islice(found, max(count, len(chosen)))

    def _ids_in_parts(self, stored: Mapping[str, int], parts: int) -> Iterator[NDArray[np.bytes_]]:
        """Yield the ids of entries, in so many parts by their first bytes. The file of each entry is read once.

        Args:
            stored: how many ids each entry has, by its name.
            parts: how many parts.

        Raises:
            LedgerFailed: an entry has another number of ids.
        """
        in_memory = IDS_AT_ONCE * ID_BYTES // parts
        with ExitStack() as ends, failing("the folder for temporary files"):
            files = [ends.enter_context(SpooledTemporaryFile(in_memory)) for _ in range(parts)]
            for (name, count), ids in zip(stored.items(), _each_of(self._ids_of, list(stored)), strict=True):
                if ids.size != count:
                    raise self._damaged(f"{IDS}/{name}", f"{ids.size} ids instead of {count}")
                # Ids are hashes, and so spread evenly.
                first = ids.view(">u2").reshape(-1, ID_BYTES // 2)[:, 0].astype(np.uint32)
                places = first * parts >> 16
                for place in np.unique(places):
                    files[place].write(ids[places == place].tobytes())
            for file in files:
                file.seek(0)
                yield np.frombuffer(file.read(), f"S{ID_BYTES}")

    def _ids_of(self, name: str) -> NDArray[np.bytes_]:
        content = self._read(f"{IDS}/{name}") or b""
        return np.frombuffer(content[: len(content) // ID_BYTES * ID_BYTES], f"S{ID_BYTES}")

    def _decode(self, path: str, content: bytes, kind: type[Found]) -> Found:
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.DecodeError as error:
            raise self._damaged(path, str(error)) from error

    def _damaged(self, path: str, what: str) -> LedgerFailed:
        """Return the error of a file that is not as it was written, as after a power cut."""
        repair = "use another ledger"
        if path != RUN:
            repair = f"delete {ENTRIES}/{Path(path).stem}.json, and its rows are done again"
        return LedgerFailed(f"{self.location}/{path} is damaged ({what}); {repair}")

    def _read(self, path: str) -> bytes | None:
        with failing(f"{self.location}/{path}"):
            try:
                return bytes(obstore.get(self._files, path).bytes())
            except (FileNotFoundError, NotFoundError):
                return None

    def _write(self, path: str, content: bytes) -> None:
        with failing(f"{self.location}/{path}"):
            obstore.put(self._files, path, content)

    def _remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        with failing(f"{self.location}/{path}"), suppress(FileNotFoundError, NotFoundError):
            obstore.delete(self._files, path)

    def _create(self, path: str, content: bytes) -> bool:
        """Write a file unless it is there, and return whether it was not."""
        with failing(f"{self.location}/{path}"):
            try:
                obstore.put(self._files, path, content, mode="create")
            except AlreadyExistsError:
                return False
        return True
