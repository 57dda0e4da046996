"""The service: `vecgate serve` over gRPC, with callers in processes of their own.

Run as: python -m tests.gpu_check.served FOLDER PRECISION DEVICE SECONDS SIDE BY WORKERS CELLS. BY is eager or graphs,
CELLS are JSON: [[kind, inputs a call, callers], ...].
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.serving import Serving
from tests.fakes.weaviate import variables_at_ports
from tests.gpu_check.children import ROOT, say, time_for
from tests.gpu_check.gpu import GpuLoad
from tests.gpu_check.inputs import Inputs

LOADERS = max(1, min(4, (os.cpu_count() or 1) // 4))
"""Processes of callers; the rest of the cores is the service's."""

MAX_REQUEST_BYTES = 32 * 2**20
"""The service's own default."""

MAX_FLIGHT_BYTES = 2**29
"""Bytes of requests on their way at the same time; the callers' own memory is several times that."""

STAGES = {
    "queue": "vecgate_embedder_queue_seconds",
    "reading": "vecgate_embedder_preprocess_seconds",
    "model": "vecgate_embedder_backend_seconds",
}
FILL = "vecgate_embedder_batch_fill_ratio"


def main(
    folder: str, precision: str, device: str, seconds: float, side: int, by: str, workers: str, cells: str
) -> None:
    """Start a server and measure it."""
    settings = {
        "VECGATE_EMBEDDERS__CLIP__KIND": "clip",
        "VECGATE_EMBEDDERS__CLIP__MODEL": folder,
        "VECGATE_EMBEDDERS__CLIP__DEVICE": device,
        "VECGATE_EMBEDDERS__CLIP__PRECISION": precision,
        "VECGATE_EMBEDDERS__CLIP__GRAPHS": str(by == "graphs").lower(),
        "VECGATE_EMBEDDER__CACHE_BYTES": "0",
        "VECGATE_EMBEDDER__MAX_QUEUED_INPUTS": "65536",
        "VECGATE_SERVER__MAX_CALLS": "4096",
        "VECGATE_WEAVIATE__EMBEDDED": "false",
        **({"VECGATE_SERVER__WORKERS": workers} if workers != "1" else {}),
        **variables_at_ports(9, 10),
    }
    with tempfile.TemporaryDirectory() as data, server(Path(data), settings) as running, loaders() as callers:
        began_s = time.perf_counter()
        address, url = running.address, running.url
        say(part="started", by=by, workers=workers, seconds=time.perf_counter() - began_s)
        for number, (kind, inputs, count) in enumerate(json.loads(cells)):
            cell = {"part": "served", "by": by, "workers": workers, "kind": kind, "inputs": inputs, "callers": count}
            size = Inputs(kind, side=side).input_bytes * inputs
            if size > MAX_REQUEST_BYTES:
                say(**cell, skipped="the request is larger than the service takes")
            elif size * count > MAX_FLIGHT_BYTES:
                say(**cell, skipped="the callers' memory does not hold so many requests")
            elif time_for(3 * seconds + 1, **cell):
                load = {"address": address, "kind": kind, "side": side, "inputs": inputs, "callers": count}
                say(**cell, **measured(running, url, callers, load | {"seconds": seconds, "seed": number}))


@contextmanager
def server(data: Path, settings: dict[str, str]) -> Iterator[Serving]:
    """Run a server and end it."""
    running = Serving(data, **settings)
    try:
        yield running
    finally:
        running.end()


@contextmanager
def loaders() -> Iterator[list["subprocess.Popen[str]"]]:
    """Run processes of callers and end them."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.gpu_check.load"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(LOADERS)
    ]
    try:
        for process in processes:
            _answer(process)
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def measured(
    running: Serving, url: str, callers: Sequence["subprocess.Popen[str]"], load: dict[str, Any]
) -> dict[str, Any]:
    """Run a load once to warm up, shortly, and once to measure."""
    _run(callers, load | {"seconds": min(1.0, load["seconds"] / 3), "seed": load["seed"] + 500})
    before, cpu_before, began_s = _metrics(url), _cpu(running.process.pid), time.perf_counter()
    with GpuLoad() as gpu:
        parts = _run(callers, load)
    took_s = time.perf_counter() - began_s
    after, cpu_after = _metrics(url), _cpu(running.process.pid)
    refused: dict[str, int] = {}
    for part in parts:
        for code, count in part["refused"].items():
            refused[code] = refused.get(code, 0) + count
    p50s = [each["p50_ms"] for each in parts if each["p50_ms"] is not None]
    p99s = [each["p99_ms"] for each in parts if each["p99_ms"] is not None]
    return {
        "rate": sum(each["rate"] for each in parts),
        "calls": sum(each["calls"] for each in parts),
        "p50_ms": sum(p50s) / len(p50s) if p50s else None,
        "p99_ms": max(p99s, default=None),
        "refused": refused,
        "gpu_busy": gpu.busy,
        "waits": _waits(before, after),
        "cores": {name: (each - cpu_before.get(name, 0.0)) / took_s for name, each in cpu_after.items()},
    }


def _run(callers: Sequence["subprocess.Popen[str]"], load: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a load in the processes, which share its callers, and return what each one measured."""
    shares = [len(range(at, load["callers"], len(callers))) for at in range(len(callers))]
    busy = [(process, share) for process, share in zip(callers, shares, strict=True) if share]
    for at, (process, share) in enumerate(busy):
        assert process.stdin is not None
        process.stdin.write(json.dumps(load | {"callers": share, "seed": 1000 * (at + 1) + load["seed"]}) + "\n")
        process.stdin.flush()
    return [json.loads(_answer(process)) for process, _ in busy]


def _answer(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    if not (line := process.stdout.readline()):
        raise RuntimeError("a process of callers has ended")
    return line


def _metrics(url: str) -> dict[str, float]:
    """Return the sums and counts of the stages' times."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    names = {*STAGES.values(), FILL}
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if family.name in names and not sample.name.endswith("_bucket"):
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def _waits(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Return the mean milliseconds of each stage, and how full the batches were."""

    def mean(name: str) -> float:
        count = after.get(f"{name}_count", 0.0) - before.get(f"{name}_count", 0.0)
        return (after.get(f"{name}_sum", 0.0) - before.get(f"{name}_sum", 0.0)) / count if count else 0.0

    return {**{f"{stage}_ms": 1000 * mean(name) for stage, name in STAGES.items()}, "fill": mean(FILL)}


def _cpu(pid: int) -> dict[str, float]:
    """Return the seconds of CPU so far of the server, and of its child processes by what they run."""
    used: dict[str, float] = {}
    top = psutil.Process(pid)
    for process in [top, *top.children(recursive=True)]:
        try:
            times, name = process.cpu_times(), "server" if process == top else _role(process)
        except psutil.Error:
            continue
        used[name] = used.get(name, 0.0) + times.user + times.system
    return used


def _role(process: psutil.Process) -> str:
    """Return what a child process does, as far as its command line tells."""
    words = " ".join(process.cmdline())
    return next(
        (role for role in ("model", "forkserver", "decode", "resource_tracker", "serve") if role in words), "other"
    )


if __name__ == "__main__":
    folder, precision, device, seconds, side, *rest = sys.argv[1:]
    main(folder, precision, device, float(seconds), int(side), *rest)
