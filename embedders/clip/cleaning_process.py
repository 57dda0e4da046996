"""Cleaning texts in separate processes; see embedders.clip.cleaning."""

import asyncio
import contextlib
import json
import os
import sys

from embedders.clip.cleaning import HEADER_BYTES
from embedders.errors import EmbedderUnavailable, InputRejected
from embedders.texts import unreadable

PROCESSES = 2
"""Texts that are cleaned at the same time, so that a slow one does not delay the others."""

CPU_S = 0.1
"""CPU time for one text. 32 KiB of prose in any script take about 0.02 s, as do mojibake and HTML."""

WALL_S = 30.0
"""Seconds after which a process that does not answer is ended."""


class CleaningProcesses:
    """Up to PROCESSES processes, started on demand, each of which cleans one text at a time."""

    def __init__(self, cpu_s: float = CPU_S) -> None:
        """Make the pool; a text gets so many seconds of CPU time."""
        self._cpu_s = cpu_s
        self._free: list[asyncio.subprocess.Process] = []
        self._room = asyncio.Semaphore(PROCESSES)

    async def clean(self, text: str, form: str) -> str:
        """Return the result of `embedders.clip.cleaning.clean`.

        Raises:
            InputRejected: cleaning takes too long, or the text is invalid.
            EmbedderUnavailable: a process cannot be started.
        """
        async with self._room:
            process = await self._take()
            try:
                async with asyncio.timeout(WALL_S):
                    cleaned = await _ask(process, text, form)
            except (OSError, EOFError, TimeoutError):
                # It hangs, or this text ended it: the next text gets another process.
                await _end(process)
                cleaned = None
            except BaseException:
                await _end(process)
                raise
            else:
                self._free.append(process)
        if isinstance(cleaned, str):
            return cleaned
        if cleaned is None:
            raise InputRejected(
                f"cleaning the text takes the model's tokenizer more than {self._cpu_s:g} s: it holds nested HTML "
                "character references, control characters or thousands of lines, or was decoded wrongly again and "
                "again; send plain text"
            )
        raise unreadable()

    async def close(self) -> None:
        """End the processes. May be called twice."""
        while self._free:
            await _end(self._free.pop())

    async def _take(self) -> asyncio.subprocess.Process:
        while self._free:
            process = self._free.pop()
            if process.stdin is not None and not process.stdin.is_closing():
                return process
            await _end(process)
        return await self._start()

    async def _start(self) -> asyncio.subprocess.Process:
        # It does not need the server's keys and settings.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VECGATE_")}
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-c",
                f"from embedders.clip.cleaning import serve; serve({self._cpu_s})",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        except OSError as error:
            raise _not_started() from error
        try:
            async with asyncio.timeout(WALL_S):
                await _receive(process)
        except (EOFError, TimeoutError) as error:
            await _end(process)
            raise _not_started() from error
        except BaseException:
            await _end(process)
            raise
        return process


async def _ask(process: asyncio.subprocess.Process, text: str, form: str) -> str | bool | None:
    assert process.stdin is not None
    message = json.dumps([text, form]).encode()
    process.stdin.write(len(message).to_bytes(HEADER_BYTES) + message)
    await process.stdin.drain()
    answer: str | bool | None = json.loads(await _receive(process))
    return answer


async def _receive(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    header = await process.stdout.readexactly(HEADER_BYTES)
    return await process.stdout.readexactly(int.from_bytes(header))


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def _not_started() -> EmbedderUnavailable:
    return EmbedderUnavailable("the process that cleans texts cannot be started")
