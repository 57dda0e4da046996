"""Local models for tests: in this process, where tests can look into them, or in processes that tests share."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from typing import Any

import psutil

from embedders.clip import ClipConfig, ClipEmbedder
from embedders.clip.encoding import Encoder
from embedders.clip.loading import LoadedModel, load
from embedders.clip.messages import ORDER, Answer, Content, Facts, Job
from embedders.clip.processes import ModelProcesses
from embedders.clip.running import READY
from embedders.contract import QUERY, Priority
from embedders.images.decoders import Decoders


class InProcessModel:
    """The model in a thread of this process: one job at a time, in their order.

    Attributes:
        loaded: the model, once it is.
    """

    def __init__(self, config: ClipConfig) -> None:
        """Make one; `start` loads it."""
        self._config = config
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"{config.name}-model")
        self._numbers = count()
        self._running = 0
        self.loaded: Any = None
        self._encoder: Any = None

    async def start(self) -> Facts:
        """Load the model."""
        self.loaded = await asyncio.get_running_loop().run_in_executor(self._thread, load, self._config)
        self._encoder = Encoder(self.loaded)
        facts: Facts = self.loaded.facts
        return facts

    @property
    def idle(self) -> int:
        """Whether it has nothing to do."""
        return int(not self._running)

    async def run(self, content: Content, priority: Priority, *, kept: Any = None, parts: int = 1) -> Answer:
        """Do a job."""
        del parts
        job = Job(next(self._numbers), ORDER[priority], content)
        self._running += 1
        try:
            answer: Answer = await asyncio.get_running_loop().run_in_executor(self._thread, self._do, job, kept)
        finally:
            self._running -= 1
        if answer.error is not None:
            raise answer.error
        return answer

    async def check(self) -> None:
        """Do a small job."""
        await self.run(READY, QUERY.priority)

    async def close(self) -> None:
        """End the thread."""
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    def _do(self, job: Job, kept: Any) -> Answer:
        del kept
        answer: Answer = self._encoder.answer(job)
        return answer


def in_process(config: ClipConfig, decoders: Decoders | None = None) -> ClipEmbedder:
    """Return an embedder, not yet started, whose model runs in a thread of this process."""
    return ClipEmbedder(config, decoders=decoders, model=InProcessModel(config))


def loaded(embedder: ClipEmbedder) -> LoadedModel:
    """Return the model of such an embedder once it is started."""
    model = embedder._model
    assert isinstance(model, InProcessModel)
    assert isinstance(model.loaded, LoadedModel)
    return model.loaded


class ServedModels:
    """Processes that run models for several servers, as the parent of such servers has them."""

    def __init__(self) -> None:
        """Begin with none."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._started: dict[ClipConfig, ModelProcesses] = {}

    def __call__(self, config: ClipConfig) -> ClipConfig:
        """Return the configuration of an embedder whose model these processes run; it starts them the first time."""
        if config not in self._started:
            processes = ModelProcesses(config)
            self._do(processes.start())
            self._started[config] = processes
        return replace(config, served_by=self._started[config].folder)

    def loader(self, config: ClipConfig) -> psutil.Process:
        """Return the process that has loaded the model of a configuration that was returned."""
        (processes,) = (each for each in self._started.values() if each.folder == config.served_by)
        process = processes._loaders[0]._process
        assert process is not None
        return psutil.Process(process.pid)

    def close(self) -> None:
        """End them all."""
        for each in self._started.values():
            self._do(each.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(120)
