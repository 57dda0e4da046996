"""A Vecgate of its own process, started as an operator starts it, with an embedded Weaviate on free ports."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from service.settings import WeaviateSettings
from service.store.embedded.server import EmbeddedWeaviate
from tests.fakes.tiny_clip import write_tiny_clip
from tests.fakes.weaviate import at_ports, variables_at_ports
from vecgate.client import Client

ROOT = Path(__file__).parents[2]
START_S = 90

CHECKED = ("embedder_ready", "embedder_unavailable")
FIRST_CHECKS_S = 10
"""Seconds to wait for the first checks: an embedder that says nothing at all is unavailable only later."""


class Serving:
    """A running `vecgate serve`.

    Attributes:
        log: every line of its log so far, parsed.
        address: where its gRPC server listens.
    """

    def __init__(self, data_dir: Path, **settings: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VECGATE_")}
        environment |= {
            "VECGATE_SERVER__PORT": "0",
            "VECGATE_WEB__PORT": "0",
            "VECGATE_LOG__FORMAT": "json",
            "VECGATE_WEAVIATE__EMBEDDED": "true",
            "VECGATE_WEAVIATE__DATA_DIR": str(data_dir),
            **variables_at_ports(0, 0),
            **settings,
        }
        self.log: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve"], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.log.append(json.loads(line))
            except json.JSONDecodeError:
                self.log.append({"event": line.rstrip()})

    def wait_for(self, event: str, seconds: float = START_S) -> dict[str, Any]:
        """Return the log's first line of an event, waiting for it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in list(self.log):
                if line["event"] == event:
                    return line
            if self.process.poll() is not None:
                self._reader.join(5)
                if not any(line["event"] == event for line in self.log):
                    break
            time.sleep(0.05)
        raise AssertionError(f"no {event!r} within {seconds} s; the log: {self.log}")

    @property
    def address(self) -> str:
        """Where the gRPC server listens, waiting for it and for what it says of each embedder after the first check."""
        line = self.wait_for("serving")
        end = time.monotonic() + FIRST_CHECKS_S
        while time.monotonic() < end and self.process.poll() is None:
            told = {each["embedder"] for each in list(self.log) if each["event"] in CHECKED}
            if told >= set(line["embedders"]):
                break
            time.sleep(0.05)
        return str(line["grpc"])

    @property
    def url(self) -> str:
        """Where the HTTP server listens, waiting for it."""
        return str(self.wait_for("serving")["http"])

    def client(self, **options: Any) -> Client:
        """Return a client of this server."""
        return Client(self.address, **options)

    def weaviate(self) -> psutil.Process:
        """Return the Weaviate that this server runs."""
        children = psutil.Process(self.process.pid).children()  # those that run models are others
        (child,) = (each for each in children if each.name().startswith("weaviate"))
        return child

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 60) -> int:
        """Send a signal and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(seconds)
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@contextmanager
def serving(data_dir: Path, **settings: str) -> Iterator[Serving]:
    """Run a Vecgate; whatever happens, neither it nor its Weaviate is left behind."""
    running = Serving(data_dir, **settings)
    try:
        yield running
    finally:
        running.end()
        end_all(data_dir)


@contextmanager
def running_weaviate(data_dir: Path) -> Iterator[EmbeddedWeaviate]:
    """Run a real Weaviate on free ports."""
    server = EmbeddedWeaviate(WeaviateSettings(embedded=True, data_dir=data_dir, **at_ports(0, 0)), supervised=False)
    with asyncio.Runner() as runner:
        runner.run(server.start())
        try:
            yield server
        finally:
            runner.run(server.stop())


def end_all(data_dir: Path) -> None:
    """Kill what is left of the Weaviates whose data lies in a folder."""
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get("PERSISTENCE_DATA_PATH", "").startswith(str(data_dir)):
            process.kill()


def tiny_model(folder: Path, seed: int = 0) -> dict[str, str]:
    """Return settings for a CLIP of a few random weights: quick to load, and deterministic."""
    write_tiny_clip(folder, seed=seed)
    return {"VECGATE_EMBEDDERS__CLIP__KIND": "clip", "VECGATE_EMBEDDERS__CLIP__MODEL": str(folder)}
