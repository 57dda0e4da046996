"""A thread that runs the model, interactive jobs first."""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, TypeVar

from embedders.contract import Priority
from embedders.errors import EmbedderUnavailable

T = TypeVar("T")

ORDER = {Priority.INTERACTIVE: 0, Priority.BULK: 1}
LAST = max(ORDER.values()) + 1
END_S = 10.0


@dataclass(order=True, slots=True)
class _Job:
    urgency: int
    turn: int
    work: Callable[[], Any] | None = field(compare=False, default=None)
    future: "Future[Any]" = field(compare=False, default_factory=Future)


class _Thread:
    """A thread and its queue of jobs. A dead thread accepts no jobs."""

    def __init__(self, name: str, begin: Callable[[], object]) -> None:
        self._begin = begin
        self._jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._dead = False
        # Held where a job is put in and where the thread's death is noted: no job may slip in between.
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def put(self, job: _Job) -> bool:
        """Queue a job; return False if the thread is dead."""
        with self._lock:
            if not self._dead:
                self._jobs.put(job)
            return not self._dead

    def close(self) -> None:
        """Let the thread finish its job, drop queued jobs, and wait for its end, for a bounded time."""
        self._die()
        self._jobs.put(_Job(LAST, 0))
        # A hanging forward pass must not keep the process alive: a daemon thread ends with it.
        self._thread.join(END_S)

    def _loop(self) -> None:
        try:
            self._begin()
            while self._do(self._jobs.get()):
                pass
        finally:
            self._die()

    def _do(self, job: _Job) -> bool:
        """Do a job, and return whether to go on."""
        if job.work is None:
            return False
        if not job.future.set_running_or_notify_cancel():
            return True
        try:
            result = job.work()
        except Exception as error:  # noqa: BLE001 -- the error belongs to the caller that waits
            job.future.set_exception(error)
        except BaseException:  # noqa: BLE001 -- ends the thread
            # First, so that a caller that retries gets a new thread.
            self._die()
            job.future.set_exception(_gone())
            return False
        else:
            job.future.set_result(result)
        return True

    def _die(self) -> None:
        """Accept no more jobs, and fail those that wait."""
        with self._lock:
            self._dead = True
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job.work is not None and job.future.set_running_or_notify_cancel():
                job.future.set_exception(_gone())


class Worker:
    """Runs one function at a time in its own thread.

    A thread that dies fails its job and the queued ones; the next call gets a new thread. A pool of concurrent.futures
    has no priorities, and does not show that one of its threads has died.

    Attributes:
        load: running and waiting calls.
    """

    def __init__(self, name: str, begin: Callable[[], object] = lambda: None) -> None:
        """Make one; each thread calls `begin` first."""
        self._name = name
        self._begin = begin
        self._turns = count()
        self._thread: _Thread | None = None
        self.load = 0

    async def run(self, priority: Priority, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function in the thread; cancelling the call keeps it from starting.

        Raises:
            EmbedderUnavailable: the thread died.
        """
        job = _Job(ORDER[priority], next(self._turns), partial(function, *arguments))
        if self._thread is None or not self._thread.put(job):
            self._thread = _Thread(self._name, self._begin)
            self._thread.put(job)
        self.load += 1
        try:
            return await asyncio.wrap_future(job.future)
        finally:
            self.load -= 1

    def close(self) -> None:
        """Let the thread finish its job, drop queued jobs, and wait for its end."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()


def _gone() -> EmbedderUnavailable:
    return EmbedderUnavailable("the thread that runs the model died; the next call gets a new one")
