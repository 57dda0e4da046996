"""The process that loads a model, and the processes that run it.

On a GPU they are one. On a CPU the process that has loaded the model forks those that run it, so that they share its
weights and libraries, and forks a new one when one ends. It computes in one thread until then: threads do not survive a
fork. All of them end when their owner, who holds the other end of a socket, is gone.
"""

import contextlib
import fcntl
import gc
import heapq
import os
import select
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from embedders.children import how_it_ended
from embedders.clip.config import ClipConfig
from embedders.clip.encoding import Encoder
from embedders.clip.libraries import import_open_clip
from embedders.clip.loading import GIB, LoadedModel, load
from embedders.clip.messages import FAREWELL, Answer, Cancel, Facts, Job, Messages, packed
from embedders.errors import ModelUnusable

MOST_PROCESSES = 8
"""Processes on a CPU. Further cores are used by more threads in each."""

MAX_SHARED_BYTES = GIB
"""A model with more bytes of weights runs in one process with all cores: several would all read the weights from memory
at the same time, and one input would take one core much too long."""

SEND_TIMEOUT_S = 10.0
"""Seconds after which a server that reads no answers is given up, so that others get theirs."""

GPU_THREADS = 2
"""Jobs at the same time on a GPU: one is read, copied and started while the other one is computed."""

READ_BYTES = 2**20
LONG_LIFE_S = 1.0
LONGEST_PAUSE_S = 10.0
"""A process that ends within LONG_LIFE_S is followed by the next one after a pause, which grows up to this."""


def main() -> None:
    """Load the model that the owner asks for, and run it until the owner is gone.

    Arguments: the socket's number, and the folder for sockets.
    """
    # A Ctrl-C in the terminal is for the server, which then closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    folder = Path(sys.argv[2])
    owner = _Owner(connection, folder)
    config, number = _first_message(owner)
    try:
        model = _load(config)
    except ModelUnusable as error:
        owner.tell(error)
        return
    on_cpu = model.replica.on_cpu
    facts = replace(model.facts, processes=_processes(model.facts) if on_cpu else len(model.facts.devices))
    numbers = range(facts.processes) if on_cpu else [number]
    listeners = {each: _listener(folder / f"{each}.sock") for each in numbers}
    owner.tell(facts)
    if on_cpu:
        _Template(model, facts, listeners, owner).run()
    else:
        _Server(model, facts, listeners[number], owner).run()


def _first_message(owner: "_Owner") -> tuple[ClipConfig, int]:
    messages = Messages()
    while True:
        if not (piece := owner.connection.recv(READ_BYTES)):
            owner.end()
        if complete := messages.add(piece):
            first: tuple[ClipConfig, int] = complete[0]
            return first


def _load(config: ClipConfig) -> LoadedModel:
    torch, _ = import_open_clip()
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    with turn_to_load() if torch.cuda.is_available() else contextlib.nullcontext():
        model = load(config)
    return replace(model, facts=replace(model.facts, cores=cores))


@contextlib.contextmanager
def turn_to_load() -> Iterator[None]:
    """Wait until no other process of this user loads a model: on one GPU, each must see the memory that others left."""
    path = Path(tempfile.gettempdir()) / f"vecgate-{os.getuid()}-loading"
    turn = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield
    finally:
        os.close(turn)


def _processes(facts: Facts) -> int:
    """Return how many processes run the model on a CPU."""
    if len(facts.devices) > 1:
        return len(facts.devices)
    return 1 if facts.held_bytes > MAX_SHARED_BYTES else min(facts.cores, MOST_PROCESSES)


def _listener(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    return listener


class _Owner:
    """The server that has started this process, and holds the other end of a connection.

    Attributes:
        connection: can be read once the owner has no need of this process any more.
    """

    def __init__(self, connection: socket.socket, folder: Path) -> None:
        self.connection = connection
        self._folder = folder

    def tell(self, message: Any) -> None:
        """Send a message; if there is no owner any more, end."""
        try:
            self.connection.sendall(packed(message))
        except OSError:
            self.end()

    def end(self) -> None:
        """End this process and all of its group: one that hangs cannot end by itself."""
        farewell = b""
        with contextlib.suppress(OSError):
            # The others of the group must see it, too.
            farewell = self.connection.recv(len(FAREWELL), socket.MSG_PEEK)
        if not farewell:
            # It was killed, and does not remove it.
            shutil.rmtree(self._folder, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)


class _Template:
    """Forks the processes that run the model, and a new one for each that ends."""

    def __init__(self, model: LoadedModel, facts: Facts, listeners: dict[int, socket.socket], owner: _Owner) -> None:
        self._model = model
        self._facts = facts
        # It keeps them, so that who connects while there is no process waits for the next one.
        self._listeners = listeners
        self._owner = owner
        self._running: dict[int, int] = {}
        self._begun_s: dict[int, float] = {}
        self._pause_s = dict.fromkeys(listeners, 0.0)
        self._due_s = dict.fromkeys(listeners, 0.0)
        self._ends = dict.fromkeys(listeners, "")

    def run(self) -> None:
        """Go on until the owner is gone; then end everything."""
        wakeup, woken = socket.socketpair()
        for each in (wakeup, woken):
            each.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(woken.fileno())
        # Collecting garbage would write to the pages that all processes share.
        gc.collect()
        gc.freeze()
        while True:
            self._fork_due()
            next_s = min(self._due_s.values(), default=None)
            left_s = None if next_s is None else max(0.0, next_s - time.monotonic())
            readable, _, _ = select.select([self._owner.connection, wakeup], [], [], left_s)
            if self._owner.connection in readable:
                self._owner.end()
            if wakeup in readable:
                wakeup.recv(READ_BYTES)
                self._note_ends()

    def _fork_due(self) -> None:
        now_s = time.monotonic()
        for number in [each for each, due_s in self._due_s.items() if due_s <= now_s]:
            del self._due_s[number]
            self._begun_s[number] = now_s
            if (pid := os.fork()) == 0:
                self._serve(number)
            self._running[pid] = number

    def _serve(self, number: int) -> None:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            facts = replace(self._facts, last_end=self._ends[number])
            _Server(self._model, facts, self._listeners[number], self._owner).run()
        finally:
            os._exit(1)

    def _note_ends(self) -> None:
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            number, now_s = self._running.pop(pid), time.monotonic()
            short = now_s - self._begun_s[number] < LONG_LIFE_S
            self._pause_s[number] = min(max(0.1, 2 * self._pause_s[number]), LONGEST_PAUSE_S) if short else 0.0
            self._due_s[number] = now_s + self._pause_s[number]
            self._ends[number] = how_it_ended(os.waitstatus_to_exitcode(status))
            self._owner.tell(self._ends[number])


class _Server:
    """Does the jobs of all connections, the most urgent one first.

    On a CPU one thread does all: while a job runs, messages wait in their sockets, because a second thread would cost
    each job two switches. On a GPU threads do the jobs, and this one only reads what comes.
    """

    def __init__(self, model: LoadedModel, facts: Facts, listener: socket.socket, owner: _Owner) -> None:
        self._encoder = Encoder(model)
        self._replica = model.replica
        self._share = max(1, facts.cores // facts.processes)
        self._cores = facts.cores
        self._greeting = packed(facts)
        self._owner = owner
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._received: dict[socket.socket, Messages] = {}
        self._jobs: list[tuple[int, int, socket.socket, Job]] = []
        self._cancelled: set[tuple[socket.socket, int]] = set()
        self._turns = count()
        # Held where jobs and connections are looked up or changed.
        self._changed = threading.Condition()
        # Held where an answer is sent: pieces of two must not mix.
        self._sending = threading.Lock()

    def run(self) -> None:
        """Go on until the process ends."""
        threading.Thread(target=self._end_with_owner, daemon=True).start()
        on_cpu = self._replica.on_cpu
        for _ in range(0 if on_cpu else GPU_THREADS):
            threading.Thread(target=self._work, daemon=True).start()
        while True:
            for key, _ in self._selector.select(0 if on_cpu and self._jobs else None):
                with self._changed:
                    self._read(key.fileobj)
                    self._changed.notify_all()
            if on_cpu and self._jobs:
                self._do(*self._next())

    def _work(self) -> None:
        """Do jobs in a thread; a fault that no job has caused ends the process."""
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._jobs)
                    connection, job = self._next()
                self._do(connection, job)
        finally:
            os._exit(1)

    def _next(self) -> tuple[socket.socket, Job]:
        _, _, connection, job = heapq.heappop(self._jobs)
        return connection, job

    def _end_with_owner(self) -> None:
        # The template ends them as well, but may have been killed before.
        select.select([self._owner.connection], [], [])
        self._owner.end()

    def _read(self, source: Any) -> None:
        if (messages := self._received.get(source)) is None:
            connection, _ = source.accept()
            connection.settimeout(SEND_TIMEOUT_S)
            self._received[connection] = Messages()
            self._selector.register(connection, selectors.EVENT_READ)
            self._send(connection, self._greeting)
            return
        try:
            piece = source.recv(READ_BYTES)
        except OSError:
            piece = b""
        if not piece:
            self._forget(source)
        for message in messages.add(piece):
            if isinstance(message, Cancel):
                self._cancelled.add((source, message.number))
            else:
                heapq.heappush(self._jobs, (message.urgency, next(self._turns), source, message))

    def _do(self, connection: socket.socket, job: Job) -> None:
        with self._changed:
            gone, cancelled = connection not in self._received, (connection, job.number) in self._cancelled
        if gone:
            return
        if cancelled:
            answer = Answer(job.number)
        else:
            self._replica.compute_on(self._cores if job.alone else self._share)
            answer = self._encoder.answer(job)
        self._send(connection, packed(answer))
        with self._changed:
            self._cancelled.discard((connection, job.number))
        if answer.error is not None and not self._replica.works:
            # After some errors of CUDA nothing works any more in this process.
            os._exit(1)

    def _send(self, connection: socket.socket, message: bytes) -> None:
        with self._sending:
            try:
                connection.sendall(message)
            except OSError:
                # The thread that reads from it notices, and forgets it.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _forget(self, connection: socket.socket) -> None:
        """Drop a connection that has ended, and with it its jobs."""
        if self._received.pop(connection, None) is not None:
            self._selector.unregister(connection)
            connection.close()
            self._cancelled = {each for each in self._cancelled if each[0] is not connection}
