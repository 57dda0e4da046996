"""A TCP proxy on loopback that loses answers and cuts connections."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

__all__ = ["Proxy"]

BUFFER_BYTES = 65_536


class Proxy:
    """Passes bytes between its port and a server, while it is used as a context manager.

    Attributes:
        deaf: settable; while it is set, what the server answers is lost.
        lost_bytes: how many bytes of answers were.
    """

    def __init__(self, port: int) -> None:
        self.deaf = False
        self.lost_bytes = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def cut(self) -> None:
        """Cut all connections; new ones are taken."""
        while self._open:
            end = self._open.pop()
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._open += [client, server]
                self._start(self._pass, client, server, False)
                self._start(self._pass, server, client, True)

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:  # noqa: FBT001
        with contextlib.suppress(OSError):
            while data := source.recv(BUFFER_BYTES):
                if answers and self.deaf:
                    self.lost_bytes += len(data)
                else:
                    target.sendall(data)
