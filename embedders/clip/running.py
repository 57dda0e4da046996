"""A model that runs in processes of its own."""

import asyncio
import contextlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Protocol, cast

from embedders.clip.messages import ORDER, Answer, Cancel, Content, Facts, Job, Messages, packed
from embedders.contract import QUERY, Priority, TextInput
from embedders.errors import EmbedderUnavailable

PATIENCE_S = 2.0
"""Seconds for which calls wait for a process that has ended to be followed by another one."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 1.0
"""Seconds between attempts to connect to a process."""

GPU_JOBS = 3
"""Jobs that a process with a GPU is given at the same time: it does two, and has the next one when one is done."""

READY: Content = [TextInput("ready")]


class Model(Protocol):
    """Does jobs: batches of inputs of one kind."""

    async def start(self) -> Facts:
        """Wait until it can work.

        Raises:
            ModelUnusable: it cannot be loaded.
            EmbedderUnavailable: nothing runs it.
        """
        ...

    @property
    def idle(self) -> int:
        """How many further jobs would be begun at once."""
        ...

    async def run(self, content: Content, priority: Priority, *, kept: Any = None, parts: int = 1) -> Answer:
        """Do a job.

        Args:
            content: its inputs.
            priority: who goes first.
            kept: what must live until nothing reads the inputs any more, even if the caller leaves before.
            parts: how many jobs of equal size the caller asks for at the same time.

        Raises:
            EmbedderError: the job failed.
        """
        ...

    async def check(self) -> None:
        """Do a small job in each process; raises the errors of `run`."""
        ...

    async def close(self) -> None:
        """Fail all calls and free everything. May be called twice."""
        ...


@dataclass(order=True, slots=True)
class _Waiting:
    """A job and the caller that waits for it."""

    urgency: int
    turn: int
    content: Content = field(compare=False)
    kept: Any = field(compare=False)
    parts: int = field(compare=False)
    done: "asyncio.Future[Answer]" = field(compare=False)


class ServedModel:
    """The processes that run a model, through their sockets in a folder; see embedders.clip.model_process.

    Jobs wait here until a process is free, so that they outlive one that ends; what it was working on fails.
    """

    def __init__(self, name: str, folder: Path) -> None:
        """Make one for the embedder `name`."""
        self._name = name
        self._folder = folder
        self._processes: list[_Process] = []
        self._queue: list[_Waiting] = []
        self._turns = count()
        self._most = 1

    async def start(self) -> Facts:
        """Connect to all processes."""
        first = _Process(self, self._folder / "0.sock")
        self._processes.append(first)
        facts = await first.start()
        others = [_Process(self, self._folder / f"{number}.sock") for number in range(1, facts.processes)]
        self._processes += others
        await asyncio.gather(*(each.start() for each in others))
        self._most = 1 if facts.devices[0] == "cpu" else GPU_JOBS
        return facts

    @property
    def idle(self) -> int:
        """How many processes have nothing to do."""
        return 0 if self._queue else sum(each.ready and not each.running for each in self._processes)

    async def run(self, content: Content, priority: Priority, *, kept: Any = None, parts: int = 1) -> Answer:
        """Do a job in the process with the least to do; cancelling the call keeps it from starting."""
        if not any(each.hoped_for for each in self._processes):
            raise self._gone()
        waiting = self._waiting(content, priority, kept, parts)
        heapq.heappush(self._queue, waiting)
        self.begin()
        return await self._answer(waiting)

    async def check(self) -> None:
        """Do a small job in each process."""
        if not self._processes:
            raise self._gone()
        await asyncio.gather(*(self._check(each) for each in self._processes))

    async def close(self) -> None:
        """Fail all calls, and disconnect."""
        processes, self._processes = self._processes, []
        for each in processes:
            await each.close()
        self._fail(self._queue)
        self._queue.clear()

    def begin(self) -> None:
        """Give jobs to processes as long as both are there."""
        while self._queue:
            free = [each for each in self._processes if each.ready and len(each.running) < self._most]
            if not free:
                return
            waiting = heapq.heappop(self._queue)
            if not waiting.done.done():
                process = min(free, key=lambda each: len(each.running))
                process.send(waiting, alone=self._is_alone(process, waiting))

    def note_lost(self) -> None:
        """Fail the calls that wait if no process is left that they could wait for."""
        if not any(each.hoped_for for each in self._processes):
            self._fail(self._queue)
            self._queue.clear()

    def fail(self, waiting: Iterable[_Waiting], last_end: str) -> None:
        """Fail jobs whose process has ended."""
        how = f" {last_end}" if last_end else " has ended"
        self._fail(waiting, f"the process that ran the model of {self._name}{how}: try again")

    def _is_alone(self, process: "_Process", waiting: _Waiting) -> bool:
        return waiting.parts == 1 and not any(each.running for each in self._processes if each is not process)

    def _waiting(self, content: Content, priority: Priority, kept: Any, parts: int) -> _Waiting:
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        return _Waiting(ORDER[priority], next(self._turns), content, kept, parts, done)

    async def _check(self, process: "_Process") -> None:
        await process.wait_until_ready(PATIENCE_S)
        if not process.ready:
            raise self._gone()
        waiting = self._waiting(READY, QUERY.priority, None, 1)
        process.send(waiting, alone=self._is_alone(process, waiting))
        await self._answer(waiting)

    async def _answer(self, waiting: _Waiting) -> Answer:
        try:
            answer = await waiting.done
        except asyncio.CancelledError:
            for each in self._processes:
                each.cancel(waiting)
            raise
        if answer.error is not None:
            raise answer.error
        return answer

    def _fail(self, all_waiting: Iterable[_Waiting], why: str = "") -> None:
        for each in all_waiting:
            if not each.done.done():
                each.done.set_exception(EmbedderUnavailable(why) if why else self._gone())

    def _gone(self) -> EmbedderUnavailable:
        return EmbedderUnavailable(f"no process runs the model of {self._name} at present: try again")


class _Process:
    """The connection to one process, which is made again when the process ends.

    Attributes:
        running: the jobs that it was given, by their numbers.
        ready: whether it takes jobs.
        hoped_for: whether it is ready, or may soon be.
    """

    def __init__(self, model: ServedModel, path: Path) -> None:
        self._model = model
        self._path = path
        self._link: _Link | None = None
        self._ready = asyncio.Event()
        self._numbers = count()
        self._lost: list[_Waiting] = []
        self._giving_up: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Task[Facts] | None = None
        self._closed = False
        self.running: dict[int, _Waiting] = {}
        self.hoped_for = True

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    async def start(self) -> Facts:
        """Connect, and return what the process says of the model."""
        self._connecting = asyncio.ensure_future(self._connect())
        return await self._connecting

    async def wait_until_ready(self, patience_s: float) -> None:
        """Wait for the process, but not for long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), patience_s)

    def send(self, waiting: _Waiting, *, alone: bool) -> None:
        """Give the process a job; it is ready."""
        number = next(self._numbers)
        self.running[number] = waiting
        self._write(Job(number, waiting.urgency, waiting.content, alone))

    def cancel(self, waiting: _Waiting) -> None:
        """Tell the process that nobody waits for a job, if it has it."""
        for number in [number for number, each in self.running.items() if each is waiting]:
            self._write(Cancel(number))

    def received(self, message: Any) -> None:
        """Take an answer."""
        answer: Answer = message
        waiting = self.running.pop(answer.number)
        if not waiting.done.done():
            waiting.done.set_result(answer)
        self._model.begin()

    def disconnected(self) -> None:
        """Connect again, to the next process."""
        if self._closed:
            return
        self._ready.clear()
        self._link = None
        self._lost += self.running.values()
        self.running.clear()
        # The next process knows how this one ended; the calls that it fails are told, if it comes soon.
        self._giving_up = asyncio.get_running_loop().call_later(PATIENCE_S, self._give_up)
        self._connecting = asyncio.ensure_future(self._connect())

    async def close(self) -> None:
        """Disconnect, and fail the jobs that it was given."""
        self._closed = True
        self.hoped_for = False
        self._ready.clear()
        if self._giving_up is not None:
            self._giving_up.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._link is not None:
            self._link.close()
        self._model.fail([*self._lost, *self.running.values()], "")
        self._lost, self.running = [], {}

    async def _connect(self) -> Facts:
        pause_s = FIRST_PAUSE_S
        while True:
            link = _Link(self)
            try:
                await asyncio.get_running_loop().create_unix_connection(lambda link=link: link, str(self._path))  # type: ignore[misc]
                facts = await link.facts
                break
            except (OSError, EOFError):
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            except asyncio.CancelledError:
                link.close()
                raise
        self._link, self.hoped_for = link, True
        self._fail_lost(facts.last_end)
        self._ready.set()
        self._model.begin()
        return facts

    def _give_up(self) -> None:
        self.hoped_for = False
        self._fail_lost("")
        self._model.note_lost()

    def _fail_lost(self, last_end: str) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
        lost, self._lost = self._lost, []
        self._model.fail(lost, last_end)

    def _write(self, message: Job | Cancel) -> None:
        if self._link is not None:
            self._link.write(packed(message))


class _Link(asyncio.Protocol):
    """A socket's messages. The first one are the Facts."""

    def __init__(self, process: _Process) -> None:
        self._process = process
        self._messages = Messages()
        self._transport: asyncio.Transport | None = None
        self.facts: asyncio.Future[Facts] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        for message in self._messages.add(data):
            if not self.facts.done():
                self.facts.set_result(message)
            elif isinstance(message, Answer):
                self._process.received(message)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if not self.facts.done():
            self.facts.set_exception(EOFError())
        elif not self.facts.cancelled():
            self._process.disconnected()

    def write(self, message: bytes) -> None:
        if self._transport is not None:
            self._transport.write(message)

    def close(self) -> None:
        self.facts.cancel()
        if self._transport is not None:
            self._transport.abort()
