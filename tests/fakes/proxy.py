"""A TCP proxy on loopback that loses answers, and cuts and half-closes connections."""

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

BUFFER_BYTES = 65_536
RESET = struct.pack("ii", 1, 0)
"""What SO_LINGER has to be for a closed socket to send RST instead of FIN."""


@dataclass(frozen=True)
class Fault:
    """What befalls each connection of a proxy.

    Attributes:
        kind: reset ends both sides with RST; half_close ends the answers, and the requests go on; silence loses all.
        requests: whether it befalls requests instead of answers.
        after: how many bytes of a connection pass before.
        wait_s: seconds after these.
    """

    kind: Literal["reset", "half_close", "silence"]
    requests: bool = False
    after: int = 0
    wait_s: float = 0.0


class Proxy:
    """Passes bytes between its port and a server, while it is used as a context manager.

    Attributes:
        deaf: settable; while it is set, what the server answers is lost.
        fault: settable; what befalls connections, open and new ones, while it is set.
        lost_bytes: how many bytes of answers were lost.
        faults: how many connections a fault has befallen.
    """

    def __init__(self, port: int) -> None:
        self.deaf = False
        self.fault: Fault | None = None
        self.lost_bytes = 0
        self.faults = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._listener.getsockname()[1])

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
                try:
                    server = socket.create_connection(("127.0.0.1", self._port))
                except OSError:
                    client.close()
                    continue
                self._open += [client, server]
                self._start(self._pass, client, server, False)
                self._start(self._pass, server, client, True)

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:  # noqa: FBT001
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(BUFFER_BYTES):
                passed += len(data)
                fault = self.fault
                if answers and self.deaf:
                    self.lost_bytes += len(data)
                elif fault is not None and fault.requests is not answers and passed > fault.after:
                    self._befall(fault, data, source, target)
                    if fault.kind != "silence":
                        return
                else:
                    target.sendall(data)
            # An end that says no more is heard by the other one.
            target.shutdown(socket.SHUT_WR)

    def _befall(self, fault: Fault, data: bytes, source: socket.socket, target: socket.socket) -> None:
        self.faults += 1
        if fault.kind == "silence":
            self.lost_bytes += len(data)
            return
        target.sendall(data if fault.wait_s else data[: len(data) // 2])
        time.sleep(fault.wait_s)
        if fault.kind == "half_close":
            target.shutdown(socket.SHUT_WR)
            return
        for end in (source, target):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            with contextlib.suppress(ValueError):
                self._open.remove(end)
            # The other thread holds the socket in recv, which would keep it open.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RD)
            end.close()
