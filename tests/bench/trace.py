"""How far one call travels through the code: functions, modules, and moves from one module to another.

Each call goes through a server in this process, to a simulated NIM and a real Weaviate. What counts is the Python
code of embedders/ and service/ that runs from the servicer's method on, in any thread. Interceptors do not count, nor
does reading the collection's schema, which searches have in a cache.
"""

import io
import os
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID

import grpc
from PIL import Image

from service.access import Authenticator
from service.core.embedder_pool import EmbedderPool
from service.rpc.embedding import EmbeddingServicer
from service.rpc.objects.servicer import ObjectServicer
from service.rpc.search.servicer import SearchServicer
from service.rpc.server.server import GrpcServer
from service.rpc.shared.bounds import RequestLimits
from service.settings import AuthSettings, load_settings
from service.store.embedded.server import EmbeddedWeaviate
from service.store.weaviate import WeaviateStore
from service.wiring import build_embedders
from tests.bench.web import process, serve_nim
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.collection_service_pb2_grpc import CollectionServiceStub
from vecgate.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub
from vecgate.v1.search_service_pb2_grpc import SearchServiceStub

ROOT = Path(__file__).parents[2]
OURS = tuple(f"{ROOT / folder}/" for folder in ("embedders", "service"))
INTERCEPTORS = f"{ROOT / 'service' / 'rpc' / 'server'}/"
REPEATS = 3
GOALS = {"SearchObjects": (30, 120), "EmbedInputs": (18, 80), "ImportObjects": (26, 140)}
"""Modules, and moves between them, at most."""


class Trace:
    """Records which functions are entered, and resumed, while a servicer's method runs.

    Attributes:
        calls: the module and the name of each, in order.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self._running = False

    def start(self) -> None:
        """Watch this thread, and all that are started later."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if self._running and event == "call" and file.startswith(OURS) and not file.startswith(INTERCEPTORS):
            self.calls.append((str(Path(file).relative_to(ROOT)), frame.f_code.co_qualname))

    def watch(self, servicer: type, method: str) -> None:
        """Record while a method of a servicer runs."""
        original: Callable[..., Awaitable[object]] = getattr(servicer, method)

        async def watched(*arguments: Any) -> object:
            self.calls.clear()
            self._running = True
            try:
                return await original(*arguments)
            finally:
                self._running = False

        setattr(servicer, method, watched)

    def leave_out(self, owner: type, method: str) -> None:
        """Record nothing while a method runs."""
        original: Callable[..., Awaitable[object]] = getattr(owner, method)

        async def unwatched(*arguments: Any, **more: Any) -> object:
            was, self._running = self._running, False
            try:
                return await original(*arguments, **more)
            finally:
                self._running = was

        setattr(owner, method, unwatched)

    def report(self, method: str, title: str) -> None:
        """Print what was recorded since the method began."""
        modules = list(dict.fromkeys(module for module, _ in self.calls))
        moves = sum(before[0] != after[0] for before, after in pairwise(self.calls))
        most_modules, most_moves = GOALS[method]
        print(f"{method}, {title}: {len(self.calls)} calls of {len(set(self.calls))} functions, {len(modules)} modules "
              f"(goal {most_modules}), {moves} moves between modules (goal {most_moves})")  # fmt: skip
        if "-v" in sys.argv:
            for module in modules:
                print(f"  {sum(each == module for each, _ in self.calls):4} {module}")
            for module, name in self.calls:
                print(f"       {module} {name}")


def picture(colour: str) -> bytes:
    """Return a JPEG."""
    file = io.BytesIO()
    Image.new("RGB", (300, 200), colour).save(file, "JPEG")
    return file.getvalue()


async def bench_trace() -> None:
    """Print how far a search, an embedding and an import travel; `-v` after the name lists the modules and calls."""
    trace = Trace()
    for servicer, method in (
        (SearchServicer, "SearchObjects"),
        (EmbeddingServicer, "EmbedInputs"),
        (ObjectServicer, "ImportObjects"),
    ):
        trace.watch(servicer, method)
    trace.leave_out(WeaviateStore, "get_collection")
    trace.start()
    try:
        with process(serve_nim) as nim, tempfile.TemporaryDirectory() as folder:
            await _run(trace, str(nim.recv()), Path(folder))
    finally:
        threading.setprofile(None)  # type: ignore[arg-type]  # which ends it
        sys.setprofile(None)


async def _run(trace: Trace, nim: str, folder: Path) -> None:
    os.environ |= {
        "VECGATE_EMBEDDERS__NIM__KIND": "nim",
        "VECGATE_EMBEDDERS__NIM__BASE_URL": nim,
        "VECGATE_SERVER__PORT": "0",
        "VECGATE_WEAVIATE__EMBEDDED": "true",
        "VECGATE_WEAVIATE__DATA_DIR": str(folder),
    }
    settings = load_settings()
    weaviate = EmbeddedWeaviate(settings.weaviate)
    await weaviate.start()
    store = WeaviateStore(weaviate.client_settings)
    await store.start()
    pool = EmbedderPool(build_embedders(settings), check_interval_s=3600)
    await pool.start()
    await pool.first_checks()
    server = GrpcServer(
        settings.server,
        RequestLimits.of(settings.limits),
        store=store,
        embedders=pool,
        authenticator=Authenticator(AuthSettings()),
    )
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        await _call(trace, channel)
    await server.stop()
    await pool.close()
    await store.close()
    await weaviate.stop()


async def _call(trace: Trace, channel: grpc.aio.Channel) -> None:
    """Make each call several times, so that connections stand and schemas are known, and report the last one."""
    collection = collection_pb.Collection(
        name="Holidays",
        properties=[
            property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT),
            property_pb.Property(name="photo", data_type=property_pb.DATA_TYPE_BLOB),
        ],
        vectors=[{"name": "default", "image_fields": [{"name": "photo"}], "text_fields": [{"name": "title"}]}],
    )
    create = collection_pb.CreateCollectionRequest(collection=collection)
    await CollectionServiceStub(channel).CreateCollection(create)

    for number in range(REPEATS):
        request = object_pb.ImportObjectsRequest(collection="Holidays")
        for each in range(5 if number == 0 else 1):
            added = request.objects.add(id=str(UUID(int=10 * number + each + 1)))
            added.properties["title"] = f"a beach {number} {each}"
            added.images["photo"].content = picture(f"#{number}{each}f")
        imported = await ObjectServiceStub(channel).ImportObjects(request)
        assert imported.results[0].HasField("stored"), imported
    trace.report("ImportObjects", "one object with a text and a JPEG, NIM")

    for number in range(REPEATS):
        embed = embedding_pb.EmbedInputsRequest()
        embed.inputs.add().image.content = picture(f"#ff{number}")
        embedded = await EmbeddingServiceStub(channel).EmbedInputs(embed)
        assert embedded.results[0].HasField("embedding"), embedded
    trace.report("EmbedInputs", "one JPEG, NIM")

    for number in range(REPEATS):
        search = search_pb.SearchObjectsRequest(collection="Holidays", limit=5)
        search.near_text.concepts.append(f"a day at the beach {number}")
        found = await SearchServiceStub(channel).SearchObjects(search)
        assert len(found.hits) == 5, found
    trace.report("SearchObjects", "near_text of one concept, five hits, NIM")
