"""Two Vecgates behind a client that balances by itself: one after the other is drained and started anew under load."""

import asyncio
import contextlib
import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from service.process.ports import free_ports
from service.settings import WeaviateSettings
from tests.e2e.serving import Serving, serving
from tests.fakes.nim import FakeNim
from tests.fakes.weaviate import variables_of
from vecgate.client import Client, Health, Object, VecgateError
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb

ROUNDS = 4
DIMENSION = 16
ANSWERS_BETWEEN = 30


@contextmanager
def nim() -> Iterator[str]:
    """Serve a NIM from a thread of its own and yield its address."""
    with nim_in_thread() as (fake, _):
        yield fake.base_url


@contextmanager
def nim_in_thread() -> Iterator[tuple[FakeNim, asyncio.AbstractEventLoop]]:
    """Serve a NIM from a thread of its own and yield it, with the thread's event loop."""
    started, loop, fake = threading.Event(), asyncio.new_event_loop(), FakeNim(dimension=DIMENSION)

    async def serve() -> None:
        async with fake:
            started.set()
            await asyncio.Event().wait()

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    task = loop.create_task(serve())
    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    try:
        yield fake, loop
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()


@dataclass
class Load:
    """Calls of several kinds, each kind from a thread of its own, one after the other without a pause.

    Attributes:
        answered: how many calls were answered.
        failures: what failed.
    """

    answered: int = 0
    failures: list[str] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def of(self, *calls: Callable[[int], object]) -> Iterator[None]:
        threads = [threading.Thread(target=self._repeat, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._end.set()
            for thread in threads:
                thread.join()

    def _repeat(self, call: Callable[[int], object]) -> None:
        for number in itertools.count():
            if self._end.is_set():
                return
            try:
                call(number)
            except VecgateError as error:
                self.failures.append(f"{error.code.name}: {error}")
            with self._lock:
                self.answered += 1

    def wait_for_more(self) -> None:
        """Return when some more calls have been answered."""
        goal, end = self.answered + ANSWERS_BETWEEN, time.monotonic() + 60
        while self.answered < goal:
            assert time.monotonic() < end, "the load stands still"
            time.sleep(0.01)


def behind(weaviate: WeaviateSettings, nim_address: str) -> dict[str, str]:
    return {
        "VECGATE_EMBEDDERS__NIM__KIND": "nim",
        "VECGATE_EMBEDDERS__NIM__BASE_URL": nim_address,
        **variables_of(weaviate),
        "VECGATE_SERVER__DRAIN_DELAY_S": "0.2",
    }


def test_no_call_fails_while_servers_are_drained_and_started_anew(
    weaviate_settings: WeaviateSettings, tmp_path: Path
) -> None:
    collection = f"Rolling{uuid4().hex[:8]}"
    ports = free_ports(1, 1)
    load, codes, shares = Load(), [], []
    with ExitStack() as ends:
        settings = behind(weaviate_settings, ends.enter_context(nim()))

        def start(port: int) -> Serving:
            server = ends.enter_context(serving(tmp_path, **settings, VECGATE_SERVER__PORT=str(port)))
            with server.client() as alone:
                end = time.monotonic() + 60
                while alone.health() is not Health.SERVING:
                    assert time.monotonic() < end
                    time.sleep(0.05)
            return server

        servers = [start(port) for port in ports]
        client = ends.enter_context(Client("ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)))
        client.create_collection(
            pb.Collection(
                name=collection,
                properties=[property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)],
                vectors=[pb.VectorConfig(name="default", text_fields=[pb.WeightedField(name="title", weight=1)])],
            )
        )

        def import_one(number: int) -> None:
            for outcome in client.import_objects(collection, [Object({"title": f"object {number}"})]):
                if outcome.error is not None:
                    raise outcome.error

        with load.of(
            lambda number: client.embed([f"text {number}"]),
            lambda number: client.search(collection, text=f"object {number}"),
            import_one,
        ):
            for round_ in range(ROUNDS):
                load.wait_for_more()
                codes.append(servers[round_ % 2].end(signal.SIGTERM))
                load.wait_for_more()
                servers[round_ % 2] = start(ports[round_ % 2])
                shares.append(_share(load, servers[round_ % 2]))
        client.delete_collection(collection)

    assert load.failures == []
    assert codes == [0] * ROUNDS
    assert min(shares) > 0, "a server that was started anew gets calls again"


def _share(load: Load, server: Serving) -> int:
    """Return how many calls a new server has answered as soon as it has any, or after a while."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        load.wait_for_more()
        answered = sum(line["event"] == "call" for line in list(server.log))
        if answered:
            return answered
    return 0
