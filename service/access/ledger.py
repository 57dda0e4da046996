"""What clients have used of their quotas: in this process, or in a file that all server processes share."""

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 0.01
NUMBER_BYTES = 8
NAME_BYTES = 64
"""The longest name that a client may have."""
NUMBERS = 4
"""Of each of the two quotas: what is used, and when that was last looked at."""
COUNTS = 3
"""Of each process: inputs in flight, and all inputs and bytes since the start."""
MAX_ROWS = 10_000
"""Clients in the file; what it never held takes no memory."""


class Row:
    """What one client has used.

    Attributes:
        inputs: tokens that are used up of its inputs a second, and when that was last looked at.
        bytes: the same of its bytes a second.
        look_every_s: seconds between looks at what other processes have released; None if there are no others.
    """

    look_every_s: float | None = None

    def __init__(self, numbers: "memoryview[float]", counts: memoryview, column: int) -> None:
        self.inputs, self.bytes = numbers[:2], numbers[2:]
        workers = len(counts) // COUNTS
        self._in_flight, self._all_inputs, self._all_bytes = (
            counts[at * workers : (at + 1) * workers] for at in range(COUNTS)
        )
        self._column = column

    @property
    def inputs_in_flight(self) -> int:
        """Inputs that wait for an embedder or that it is embedding, in all processes."""
        return sum(self._in_flight)

    @property
    def all_inputs(self) -> int:
        """Inputs that have been in flight since the start, in all processes."""
        return sum(self._all_inputs)

    @property
    def all_bytes(self) -> int:
        """Bytes of requests since the start, in all processes."""
        return sum(self._all_bytes)

    def add_in_flight(self, inputs: int) -> None:
        """Note that inputs are in flight in this process, or no longer are."""
        self._in_flight[self._column] += inputs

    def count(self, *, inputs: int = 0, size: int = 0) -> None:
        """Count inputs and bytes of this process."""
        # Only this process writes here, so that no call pays for a lock.
        self._all_inputs[self._column] += inputs
        self._all_bytes[self._column] += size

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from the numbers; only for moments, because their event loops wait."""
        yield

    def take_turn(self) -> bool:
        """Be the only process in which calls wait for room, and return whether it is."""
        return True

    def end_turn(self) -> None:
        """Let another process wait for room."""


class _SharedRow(Row):
    """A row of the file. Its locks belong to the process: the kernel releases them when it dies."""

    look_every_s = LOOK_EVERY_S

    def __init__(self, numbers: "memoryview[float]", counts: memoryview, column: int, file: int, offset: int) -> None:
        super().__init__(numbers, counts, column)
        self._file = file
        self._offset = offset

    @contextmanager
    def locked(self) -> Iterator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, self._offset)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._offset)

    def take_turn(self) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._offset + 1)
        except OSError:
            return False
        return True

    def end_turn(self) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._offset + 1)


class Ledger:
    """The rows of the clients that have called this process."""

    def row(self, client: str) -> Row:
        """Return a new row of a client."""
        del client
        numbers, counts = (memoryview(bytearray(each * NUMBER_BYTES)) for each in (NUMBERS, COUNTS))
        return Row(numbers.cast("d"), counts.cast("q"), 0)

    def names(self) -> frozenset[str]:
        """Return the clients that have called other processes of the server, as far as they are known."""
        return frozenset()


class SharedLedger(Ledger):
    """The rows of the clients that have called any server process. May be used in one event loop of each.

    The file has the number of its rows, then for each client its name, its numbers and its counts: the inputs in flight
    in each process, then all inputs, then all bytes. A row is locked by its first byte, and the turn to wait for room
    by its second one.
    """

    def __init__(self, file: Path, *, workers: int, worker: int = 0) -> None:
        """Open the file, or make it.

        Args:
            file: where it is; nothing else may open it in this process, because closing it ends this process's locks.
            workers: server processes, numbered from 1.
            worker: number of this one; 0 for their parent, which uses nothing.
        """
        self._row_bytes = NAME_BYTES + NUMBER_BYTES * (NUMBERS + COUNTS * workers)
        self._column = worker - 1
        size = NUMBER_BYTES + MAX_ROWS * self._row_bytes
        self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, size)
        self._bytes = memoryview(mmap.mmap(self._file, size))
        self._count = self._bytes[:NUMBER_BYTES].cast("q")
        self._local = Ledger()

    def row(self, client: str) -> Row:
        """Return the row of a client, which may be new."""
        name = client.encode().ljust(NAME_BYTES, b"\0")
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, 0)
        try:
            count = self._count[0]
            at = next((at for at in range(count) if self._part(at, 0, NAME_BYTES) == name), count)
            if at == MAX_ROWS:
                log.warning("quota_counted_by_each_worker", client=client, reason=f"more than {MAX_ROWS} clients")
                return self._local.row(client)
            if at == count:
                self._part(at, 0, NAME_BYTES)[:] = name
                self._count[0] = count + 1
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, 0)
        counts_at = NAME_BYTES + NUMBERS * NUMBER_BYTES
        numbers = self._part(at, NAME_BYTES, counts_at).cast("d")
        return _SharedRow(numbers, self._counts(at), self._column, self._file, self._offset(at))

    def names(self) -> frozenset[str]:
        """Return the clients that have a row."""
        rows = range(self._count[0])
        return frozenset(bytes(self._part(at, 0, NAME_BYTES)).rstrip(b"\0").decode() for at in rows)

    def forget(self, worker: int) -> None:
        """Note that nothing is in flight in a server process, because it has died. What it did still counts."""
        for at in range(self._count[0]):
            self._counts(at)[worker - 1] = 0

    def _counts(self, at: int) -> memoryview:
        return self._part(at, NAME_BYTES + NUMBERS * NUMBER_BYTES, self._row_bytes).cast("q")

    def _offset(self, at: int) -> int:
        return NUMBER_BYTES + at * self._row_bytes

    def _part(self, at: int, start: int, end: int) -> memoryview:
        return self._bytes[self._offset(at) + start : self._offset(at) + end]
