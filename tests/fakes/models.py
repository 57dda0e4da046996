"""Local models for tests: in this process, where tests can look into them, or in processes that tests share."""

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import psutil

from embedders.clip import ClipConfig, ClipEmbedder
from embedders.clip.loading import LoadedModel
from embedders.clip.processes import ModelProcesses
from embedders.clip.running import InProcessModel
from embedders.images.decoders import Decoders


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
