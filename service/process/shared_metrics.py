"""The metrics of a server of several processes: each keeps its own in files, and any of them shows all."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import psutil
from prometheus_client import REGISTRY, CollectorRegistry, Metric, PlatformCollector, ProcessCollector, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client looks for its folder here whenever it opens a file."""


def share_metrics(folder: Path, worker: int) -> None:
    """Keep the metrics of this process in files, those of the worker before it with this number included.

    Called before any metric is made.
    """
    assert "embedders.telemetry.metrics" not in sys.modules
    os.environ[FOLDER] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]
    (folder / f"{worker}.pid").write_text(str(os.getpid()), encoding="ascii")


def forget_metrics(folder: Path, worker: int) -> None:
    """Remove what is true of a living process only, such as its calls in flight, once a worker has died."""
    (folder / f"{worker}.pid").unlink(missing_ok=True)
    mark_process_dead(worker, str(folder))  # type: ignore[no-untyped-call]


def living_workers() -> int:
    """Return how many processes of the server run."""
    folder = os.environ.get(FOLDER)
    return 1 if folder is None else sum(1 for _ in Path(folder).glob("*.pid"))


async def all_metrics(own: Iterable[Collector]) -> CollectorRegistry:
    """Return the metrics of the whole server; `own` are those that are the same in each of its processes."""
    if (folder := os.environ.get(FOLDER)) is None:
        return REGISTRY

    def collect() -> list[Metric]:
        collectors = [
            MultiProcessCollector(None, folder),  # type: ignore[no-untyped-call]
            _Processes(Path(folder)),
            PlatformCollector(registry=None),
            *own,
        ]
        return [metric for collector in collectors for metric in collector.collect()]

    registry = CollectorRegistry()
    # Reading the files takes milliseconds for each process.
    registry.register(_Collected(await asyncio.to_thread(collect)))
    return registry


class _Collected(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


class _Processes(Collector):
    """What prometheus_client exposes of a process, of the workers and their parent together."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> list[Metric]:
        parent = os.getppid()
        found: dict[str, list[Metric]] = {}
        for pid in (parent, *self._workers()):
            for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                found.setdefault(metric.name, []).append(metric)
        for name, metrics in found.items():
            numbers = [metric.samples[0].value for metric in metrics]
            whole = min(numbers) if name == "process_start_time_seconds" else sum(numbers)
            if name == "process_cpu_seconds":
                whole += _of_ended_children(parent)
            metrics[0].samples = [metrics[0].samples[0]._replace(value=whole)]
        return [metrics[0] for metrics in found.values()]

    def _workers(self) -> Iterator[int]:
        for file in self._folder.glob("*.pid"):
            with contextlib.suppress(FileNotFoundError):  # the worker has just died
                yield int(file.read_text(encoding="ascii"))


def _of_ended_children(parent: int) -> float:
    """Return the CPU seconds of workers that have died, so that the sum never falls."""
    try:
        times = psutil.Process(parent).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.children_user + times.children_system)
