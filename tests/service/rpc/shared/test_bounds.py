"""Every bound that is a setting: what is at it passes, one over it and far over it are refused by name and bound."""

import importlib
import io
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from grpc import StatusCode
from PIL import Image

from embedders.contract import InputLimits
from embedders.front.batching import BatchingEmbedder
from embedders.front.queueing import QueueBounds
from service.rpc.server import calls, server
from service.settings import describe_settings
from tests.fakes.embedder import FakeEmbedder, picture
from tests.service.conftest import Failure, failure_of, start_wire, stop_wire, unpack
from vecgate.v1 import embedding_service_pb2 as pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.filter_pb2 import Filter
from vecgate.v1.input_pb2 import Input

SMALL = InputLimits(max_text_bytes=100, max_image_bytes=4096, max_image_pixels=10_000, max_image_frames=5)


def text_of(size: int) -> Input:
    return Input(text="ü" * (size // 2) + "x" * (size % 2))


def image_of_bytes(size: int) -> Input:
    # What stands behind a PNG's end is not part of the picture.
    return Input(image={"content": picture().ljust(size, b"\0")})


def image_of_pixels(pixels: int) -> Input:
    return Input(image={"content": picture(size=(1, pixels), file_format="PNG")})


def image_of_frames(frames: int) -> Input:
    pictures = [Image.new("RGB", (8, 8), (number % 256, number // 256, 200)) for number in range(frames)]
    file = io.BytesIO()
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:])
    return Input(image={"content": file.getvalue()})


class Item(NamedTuple):
    """A bound on one input, whose neighbours are answered."""

    bound: int
    input_of: Callable[[int], Input]
    far: int


ITEMS = {
    "limits.max_text_bytes": Item(100, text_of, 100_000),
    "limits.max_image_bytes": Item(4096, image_of_bytes, 1_000_000),
    "limits.max_image_pixels": Item(10_000, image_of_pixels, 65_535),
    "max_image_frames": Item(5, image_of_frames, 100),
}


@pytest.mark.parametrize("name", ITEMS)
async def test_an_input_over_its_bound_fails_alone_and_one_at_it_does_not(name: str) -> None:
    bound, input_of, far = ITEMS[name]
    limits = SMALL if name != "max_image_frames" else InputLimits(max_image_frames=bound)
    wire = await start_wire(FakeEmbedder(limits=limits))

    sizes = (bound, bound + 1, far)
    answer = await wire.embedding.EmbedInputs(
        pb.EmbedInputsRequest(inputs=[*map(input_of, sizes), Input(text="a neighbour")])
    )
    await stop_wire(wire)

    at, *over, neighbour = answer.results
    assert at.HasField("embedding"), at
    assert neighbour.HasField("embedding")
    for size, each in zip(sizes[1:], over, strict=True):
        failure = unpack(each.error)
        assert failure.code is StatusCode.INVALID_ARGUMENT
        assert {str(bound), str(size)} <= numbers_in(failure)


def nested(depth: int) -> Filter:
    """Return a filter of so many levels."""
    nest = Filter(condition={"property": "title", "operator": "FILTER_OPERATOR_EQUAL", "value": {"text": "a"}})
    for _ in range(depth - 1):
        nest = Filter(negation=nest)
    return nest


def wide(nodes: int) -> Filter:
    """Return a filter of so many parts."""
    return Filter(all_of={"filters": [nested(1)] * (nodes - 1)})


@pytest.mark.parametrize(
    ("name", "bound", "filter_of"), [("max_filter_depth", 4, nested), ("max_filter_nodes", 20, wide)]
)
async def test_a_filter_over_its_bound_is_refused_and_one_at_it_is_not(
    name: str, bound: int, filter_of: Callable[[int], Filter]
) -> None:
    del name
    wire = await start_wire()
    await wire.create_pictures()

    def search(size: int) -> search_pb.SearchObjectsRequest:
        return search_pb.SearchObjectsRequest(
            collection="Pictures", filters=filter_of(size), near_text={"concepts": ["a cat"]}
        )

    await wire.search.SearchObjects(search(bound))
    over = [await failure_of(wire.search.SearchObjects(search(size))) for size in (bound + 1, 3 * bound)]
    await stop_wire(wire)

    for failure in over:
        assert failure.code is StatusCode.INVALID_ARGUMENT
        assert all(field.startswith("filters") for field in failure.fields)
        assert str(bound) in numbers_in(failure)


@pytest.mark.parametrize(
    ("name", "bounds", "inputs_of"),
    [
        (
            "embedder.max_queued_inputs",
            QueueBounds(max_inputs=10, max_bytes=10**6),
            lambda size: [Input(text="a")] * size,
        ),
        ("embedder.max_queued_bytes", QueueBounds(max_inputs=100, max_bytes=10), lambda size: [Input(text="a")] * size),
    ],
)
async def test_more_than_may_wait_is_refused_before_any_of_it_is_taken(
    name: str, bounds: QueueBounds, inputs_of: Callable[[int], list[Input]]
) -> None:
    del name
    inner = FakeEmbedder(max_batch=4)
    embedder: Any = BatchingEmbedder(inner, bounds=bounds)
    wire = await start_wire(embedder)
    inner.calls.clear()

    at = await wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=inputs_of(10)))
    asked = len(inner.calls)
    over = [await failure_of(wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=inputs_of(n)))) for n in (11, 50)]
    await stop_wire(wire)

    assert all(each.HasField("embedding") for each in at.results)
    assert {(each.code, each.reason) for each in over} == {(StatusCode.UNAVAILABLE, "OVERLOADED")}
    assert all("10" in numbers_in(each) for each in over)
    assert len(inner.calls) == asked


def numbers_in(failure: Failure) -> set[str]:
    """Return the numbers that a message has."""
    return set(re.findall(r"\d+", failure.message))


async def test_an_answer_over_its_bound_is_refused_and_one_at_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    request = pb.EmbedInputsRequest(inputs=[Input(text="a")] * 50)
    wire = await start_wire()
    size = (await wire.embedding.EmbedInputs(request)).ByteSize()
    await stop_wire(wire)

    codes = []
    for bound in (size, size - 1, size // 2):
        for module in (server, calls):
            monkeypatch.setattr(module, "MAX_RESPONSE_BYTES", bound)
        wire = await start_wire()
        codes.append(await wire.embedding.EmbedInputs(request).code())
        await stop_wire(wire)

    assert size // 2 >= 1024
    assert codes == [StatusCode.OK, StatusCode.RESOURCE_EXHAUSTED, StatusCode.RESOURCE_EXHAUSTED]


TESTS = {
    "service.rpc.server.test_limits": {
        "test_a_message_over_its_bound_is_refused_and_one_at_it_is_not": ["server.max_request_bytes"],
        "test_metadata_over_its_bound_is_refused": ["constant: max_header_bytes"],
        "test_calls_over_their_number_are_overload_and_health_still_answers": ["server.max_calls"],
        "test_a_connection_ends_at_its_bound_without_a_failed_call": [
            "constant: max_connection_idle_s",
            "server.max_connection_age_s",
        ],
        "test_a_client_that_pings_too_often_is_disconnected": ["constant: min_ping_interval_s"],
        "test_a_call_takes_what_is_at_its_bound_and_no_more": [
            "limits.max_inputs",
            "limits.max_objects",
            "limits.max_hits",
        ],
    },
    "service.rpc.server.test_limits_hostile": {
        "test_a_request_that_never_ends_is_given_up": ["constant: request_timeout_s"],
        "test_connections_beyond_the_bound_are_closed_at_once_and_those_without_a_call_in_time": [
            "constant: max_connections"
        ],
        "test_calls_that_hold_too_much_keep_others_from_beginning_until_they_end": ["constant: max_calls_bytes"],
    },
    "service.rpc.shared.test_bounds": {
        "test_an_answer_over_its_bound_is_refused_and_one_at_it_is_not": ["constant: max_response_bytes"],
        "test_more_than_may_wait_is_refused_before_any_of_it_is_taken": [
            "embedder.max_queued_inputs",
            "constant: max_queued_bytes",
        ],
        "test_a_filter_over_its_bound_is_refused_and_one_at_it_is_not": [
            "constant: max_filter_depth",
            "constant: max_filter_nodes",
        ],
        "test_an_input_over_its_bound_fails_alone_and_one_at_it_does_not": [name for name in ITEMS if "." in name],
    },
    "service.rpc.server.test_calls": {
        "test_a_call_past_the_servers_own_limit_ends_with_deadline_exceeded": ["server.max_call_s"],
    },
    "embedders.front.test_breaker": {
        "test_a_check_that_takes_too_long_is_a_failure": ["constant: check_timeout_s"],
        "test_it_opens_after_failures_in_a_row_and_then_fails_without_asking": ["constant: max_failures"],
        "test_each_failed_probe_doubles_the_time_to_the_next_up_to_the_bound": ["constant: max_cool_down_s"],
    },
    "embedders.front.test_cache": {
        "test_the_least_recently_used_vectors_are_dropped_at_the_bound": ["embedder.cache_bytes"],
    },
    "embedders.front.test_batching": {
        "test_a_batch_has_at_most_what_the_backend_takes": ["clip.max_batch"],
    },
    "embedders.front.test_proof": {
        "test_stored_vectors_stand_in_for_the_reference": ["constant: probe_min_cosine"],
    },
    "service.rpc.test_spaces": {
        "test_a_nim_of_another_space_than_the_declared_one_is_refused_at_the_start": ["constant: probe_min_cosine"],
    },
    "embedders.nim.test_faults": {
        "test_a_slow_answer_ends_with_the_time_out_and_is_not_asked_for_again": ["nim.timeout_s"],
        "test_a_wait_asked_for_beyond_the_bound_is_handed_on_instead_of_waited_for": ["constant: retry_max_s"],
    },
    "embedders.nim.test_embedder": {
        "test_many_inputs_go_in_requests_of_64_and_no_more_at_once_than_connections": [
            "nim.max_batch",
            "nim.max_connections",
        ],
    },
    "embedders.nim.test_pictures": {
        "test_requests_are_cut_by_bytes_and_a_larger_input_goes_alone": ["nim.max_request_bytes"],
        "test_photos_that_have_to_be_converted_take_bounded_memory_and_requests": ["constant: max_converted_pixels"],
    },
    "e2e.test_store": {
        "test_a_call_to_a_hanging_weaviate_ends_by_the_nearest_limit": ["weaviate.timeout_s"],
        "TestWeaviateStore": ["constant: schema_max_age_s"],
    },
    "service.core.test_core": {
        "test_the_next_chunk_is_embedded_while_the_last_one_is_written": ["constant: max_batch_objects"],
        "test_chunks_are_bounded_in_bytes_but_a_large_object_still_goes_alone": ["constant: max_batch_bytes"],
    },
    "service.web.test_server": {
        "test_a_request_past_its_time_is_answered_so_and_its_work_is_dropped": ["constant: timeout_s"],
        "test_too_many_requests_at_once_are_told_to_come_again_but_health_is_not": ["constant: max_requests"],
    },
    "service.web.test_bodies": {
        "test_too_many_inputs_are_refused_before_they_cost_anything": ["web.max_inputs"],
        "test_a_body_that_never_ends_is_refused_and_its_connection_ended": ["web.max_body_bytes"],
        "test_bodies_that_are_too_long_together_are_refused_and_served_once_there_is_room": [
            "constant: max_bodies_bytes"
        ],
    },
    "service.web.test_hostile": {
        "test_callers_that_send_slowly_or_nothing_are_cut": ["constant: header_timeout_s", "constant: body_timeout_s"],
        "test_a_caller_that_does_not_read_its_answer_holds_it_no_longer_than_the_idle_time": [
            "constant: idle_timeout_s"
        ],
        "test_headers_over_the_bound_are_refused": ["constant: max_header_bytes"],
        "test_connections_over_the_bound_are_closed_and_the_others_served": ["constant: max_connections"],
    },
}
"""The tests of all bounds, settings and constants, by module. A new one needs a test and its name here."""

BOUND = re.compile(r"(^|_)(max|min)_|_bytes$|timeout_s$")


def test_every_setting_that_is_a_bound_has_a_test() -> None:
    names = {variable.removeprefix("VECGATE_").lower().replace("__", ".") for variable, _ in describe_settings()}
    tested = [
        name for tests in TESTS.values() for bounds in tests.values() for name in bounds if "constant" not in name
    ]
    assert {name for name in names if BOUND.search(name.rpartition(".")[2])} == set(tested)


@pytest.mark.parametrize("module", TESTS)
def test_the_tests_of_bounds_are_there(module: str) -> None:
    found = vars(importlib.import_module(f"tests.{module}"))
    assert [test for test in TESTS[module] if test not in found] == []
