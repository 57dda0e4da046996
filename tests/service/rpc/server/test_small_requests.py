"""No request, whatever it is full of, keeps the event loop long or takes much more memory than it has bytes."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import grpc
import httpx
import pytest
from google.protobuf.message import Message

from service.rpc.shared.bounds import RequestLimits, list_bounds, string_bounds
from service.settings import LimitSettings
from tests.fakes.floods import Flood, floods_of
from tests.fakes.messages import METHODS
from tests.service.rpc.server.test_fuzz import NAMED, ONE, SOUND
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import tenant_pb2 as tenant_pb

MIB = 1024 * 1024
LONGEST_ROUND_S = 0.05
CALL_S = 60
TRIES = 3
LIMITS = RequestLimits.of(LimitSettings())
LISTS, STRINGS = list_bounds(LIMITS), string_bounds(LIMITS)
MOST = int(os.environ.get("FLOOD_MIB", "16")) * MIB
"""What a message may have, which gRPC copies three times to receive it; a server has 32 MiB unless told otherwise."""
SIZES: dict[str, int] = {"2 MiB": 2 * MIB, "all that a message may have": MOST - MIB, "all that passes": MOST // 2}

PICTURES = collection_pb.Collection(name="Pictures", vectors=[NAMED])
PICTURES.properties.add(name="image", data_type=property_pb.DATA_TYPE_BLOB)
PICTURES.properties.add(name="title", data_type=property_pb.DATA_TYPE_TEXT)
PICTURES.properties.add(name="tags", data_type=property_pb.DATA_TYPE_TEXT_ARRAY)
PICTURES.properties.add(name="year", data_type=property_pb.DATA_TYPE_INT)
for number in range(900):
    PICTURES.properties.add(name=f"a{number:x}", data_type=property_pb.DATA_TYPE_TEXT_ARRAY)
"""A wide one: what is said of a name that is not there may not grow with those that are."""

SHARED = collection_pb.Collection(
    name="Shared", vectors=[NAMED], multi_tenancy=collection_pb.MultiTenancyConfig(enabled=True)
)
SHARED.properties.add(name="title", data_type=property_pb.DATA_TYPE_TEXT)


class Cost(NamedTuple):
    """What a call has cost: the longest round of the event loop, and memory."""

    round_s: float
    memory_bytes: int

    def within(self, size: int) -> bool:
        """Whether that is little for a request of so many bytes."""
        return self.round_s <= LONGEST_ROUND_S and self.memory_bytes <= 4 * size + 64 * MIB


class Measured:
    """A server in a process of its own whose calls are measured."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self.port, self.web_port = map(int, process.stdout.readline().split())
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", options)

    def _cost(self) -> Cost:
        """Return what all has cost since the last time."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        seconds, memory = self._process.stdout.readline().split()
        return Cost(float(seconds), int(memory))

    def dear(self, call: Callable[[], object], size: int) -> list[Cost]:
        """Return what a call costs that is of so many bytes, each time that it was made, or nothing if that is little.

        A busy machine may make a thing look dear, but not each time.
        """
        costs: list[Cost] = []
        for _ in range(TRIES):
            self._cost()
            call()
            costs.append(self._cost())
            if costs[-1].within(size):
                return []
        return costs

    def post(self, content: bytes | list[bytes]) -> None:
        """Send bytes as an HTTP request; several of them as chunks."""
        answer = httpx.post(f"http://127.0.0.1:{self.web_port}/v1/embeddings", content=content, timeout=CALL_S)
        assert answer.status_code < 500
        assert len(answer.content) < 2000 or answer.status_code == 200

    def call(self, name: str, content: bytes) -> grpc.StatusCode:
        """Send bytes as a request, and return how it ended."""
        method = BY_NAME[name]
        assert method.containing_service is not None
        kind = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        call: Any = kind(f"/{method.containing_service.full_name}/{method.name}")
        try:
            answer = call(content, timeout=CALL_S)
            if method.server_streaming:
                list(answer)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return grpc.StatusCode.OK

    def prepare(self) -> None:
        """Have the collections that requests name, with an object and a tenant."""
        requests: list[tuple[str, Message]] = [
            ("DeleteCollection", collection_pb.DeleteCollectionRequest(name="Other")),
            ("DeleteCollection", collection_pb.DeleteCollectionRequest(name="Pictures")),
            ("CreateCollection", collection_pb.CreateCollectionRequest(collection=PICTURES)),
            ("CreateCollection", collection_pb.CreateCollectionRequest(collection=SHARED)),
            (
                "CreateTenants",
                tenant_pb.CreateTenantsRequest(collection="Shared", tenants=[tenant_pb.Tenant(name="one")]),
            ),
            (
                "ImportObjects",
                object_pb.ImportObjectsRequest(collection="Pictures", objects=[object_pb.DataObject(id=ONE)]),
            ),
        ]
        for name, request in requests:
            self.call(name, request.SerializeToString())


BY_NAME = {method.name: method for method in METHODS}


@pytest.fixture(scope="module")
def measured() -> Iterator[Measured]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.measured", str(MOST)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        server = Measured(process)
        server.prepare()
        yield server
        server.channel.close()
        assert process.stdin is not None
        process.stdin.close()


def content_of(flood: Flood, size: str) -> bytes:
    """Return a flood of a size; of one that passes, as many elements as there may be, or as many bytes."""
    most = None
    size_bytes = SIZES[size]
    if size == "all that passes":
        if flood.is_long:
            size_bytes = STRINGS[flood.field].most if flood.field in STRINGS else 1000
        else:
            most = LISTS[flood.field].most if flood.field in LISTS else 100
    return flood.content(size_bytes, most)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", BY_NAME)
def test_a_request_full_of_one_thing_costs_little(measured: Measured, name: str, size: str) -> None:
    sound = SOUND[name].SerializeToString()
    measured.prepare()
    dear = {}
    floods = list(floods_of(BY_NAME[name].input_type))
    if size == "all that a message may have":
        # What passes no bound costs alike, whatever it is full of, and wherever it stands.
        plain = [each for each in floods if each.form in ("empty", "packed", "nested", "long")]
        floods = list({(each.field, each.form): each for each in plain}.values())
    for flood in floods:
        content = sound + content_of(flood, size)
        if costs := measured.dear(partial(measured.call, name, content), len(content)):
            dear[str(flood)] = costs

    assert not dear


def around(start: bytes, piece: bytes, end: bytes) -> Callable[[int], bytes]:
    """Return what makes a body of so many bytes, full of one piece."""
    return lambda size: start + piece * ((size - len(start) - len(end)) // len(piece)) + end


MODEL_AND = b'{"model": "fake/model", '
BODIES = {
    "empty texts": around(MODEL_AND + b'"input": [""', b',""', b"]}"),
    "texts": around(MODEL_AND + b'"input": ["a"', b',"a"', b"]}"),
    "tokens": around(MODEL_AND + b'"input": [1', b",1", b"]}"),
    "nulls": around(MODEL_AND + b'"input": [null', b",null", b"]}"),
    "lists": around(MODEL_AND + b'"input": [[]', b",[]", b"]}"),
    "objects": around(MODEL_AND + b'"input": [{}', b",{}", b"]}"),
    "deep": around(MODEL_AND + b'"input": ', b"[", b""),
    "deep elsewhere": around(MODEL_AND + b'"user": ', b'{"a":', b""),
    "a text": around(MODEL_AND + b'"input": "', b"a", b'"}'),
    "a wide text": around(MODEL_AND + b'"input": "', "\U0001f600".encode(), b'"}'),
    "escapes": around(MODEL_AND + b'"input": "', b"\\u00e9", b'"}'),
    "quotes": around(MODEL_AND + b'"input": "', b'\\"', b'"}'),
    "a picture": around(MODEL_AND + b'"input": "data:image/png;base64,', b"AAAA", b'"}'),
    "lines of a picture": around(MODEL_AND + b'"input": "data:image/png;base64,', b"AAAA\\n", b'"}'),
    "a media type": around(MODEL_AND + b'"input": "data:image/', b"a;a=", b'"}'),
    "a model": around(b'{"input": "a", "model": "', b"a", b'"}'),
    "a user": around(MODEL_AND + b'"input": "a", "user": "', b"a", b'"}'),
    "a format": around(MODEL_AND + b'"input": "a", "encoding_format": "', b"a", b'"}'),
    "a number": around(MODEL_AND + b'"input": "a", "dimensions": ', b"1", b"}"),
    "a field": around(MODEL_AND + b'"input": "a", "', b"a", b'": 1}'),
    "the same field": around(MODEL_AND + b'"input": "a"', b',"user":"a"', b"}"),
    "numbers again": around(MODEL_AND + b'"input": "a"', b',"dimensions":8', b"}"),
    "nothing": around(b"", b" ", b""),
    "noise": around(b"", b"\xff", b""),
}


@pytest.mark.parametrize("size", [2 * MIB, MOST - MIB], ids=["2 MiB", "all that a body may have"])
@pytest.mark.parametrize("body", BODIES)
def test_a_body_full_of_one_thing_costs_little(measured: Measured, body: str, size: int) -> None:
    content = BODIES[body](size)

    assert not measured.dear(partial(measured.post, content), len(content))


def test_a_chunk_full_of_what_looks_like_the_end_of_the_body_lets_others_have_their_turn(measured: Measured) -> None:
    content = b"\r\n" * (MIB // 4)

    assert not measured.dear(partial(measured.post, [content]), len(content))
