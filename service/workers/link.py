"""What a worker and its parent tell each other, over a socket that is the worker's standard input.

The parent sends the settings, and secrets with them, as a pickle; the worker says once whether it serves, in a line of
JSON. The kernel closes the parent's end when the parent dies, however it does.
"""

import asyncio
import json
import os
import pickle
import shutil
import socket
import struct
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from service.settings import Settings

log = structlog.get_logger(__name__)

LENGTH = struct.Struct("!Q")


class Assignment(NamedTuple):
    """What a worker has to serve.

    Attributes:
        settings: of the service.
        models: folders with the sockets of the processes that run local models, by embedder.
    """

    settings: Settings
    models: Mapping[str, Path]


class WorkersFailed(Exception):
    """No worker serves; the message says why."""


class WorkerLink:
    """The parent's end.

    Args:
        ours: one end of a pair of sockets, whose other end is the worker's.
    """

    def __init__(self, ours: socket.socket) -> None:
        self._ours = ours
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def tell(self, what: Assignment) -> dict[str, Any]:
        """Send what to serve, and return what the worker says: `serving` or `fault`, or nothing if it has died."""
        self._reader, self._writer = await asyncio.open_connection(sock=self._ours)
        content = pickle.dumps(what)
        self._writer.write(LENGTH.pack(len(content)) + content)
        try:
            await self._writer.drain()
            line = await self._reader.readline()
        except ConnectionError:
            return {}
        return json.loads(line) if line else {}

    def close(self) -> None:
        """Let go of a worker that has ended; one that still runs ends now."""
        self._ours.close() if self._writer is None else self._writer.close()


class ParentLink:
    """A worker's end. The process ends when its parent does.

    Args:
        folder: of the files that the workers share, removed if the parent dies.
    """

    def __init__(self, folder: Path) -> None:
        self._parent = socket.socket(fileno=os.dup(0))
        with Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        self._folder = folder

    def assignment(self) -> Assignment:
        """Return what to serve; waits until the parent knows it. From then on the parent is watched.

        Raises:
            EOFError: the parent has died, or has no need of this worker any more.
        """
        with closing(self._parent.makefile("rb")) as received:
            head = received.read(LENGTH.size)
            if len(head) < LENGTH.size:
                raise EOFError
            assignment = pickle.loads(received.read(*LENGTH.unpack(head)))  # noqa: S301 -- from our own parent
        threading.Thread(target=self._end_with_parent, name="parent", daemon=True).start()
        assert isinstance(assignment, Assignment)
        return assignment

    def tell(self, **what: Any) -> None:
        """Say once what has become of the start."""
        self._parent.sendall(json.dumps(what).encode() + b"\n")

    def _end_with_parent(self) -> None:
        try:
            while self._parent.recv(1):
                pass
            shutil.rmtree(self._folder, ignore_errors=True)
            log.error("parent_died")
        finally:
            os._exit(1)
