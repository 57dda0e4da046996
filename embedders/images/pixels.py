"""Memory that several processes share: decoders write pixels into it, the model's process reads them.

It is divided into slots of equal size, one for a picture. Only a Place, a number and a shape travel between processes.
"""

import asyncio
import errno
import mmap
import os
import sys
import tempfile
from collections import deque
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from embedders.errors import EmbedderUnavailable

_ALIGNMENT = 64
"""Bytes at whose multiples slots begin: a cache line, so that no two processes write to the same one."""

_MAPPINGS = 16
"""Memories of other processes that stay mapped."""


class Place(NamedTuple):
    """Where a PixelMemory is, for other processes of the same user.

    Attributes:
        path: of its file, while its process runs and it is not closed.
        device: that the file is on.
        inode: the file's number there. Later, the path may lead to another file.
        slot_bytes: bytes of a slot.
    """

    path: str
    device: int
    inode: int
    slot_bytes: int


class Slot:
    """A part of a PixelMemory. It is free again once nothing refers to it or to a view of it.

    Attributes:
        index: its number, from 0.
    """

    def __init__(self, memory: "PixelMemory", index: int) -> None:
        """Made by PixelMemory.take."""
        self.index = index
        self.memory = memory
        self._taken = True

    def view(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return the slot's beginning as an array, which can be written and keeps the slot taken.

        Raises:
            ValueError: the slot is too small for it.
        """
        return np.asarray(_Window(self.memory.at(self.index, shape, dtype), self))

    def release(self) -> None:
        """Free the slot now; views of it must not be used any more. May be called twice."""
        if self._taken:
            self._taken = False
            self.memory.free(self.index)

    def __del__(self) -> None:
        self.release()


class _Window:
    """Numbers of a slot, and the slot itself, which numpy would forget: arrays refer to the whole mapping alone."""

    def __init__(self, numbers: NDArray[Any], slot: Slot) -> None:
        self.__array_interface__ = numbers.__array_interface__
        self._alive = numbers, slot


class PixelMemory:
    """Slots that one process takes, and that others of the same user open. Belongs to one event loop.

    On Linux it is an anonymous file: no bound of /dev/shm holds for it, and nothing is left behind even if the process
    is killed. Elsewhere it is a temporary file, which `close` removes. Memory is used where it has been written to.

    Attributes:
        place: how other processes open it. Its slots have as many bytes as asked for, or a few more.
    """

    def __init__(self, slot_bytes: int, slots: int) -> None:
        """Make one of so many slots with at least so many bytes each.

        Raises:
            OSError: there is no memory, or no file descriptor.
        """
        slot_bytes = -(-slot_bytes // _ALIGNMENT) * _ALIGNMENT
        size = slot_bytes * slots
        if sys.platform == "linux":
            self._file = os.memfd_create("vecgate-pixels", os.MFD_CLOEXEC)
            path = f"/proc/{os.getpid()}/fd/{self._file}"
        else:
            self._file, path = tempfile.mkstemp(prefix="vecgate-pixels-")
        os.ftruncate(self._file, size)
        known = os.fstat(self._file)
        self.place = Place(path, known.st_dev, known.st_ino, slot_bytes)
        self._mapping = mmap.mmap(self._file, size)
        # The last one to be freed is the next one to be taken: its memory is in use already.
        self._free = list(range(slots - 1, -1, -1))
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def take(self) -> Slot:
        """Take a slot; wait, in the order of calls, until one is free.

        Raises:
            EmbedderUnavailable: the memory is closed, or was closed meanwhile.
        """
        if self._closed:
            raise _closed()
        self._loop = asyncio.get_running_loop()
        # In the queue first: a slot that is freed by another thread from here on wakes this call.
        turn: asyncio.Future[int] = self._loop.create_future()
        self._waiting.append(turn)
        self._hand_out()
        try:
            return Slot(self, await turn)
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and not turn.exception():
                self.free(turn.result())
            raise

    def at(self, index: int, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return the beginning of a slot as an array; see Slot.view."""
        return _array(self._mapping, self.place.slot_bytes, index, shape, dtype)

    def free(self, index: int) -> None:
        """Take a slot back, from any thread; called by the slot."""
        self._free.append(index)
        if self._waiting and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hand_out)

    def close(self) -> None:
        """Fail the calls that wait. Slots that are taken stay usable in this process. May be called twice."""
        if self._closed:
            return
        self._closed = True
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(_closed())
        os.close(self._file)
        if sys.platform != "linux":
            Path(self.place.path).unlink(missing_ok=True)

    def _hand_out(self) -> None:
        while self._waiting and self._free:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(self._free.pop())


def opened(place: Place, index: int, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return the beginning of a slot of another process's memory as an array that can be written.

    Args:
        place: of the memory.
        index: the slot's number.
        shape: of the array.
        dtype: of the array.

    Raises:
        OSError: the memory is closed, or its process has ended, before this process opened it for the first time.
        ValueError: the slot is too small for it.
    """
    return _array(_mapping(place), place.slot_bytes, index, shape, dtype)


@lru_cache(_MAPPINGS)
def _mapping(place: Place) -> mmap.mmap:
    with Path(place.path).open("r+b") as file:
        found = os.fstat(file.fileno())
        if (found.st_dev, found.st_ino) != (place.device, place.inode):
            # The number of a process or of a descriptor, and so the path, is used again.
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), place.path)
        return mmap.mmap(file.fileno(), 0)


def _array(mapping: mmap.mmap, slot_bytes: int, index: int, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    array: NDArray[Any] = np.ndarray(shape, dtype, mapping, index * slot_bytes)
    if array.nbytes > slot_bytes:
        raise ValueError(f"an array of {array.nbytes} bytes does not fit into a slot of {slot_bytes}")
    return array


def _closed() -> EmbedderUnavailable:
    return EmbedderUnavailable("the memory for pixels is closed")
