"""The owner of the processes that run a model: starts them, starts them again, and ends them."""

import asyncio
import contextlib
import logging
import os
import pickle
import shutil
import signal
import socket
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedders.children import environment, how_it_ended
from embedders.clip.config import ClipConfig
from embedders.clip.messages import FAREWELL, HEADER, Facts, packed
from embedders.errors import EmbedderUnavailable, ModelUnusable

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Seconds before a model is loaded again whose process has ended, and their bound when that happens again and again."""

LONG_LIFE_S = 60.0
"""Seconds after which a process counts as one that works."""

END_S = 0.5
"""Seconds for a process to end once its socket is closed, before it is killed."""

log = logging.getLogger(__name__)


class ModelProcesses:
    """The processes that run one model, for one server or for several.

    On a CPU one process loads the model and forks the others; of GPUs each has its own. If one ends, it is started
    again. All end with this process, even if that is killed.

    Attributes:
        folder: with their sockets, which only this user can enter; known once `start` has been called.
    """

    def __init__(self, config: ClipConfig) -> None:
        """Make them for a configuration; `start` starts them."""
        self._config = config
        self._loaders: list[_Loader] = []
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        """Where their sockets are.

        Raises:
            EmbedderUnavailable: they have not been started.
        """
        if self._folder is None:
            raise EmbedderUnavailable(f"the model of {self._config.name} is not started")
        return self._folder

    async def start(self) -> None:
        """Start them, and wait until the model is loaded. Models of several embedders may be started at the same time.

        Raises:
            ModelUnusable: it cannot be loaded.
            EmbedderUnavailable: no process can be started.
        """
        # A socket's path may have about a hundred characters.
        self._folder = Path(tempfile.mkdtemp(prefix="vecgate-model-"))
        first = _Loader(self._config, self._folder, 0)
        self._loaders.append(first)
        facts = await first.start()
        if facts.devices[0] != "cpu":
            others = [
                _Loader(replace(self._config, device=device), self._folder, number)
                for number, device in enumerate(facts.devices)
                if number
            ]
            self._loaders += others
            await asyncio.gather(*(each.start() for each in others))

    async def close(self) -> None:
        """End them. May be called twice."""
        loaders, self._loaders = self._loaders, []
        try:
            await asyncio.gather(*(each.close() for each in loaders))
        finally:
            if self._folder is not None:
                await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


class _Loader:
    """A process that loads a model, and is started again when it ends."""

    def __init__(self, config: ClipConfig, folder: Path, number: int) -> None:
        self._config = config
        self._folder = folder
        self._number = number
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> Facts:
        """Start it, and wait until the model is loaded."""
        reader = await self._begin()
        facts = await self._loaded(reader)
        self._watch = asyncio.create_task(self._go_on(reader), name=f"model-{self._config.name}-{self._number}")
        return facts

    async def close(self) -> None:
        """End it with all that it has forked."""
        try:
            if self._watch is not None:
                self._watch.cancel()
                await asyncio.wait([self._watch])
        finally:
            await self._end()

    async def _begin(self) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-c",
                "from embedders.clip.model_process import main; main()",
                str(theirs.fileno()),
                str(self._folder),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # What it forks is in its group, and is ended with it.
                start_new_session=True,
                env=environment(),
            )
        except OSError as error:
            ours.close()
            raise EmbedderUnavailable(f"the model's process of {self._config.name} cannot be started") from error
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._writer.write(packed((self._config, self._number)))
        return reader

    async def _loaded(self, reader: asyncio.StreamReader) -> Facts:
        try:
            message = await _received(reader)
        except (EOFError, OSError) as error:
            how = await self._how_it_ended()
            raise EmbedderUnavailable(f"the process that loads the model of {self._config.name} {how}") from error
        if isinstance(message, ModelUnusable):
            raise message
        facts: Facts = message
        return facts

    async def _go_on(self, reader: asyncio.StreamReader) -> None:
        """Note what ends, and start the model again when its process has ended."""
        pause_s = FIRST_PAUSE_S
        while True:
            began_s = time.monotonic()
            # The end of the socket would not tell: what it has forked has it, too.
            noting = asyncio.create_task(self._note_ends(reader))
            try:
                await self._wait()
            finally:
                noting.cancel()
            log.warning("the process that loaded the model of %s %s", self._config.name, await self._how_it_ended())
            pause_s = FIRST_PAUSE_S if time.monotonic() - began_s > LONG_LIFE_S else min(2 * pause_s, LONGEST_PAUSE_S)
            while True:
                try:
                    reader = await self._begin()
                    await self._loaded(reader)
                    break
                except (EmbedderUnavailable, ModelUnusable) as error:
                    log.warning("%s", error)
                    await self._end()
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _note_ends(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                log.warning("a process that ran the model of %s %s", self._config.name, await _received(reader))

    async def _wait(self) -> None:
        assert self._process is not None
        await self._process.wait()

    async def _how_it_ended(self) -> str:
        process = self._process
        assert process is not None
        await self._end()
        return how_it_ended(process.returncode or 0)

    async def _end(self) -> None:
        """End the process and its group, if they have not ended. If that is cancelled, it must be done again."""
        writer, process = self._writer, self._process
        if writer is not None:
            # Where the process is gone the transport may be closed, and uvloop's refuses to write.
            if not writer.is_closing():
                writer.write(FAREWELL)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if process is not None:
            with contextlib.suppress(TimeoutError):
                # One that ends by itself says why.
                await asyncio.wait_for(process.wait(), 0 if writer is None else END_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            await asyncio.to_thread(_reap, process.pid)
        self._writer = self._process = None


def _reap(group: int) -> None:
    """Wait for the end of what a killed process had forked: in a container, its parent may now be this process."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-group, 0)


async def _received(reader: asyncio.StreamReader) -> Any:
    (size,) = HEADER.unpack(await reader.readexactly(HEADER.size))
    return pickle.loads(await reader.readexactly(size))  # noqa: S301 -- from our own process
