"""What callers and their load balancers see when processes that run a local model are killed."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.e2e.serving import Serving, serving, tiny_model
from vecgate.client import Health, VecgateError

NO_RETRIES = [("grpc.enable_retries", 0)]


def loader_of(server: Serving) -> psutil.Process:
    """Return the process that has loaded the model; those that run it are its children."""
    children = psutil.Process(server.process.pid).children()
    (loader,) = (each for each in children if "model_process" in str(each.cmdline()))
    return loader


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_health_tells_the_truth_while_processes_of_the_model_are_killed(
    weaviate_binary: None, tmp_path: Path, workers: str
) -> None:
    folder, gone = tmp_path / "model", tmp_path / "gone"
    settings = tiny_model(folder) | {"VECGATE_EMBEDDERS__CLIP__DEVICE": "cpu,cpu", "VECGATE_SERVER__WORKERS": workers}
    codes: set[str] = set()
    ended = threading.Event()
    with serving(tmp_path / "data", **settings) as server, server.client(timeout_s=60, options=NO_RETRIES) as client:
        assert client.health() is Health.SERVING

        # One of two that run it, idle: the other one works, and a new one is there at once.
        killed = loader_of(server).children()[0]
        killed.kill()
        wait_until(lambda: len(loader_of(server).children()) == 2 and not killed.is_running(), 60)
        assert client.health() is Health.SERVING
        assert client.embed(["a dog"]).items[0].vector is not None

        # The one that loaded it, under calls, and it cannot be loaded again.
        def call_until_the_end() -> None:
            number = 0
            while not ended.wait(0.05):
                number += 1
                try:
                    client.embed([f"number {number}"])
                except VecgateError as error:
                    codes.add(error.code.name)

        calling = threading.Thread(target=call_until_the_end)
        calling.start()
        folder.rename(gone)
        loader_of(server).kill()
        try:
            wait_until(lambda: client.health() is Health.NOT_SERVING, 60)
        finally:
            ended.set()
            calling.join()
        with pytest.raises(VecgateError, match="try again"):
            client.embed(["a cat"])

        gone.rename(folder)
        wait_until(lambda: client.health() is Health.SERVING, 90)
        assert client.embed(["a cat"]).items[0].vector is not None
        below = psutil.Process(server.process.pid).children(recursive=True)

    assert codes <= {"UNAVAILABLE"}
    with suppress(psutil.NoSuchProcess):
        assert psutil.wait_procs(below, timeout=60)[1] == []
