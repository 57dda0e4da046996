"""A thread that computes, the urgent things first."""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, TypeVar

from embedders.errors import EmbedderUnavailable
from embedders.inputs import Priority

__all__ = ["Worker"]

T = TypeVar("T")

ORDER = {Priority.INTERACTIVE: 0, Priority.BULK: 1}
LAST = max(ORDER.values()) + 1


@dataclass(order=True, slots=True)
class _Job:
    urgency: int
    turn: int
    work: Callable[[], Any] | None = field(compare=False, default=None)
    future: "Future[Any]" = field(compare=False, default_factory=Future)


class Worker:
    """Runs one function at a time in a thread of its own.

    A thread that dies fails what it was doing and what waits for it; the next call gets a new one. A pool of
    concurrent.futures has no order of urgency, and lets nobody see that a thread of it is gone.

    Attributes:
        load: calls that run or wait.
    """

    def __init__(self, name: str, begin: Callable[[], object] = lambda: None) -> None:
        """Make one; each thread calls `begin` first."""
        self._name = name
        self._begin = begin
        self._jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._turns = count()
        self._thread: threading.Thread | None = None
        self.load = 0

    async def run(self, priority: Priority, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function in the thread; cancelling the call keeps it from starting.

        Raises:
            EmbedderUnavailable: the thread died.
        """
        job = _Job(ORDER[priority], next(self._turns), partial(function, *arguments))
        if self._thread is None or not self._thread.is_alive():
            self._start()
        self.load += 1
        self._jobs.put(job)
        try:
            return await asyncio.wrap_future(job.future)
        finally:
            self.load -= 1

    def close(self) -> None:
        """Let the thread end what it is doing, drop what waits, and wait for the thread's end."""
        thread, self._thread = self._thread, None
        if thread is not None:
            _fail_all(self._jobs)
            self._jobs.put(_Job(LAST, next(self._turns)))
            thread.join()

    def _start(self) -> None:
        # What a dead thread left behind stays with it.
        self._jobs = queue.PriorityQueue()
        self._thread = threading.Thread(target=_loop, args=(self._jobs, self._begin), name=self._name, daemon=True)
        self._thread.start()


def _loop(jobs: "queue.PriorityQueue[_Job]", begin: Callable[[], object]) -> None:
    try:
        begin()
        while (job := jobs.get()).work is not None:
            _do(job)
            del job  # or its tensors would live until the next one comes
    except SystemExit:
        pass  # the job's future has told it
    finally:
        _fail_all(jobs)


def _do(job: _Job) -> None:
    assert job.work is not None
    if not job.future.set_running_or_notify_cancel():
        return
    try:
        result = job.work()
    except Exception as error:  # noqa: BLE001 -- whatever it is belongs to whoever waits for the job
        job.future.set_exception(error)
    except BaseException:
        job.future.set_exception(_gone())
        raise
    else:
        job.future.set_result(result)


def _fail_all(jobs: "queue.PriorityQueue[_Job]") -> None:
    while True:
        try:
            job = jobs.get_nowait()
        except queue.Empty:
            return
        if job.future.set_running_or_notify_cancel():
            job.future.set_exception(_gone())


def _gone() -> EmbedderUnavailable:
    return EmbedderUnavailable("the thread that runs the model died; the next call gets a new one")
