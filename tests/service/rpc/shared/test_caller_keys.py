"""Keys for the NIM that callers bring in a call's metadata."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import structlog
from grpc import StatusCode

from embedders.contract import Priority, Purpose
from embedders.nim.embedder import NimConfig, NimEmbedder
from tests.fakes.nim import FakeNim
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.input_pb2 import Input

SECRET = "nvapi-of-a-caller"
KEY = (("x-nvidia-api-key", SECRET),)
TEXT = embedding_pb.EmbedInputsRequest(inputs=[Input(text="a cat")])

CALLS: dict[str, Callable[[Wire, Any], Any]] = {
    "embed": lambda wire, metadata: wire.embedding.EmbedInputs(TEXT, metadata=metadata),
    "search": lambda wire, metadata: wire.search.SearchObjects(
        search_pb.SearchObjectsRequest(collection="Pictures", near_text=search_pb.NearText(concepts=["a cat"])),
        metadata=metadata,
    ),
    "import": lambda wire, metadata: wire.objects.ImportObjects(
        object_pb.ImportObjectsRequest(collection="Pictures", objects=[a_picture()], embed_unchanged=True),
        metadata=metadata,
    ),
}


def a_picture() -> object_pb.DataObject:
    picture = object_pb.DataObject()
    picture.properties["title"] = "a cat"
    return picture


@pytest.fixture
async def open_wire() -> AsyncIterator[Wire]:
    """A server that takes callers' keys."""
    wire = await start_wire(allow_caller_keys=True)
    await wire.create_pictures()
    yield wire
    await stop_wire(wire)


@pytest.mark.parametrize("name", CALLS)
async def test_a_callers_key_goes_to_the_embedder_where_keys_are_taken(open_wire: Wire, name: str) -> None:
    await CALLS[name](open_wire, KEY)
    await CALLS[name](open_wire, None)

    assert [options.api_key for _, options in open_wire.embedder.calls[-2:]] == [SECRET, None]


async def test_an_import_stays_a_bulk_load_of_documents_with_a_callers_key(open_wire: Wire) -> None:
    await CALLS["import"](open_wire, KEY)

    options = open_wire.embedder.calls[-1][1]
    assert (options.purpose, options.priority) == (Purpose.DOCUMENT, Priority.BULK)


@pytest.mark.parametrize("name", CALLS)
async def test_a_callers_key_is_refused_where_none_is_taken_and_nothing_is_embedded(wire: Wire, name: str) -> None:
    await wire.create_pictures()
    before = len(wire.embedder.calls)

    failure = await failure_of(CALLS[name](wire, KEY))

    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_INPUT")
    assert failure.fields == ['metadata["x-nvidia-api-key"]']
    assert "VECGATE_EMBEDDERS__<NAME>__ALLOW_CALLER_KEYS" in failure.message
    assert SECRET not in failure.message
    assert len(wire.embedder.calls) == before


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param((("x-nvidia-api-key", ""),), id="empty"),
        pytest.param((("x-nvidia-api-key", "x" * 5000),), id="too-long"),
        pytest.param((("x-nvidia-api-key", SECRET), ("x-nvidia-api-key", "another")), id="twice"),
    ],
)
async def test_metadata_that_holds_no_key_is_refused(open_wire: Wire, metadata: tuple[tuple[str, str], ...]) -> None:
    failure = await failure_of(open_wire.embedding.EmbedInputs(TEXT, metadata=metadata))

    assert (failure.code, failure.fields) == (StatusCode.INVALID_ARGUMENT, ['metadata["x-nvidia-api-key"]'])
    assert SECRET not in failure.message


async def test_a_callers_key_is_in_no_log_line(open_wire: Wire) -> None:
    with structlog.testing.capture_logs() as lines:
        for call in CALLS.values():
            await call(open_wire, KEY)

    assert lines
    assert SECRET not in str(lines)


async def test_a_key_that_the_nim_refuses_is_the_callers_fault_and_others_are_served() -> None:
    async with FakeNim(api_key="nvapi-right") as nim:
        config = NimConfig(base_url=nim.base_url, model=nim.model, api_key="nvapi-right", caller_keys=True)
        wire = await start_wire(NimEmbedder(config), allow_caller_keys=True)  # type: ignore[arg-type]
        try:
            failure = await failure_of(wire.embedding.EmbedInputs(TEXT, metadata=KEY))
            own = await wire.embedding.EmbedInputs(TEXT)
            right = await wire.embedding.EmbedInputs(TEXT, metadata=(("x-nvidia-api-key", "nvapi-right"),))
        finally:
            await stop_wire(wire)

    assert (failure.code, failure.reason) == (StatusCode.UNAUTHENTICATED, "UPSTREAM_KEY_REJECTED")
    assert failure.retry_s is None
    assert SECRET not in failure.message
    assert own.results[0].embedding == right.results[0].embedding


async def test_the_servers_own_key_that_the_nim_refuses_stays_the_servers_fault() -> None:
    async with FakeNim(api_key="nvapi-right") as nim:
        config = NimConfig(base_url=nim.base_url, model=nim.model, api_key="nvapi-wrong", caller_keys=True)
        wire = await start_wire(NimEmbedder(config), allow_caller_keys=True)  # type: ignore[arg-type]
        try:
            failure = await failure_of(wire.embedding.EmbedInputs(TEXT))
        finally:
            await stop_wire(wire)

    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "EMBEDDER_MISCONFIGURED")
    assert "nvapi" not in failure.message
