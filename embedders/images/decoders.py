"""Decoders: processes that decode pictures and clean texts, so that both use all cores and break alone.

A fault of a native library, a picture made to be costly, a text that keeps a cleaner busy: each ends its own job by
name, and the next job finds the pool whole. Large jobs get a part of the processes, so small ones do not wait for them.
"""

import asyncio
import contextlib
import io
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from itertools import count
from typing import Any, NamedTuple

from embedders import errors
from embedders.children import environment
from embedders.contract import InputLimits
from embedders.errors import EmbedderError, EmbedderUnavailable, ImageTooLarge, ImageUndecodable, InputRejected
from embedders.images import budget, decoder_process
from embedders.images.decoder_process import END, FORK, FRAME, MIB, ORDER, STATUS, Job, Result, memory_for
from embedders.images.decoding import check_bytes
from embedders.images.pixels import Slot
from embedders.images.scaling import Scaling
from embedders.images.structure import is_large
from embedders.texts import unreadable

LEAST_PROCESSES, MOST_PROCESSES = 2, 16
"""Bounds of processes where none are asked for: beside one that decodes a large picture, another one is free."""

LARGE_SHARE = 4
"""One large job at a time for so many processes."""

PICTURE_CPU_S = 1.0
"""CPU time of a picture, beside what its pixels need. A photo of 640 x 480 takes 0.005 s."""

TEXT_CPU_S = 0.1
"""CPU time of a text. 32 KiB of prose in any script take about 0.02 s, as do mojibake and HTML."""

WALL_S = 60.0
"""Seconds after which a job's process is ended even if it computes nothing."""

_TEXT_MAX_BYTES = 512 * MIB

_READ_BYTES = 65_536
_JOINED_BYTES = 65_536
"""Content up to this size is copied behind its job, which is cheaper than sending it apart."""

Ended = Callable[[bool], InputRejected]
"""Makes the error of a job whose process ended; true if it was for its time."""


class Decoders:
    """A pool of decoders for one event loop. No process is started before the first job.

    Attributes:
        processes: jobs that are done at the same time.
        large_jobs: large pictures and slow texts among them.
    """

    def __init__(self, processes: int = 0) -> None:
        """Make a pool of up to so many processes; 0: as many as there are cores, within bounds."""
        self.processes = processes or min(max(LEAST_PROCESSES, os.cpu_count() or 1), MOST_PROCESSES)
        self.large_jobs = max(1, self.processes // LARGE_SHARE)
        self._room = asyncio.Semaphore(self.processes)
        self._room_for_large = asyncio.Semaphore(self.large_jobs)
        self._free: list[_Decoder] = []
        self._busy: set[_Decoder] = set()
        self._template: _Template | None = None
        self._jobs: set[asyncio.Task[Result]] = set()
        self._closed = False

    async def scale(self, content: bytes, limits: InputLimits, scaling: Scaling, slot: Slot) -> None:
        """Decode a picture and write it into a slot as a model reads it: uint8, shape (height, width, 3).

        The slot of a picture that cannot be read is free again.

        Raises:
            InputRejected: see embedders.images.scaling.scaled; or decoding takes too much time or memory, or ends its
                process.
            EmbedderUnavailable: the pool is closed, or no process can be started.
        """
        arguments = limits, scaling, slot.memory.place, slot.index
        try:
            await self._picture(decoder_process.scale, content, limits, arguments, slot)
        except EmbedderError:
            # No process writes any more, and the error refers to this frame, and may be kept long.
            slot.release()
            raise

    async def scaled_picture(self, content: bytes, limits: InputLimits, scaling: Scaling) -> bytes:
        """Return a picture in the size that a model reads, as a PNG: its embedder makes the same vector of both.

        Raises:
            InputRejected, EmbedderUnavailable: as `scale`.
        """
        _, sent = await self._picture(decoder_process.scaled_picture, content, limits, (limits, scaling))
        return sent

    async def nim_image(
        self, content: bytes, limits: InputLimits, *, max_converted_pixels: int = 0
    ) -> tuple[str, bytes]:
        """Return a picture's media type and bytes as a NIM takes them: embedders.images.decoding.as_nim_image.

        Raises:
            InputRejected, EmbedderUnavailable: as `scale`.
        """
        arguments = limits, max_converted_pixels
        media_type, sent = await self._picture(decoder_process.nim_image, content, limits, arguments)
        return media_type, sent or content

    async def copies(self, content: bytes, limits: InputLimits) -> list[bytes]:
        """Return changed copies of a picture: embedders.images.likeness.copies.

        Raises:
            InputRejected, EmbedderUnavailable: as `scale`.
        """
        sizes, joined = await self._picture(decoder_process.changed_copies, content, limits, (limits,))
        file = io.BytesIO(joined)
        return [file.read(each) for each in sizes]

    async def clean(self, text: str, form: str) -> str:
        """Return the result of embedders.cleaning.clean.

        Raises:
            InputRejected: cleaning takes too long, or the text is invalid.
            EmbedderUnavailable: as `scale`.
        """
        job = Job(decoder_process.clean, (form,), TEXT_CPU_S, _TEXT_MAX_BYTES)
        cleaned, _ = await self.run(job, text.encode(), large=True, ended=_text_ended)
        if cleaned is None:
            raise unreadable()
        return str(cleaned)

    async def run(self, job: Job, content: bytes, *, large: bool, ended: Ended, keep: object = None) -> Result:
        """Do a job in one of the processes. Once begun, it ends even if the call is cancelled; `keep` lives until then.

        Raises:
            InputRejected: what the job raised; or `ended`, if its process ended.
            EmbedderUnavailable: as `scale`; or the job failed.
        """
        async with AsyncExitStack() as rooms:
            if large:
                await rooms.enter_async_context(self._room_for_large)
            await rooms.enter_async_context(self._room)
            # Nothing can interrupt the process, and what it still writes into must not be freed.
            task = asyncio.get_running_loop().create_task(self._run(job, content, ended, keep, rooms.pop_all()))
        self._jobs.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End all processes, and fail the jobs in flight. May be called twice."""
        self._closed = True
        for each in self._busy:
            # Its job fails at once, even if the template is gone and cannot end its process.
            _shut(each.connection)
        if self._template is not None:
            await self._template.end()
        if jobs := list(self._jobs):
            await asyncio.wait(jobs)
        while self._free:
            self._free.pop().connection.close()

    async def _picture(
        self,
        function: Callable[..., Result],
        content: bytes,
        limits: InputLimits,
        arguments: tuple[Any, ...],
        keep: object = None,
    ) -> Result:
        check_bytes(content, limits)
        job = Job(function, arguments, PICTURE_CPU_S, memory_for(limits))
        return await self.run(job, content, large=is_large(content), ended=_picture_ended, keep=keep)

    async def _run(self, job: Job, content: bytes, ended: Ended, keep: object, rooms: AsyncExitStack) -> Result:
        async with rooms:
            reply, body = await self._do(job, content, ended, time.monotonic() + WALL_S)
        del keep
        return _result(reply, body, job)

    async def _do(
        self, job: Job, content: bytes, ended: Ended, until_s: float, *, again: bool = True
    ) -> tuple[Any, bytes]:
        """Have a decoder do a job, and return its reply. If nobody knows how it ended, another one tries."""
        decoder = await self._take()
        self._busy.add(decoder)
        # This end of the connection ends, as if the other one had.
        left_s = max(0.0, until_s - time.monotonic())
        hanging = asyncio.get_running_loop().call_later(left_s, _shut, decoder.connection)
        try:
            reply = await _ask(decoder.connection, job, content)
        except (ConnectionError, EOFError):
            status = await decoder.end()
            if self._closed:
                raise _closed() from None
            late = time.monotonic() >= until_s
            if status or late or not again:
                raise ended(late or status == -signal.SIGPROF) from None
        except BaseException:
            decoder.connection.close()
            raise
        else:
            self._free.append(decoder)
            return reply
        finally:
            hanging.cancel()
            self._busy.discard(decoder)
        # The template has ended, too: somebody has ended all processes, and not this job.
        return await self._do(job, content, ended, until_s, again=False)

    def _forget(self, job: "asyncio.Task[Result]") -> None:
        self._jobs.discard(job)
        # The caller may have left.
        _ = job.cancelled() or job.exception()

    async def _take(self) -> "_Decoder":
        """Return a decoder that does nothing."""
        while self._free and not self._closed:
            decoder = self._free.pop()
            if decoder.lives:
                return decoder
            await decoder.end()
        if self._closed:
            raise _closed()
        try:
            if (template := self._template) is not None:
                with contextlib.suppress(ConnectionError):
                    return template.fork()
                # It has ended. Nobody else must end it, or replace the next one, meanwhile.
                self._template = None
                await template.end()
                if self._closed:
                    raise _closed()
            if self._template is None:
                self._template = _Template()
            return self._template.fork()
        except OSError as error:
            raise EmbedderUnavailable("no process for pictures and texts can be started; try again") from error


class _Template:
    """The process that decoders are forked from."""

    def __init__(self) -> None:
        ours, its = socket.socketpair()
        # Threads of a mathematical library do not survive a fork.
        known = environment() | {"OPENBLAS_NUM_THREADS": "1"}
        # A large picture's memory goes back to the system, and does not stay in each process.
        known |= dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(MIB))
        command = f"from {decoder_process.__name__} import main; main({its.fileno()})"
        with its:
            try:
                self._process = subprocess.Popen(  # noqa: S603 -- nothing of it comes from outside
                    [sys.executable, "-P", "-c", command],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=known,
                    pass_fds=[its.fileno()],
                    process_group=0,
                )
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        self._connection = ours
        self._numbers = count()
        self._asking = asyncio.Lock()

    def fork(self) -> "_Decoder":
        """Return a new decoder, which may still be starting.

        Raises:
            ConnectionError: the process has ended.
            OSError: there are no file descriptors.
        """
        ours, its = socket.socketpair()
        ours.setblocking(False)
        number = next(self._numbers)
        with its:
            try:
                socket.send_fds(self._connection, [ORDER.pack(FORK, number)], [its.fileno()])
            except OSError:
                ours.close()
                raise
        return _Decoder(ours, number, self)

    async def end(self) -> None:
        """End it and its decoders at once."""
        # Who waits for a decoder's status would wait for ever on a connection that is closed here.
        _shut(self._connection)
        await asyncio.to_thread(self._process.wait)
        self._connection.close()

    async def status(self, number: int) -> int:
        """End a decoder, and return how it ended; 0 if nobody knows."""
        async with self._asking:
            try:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(self._connection, ORDER.pack(END, number))
                return int(STATUS.unpack(await _received(self._connection, STATUS.size))[0])
            except (OSError, EOFError):
                return 0


class _Decoder(NamedTuple):
    """A process that does one job at a time.

    Attributes:
        connection: to it.
        number: the template's, for it.
        template: from which it was forked.
    """

    connection: socket.socket
    number: int
    template: _Template

    async def end(self) -> int:
        """End it, and return how it ended, as os.waitstatus_to_exitcode tells it; 0 if nobody knows."""
        self.connection.close()
        return await self.template.status(self.number)

    @property
    def lives(self) -> bool:
        """Whether it is still there, while it does nothing: one that is gone has closed its connection."""
        try:
            self.connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        return False


def _shut(connection: socket.socket) -> None:
    """End a connection, if it has not ended; who waits for something on it sees that."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


async def _ask(decoder: socket.socket, job: Job, content: bytes) -> tuple[Any, bytes]:
    """Send a job, and return the reply and what follows it.

    Raises:
        ConnectionError, EOFError: the decoder has ended.
    """
    loop = asyncio.get_running_loop()
    head = pickle.dumps(job, pickle.HIGHEST_PROTOCOL)
    message = FRAME.pack(len(head), len(content)) + head
    if len(content) <= _JOINED_BYTES:
        await loop.sock_sendall(decoder, message + content)
    else:
        await loop.sock_sendall(decoder, message)
        await loop.sock_sendall(decoder, content)
    beginning = await _received(decoder, FRAME.size)
    head_bytes, body_bytes = FRAME.unpack_from(beginning)
    rest = memoryview(beginning)[FRAME.size :]
    whole = bytearray(head_bytes + body_bytes)
    whole[: len(rest)] = rest
    left = memoryview(whole)[len(rest) :]
    while left:
        count = await loop.sock_recv_into(decoder, left)
        if not count:
            raise EOFError
        left = left[count:]
    return json.loads(whole[:head_bytes]), bytes(memoryview(whole)[head_bytes:])


async def _received(decoder: socket.socket, least: int) -> bytes:
    content = b""
    while len(content) < least:
        more = await asyncio.get_running_loop().sock_recv(decoder, _READ_BYTES)
        if not more:
            raise EOFError
        content += more
    return content


def _result(reply: dict[str, Any], body: bytes, job: Job) -> Result:
    match reply:
        case {"done": result}:
            return result, body
        case {"rejected": [name, message]}:
            raise getattr(errors, name)(message)
        case {"memory": mebibytes}:
            raise ImageTooLarge(f"decoding the picture takes more than {mebibytes} MiB of memory; save it again")
    raise EmbedderUnavailable(f"{job.function.__name__} failed in its process: {reply['failed']}")


def _picture_ended(slow: bool) -> InputRejected:  # noqa: FBT001 -- see Ended
    if slow:
        return ImageTooLarge(
            f"decoding the picture takes too long: more than {PICTURE_CPU_S:g} s of CPU time, with "
            f"{budget.PER_MEGAPIXEL_S:g} s for each million pixels and bytes, or {WALL_S:g} s in all; save it again"
        )
    return ImageUndecodable("decoding the picture ended the process that did it; save it again")


def _text_ended(_: bool) -> InputRejected:  # noqa: FBT001 -- see Ended
    return InputRejected(
        f"cleaning the text takes the model's tokenizer more than {TEXT_CPU_S:g} s: it holds nested HTML character "
        "references, control characters or thousands of lines, or was decoded wrongly again and again; send plain text"
    )


def _closed() -> EmbedderUnavailable:
    return EmbedderUnavailable("the pool of decoders is closed")
