"""Every bound, setting or constant: what is at it passes, one over it and far over it are refused by name and bound."""

import ast
import importlib
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from grpc import StatusCode
from PIL import Image

from embedders.contract import InputLimits
from embedders.front.batching import BatchingEmbedder
from embedders.front.queueing import QueueBounds
from service.rpc.server import calls, server
from service.settings import KINDS, NimConnectionSettings, describe_settings
from tests.fakes.embedder import FakeEmbedder, picture
from tests.service.conftest import Failure, failure_of, over_every_wire, start_wire, stop_wire, unpack
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


@over_every_wire
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


@over_every_wire
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


@over_every_wire
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


@over_every_wire
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
    "service.test_healthcheck": {"test_one_that_hangs_or_is_not_there_is_not": ["service.healthcheck.TIMEOUT_S"]},
    "service.rpc.server.test_limits": {
        "test_a_message_over_its_bound_is_refused_and_one_at_it_is_not": ["server.max_request_bytes"],
        "test_metadata_over_its_bound_is_refused": ["service.rpc.server.server.MAX_HEADER_BYTES"],
        "test_calls_over_their_number_are_overload_and_health_still_answers": ["server.max_calls"],
        "test_a_connection_ends_at_its_bound_without_a_failed_call": [
            "service.rpc.server.server.MAX_CONNECTION_IDLE_S",
            "server.max_connection_age_s",
        ],
        "test_a_client_that_pings_too_often_is_disconnected": ["service.rpc.server.server.MIN_PING_INTERVAL_S"],
        "test_a_call_takes_what_is_at_its_bound_and_no_more": [
            "limits.max_inputs",
            "limits.max_objects",
            "limits.max_hits",
        ],
    },
    "service.rpc.server.test_limits_hostile": {
        "test_a_request_that_never_ends_is_given_up": ["service.rpc.server.calls.REQUEST_TIMEOUT_S"],
        "test_connections_beyond_the_bound_are_closed_at_once_and_those_without_a_call_in_time": [
            "service.rpc.server.server.MAX_CONNECTIONS"
        ],
        "test_calls_that_hold_too_much_keep_others_from_beginning_until_they_end": [
            "service.rpc.server.calls.MAX_CALLS_BYTES"
        ],
        "test_a_client_that_is_gone_without_a_word_holds_nothing": ["service.rpc.server.server.KEEPALIVE_TIMEOUT_MS"],
        "test_connections_that_say_nothing_are_closed_in_time": ["service.rpc.server.server.HANDSHAKE_TIMEOUT_MS"],
        "test_a_long_list_of_faults_reaches_the_caller_as_far_as_it_fits": [
            "service.error_table.MAX_MESSAGE_BYTES",
            "service.error_table.MAX_VIOLATIONS_BYTES",
            "service.error_table.MAX_NAME_BYTES",
        ],
    },
    "service.rpc.shared.test_bounds": {
        "test_an_answer_over_its_bound_is_refused_and_one_at_it_is_not": [
            "service.rpc.server.calls.MAX_RESPONSE_BYTES"
        ],
        "test_more_than_may_wait_is_refused_before_any_of_it_is_taken": [
            "embedder.max_queued_inputs",
            "embedders.front.queueing.MAX_QUEUED_BYTES",
        ],
        "test_a_filter_over_its_bound_is_refused_and_one_at_it_is_not": [
            "service.rpc.shared.bounds.RequestLimits.max_filter_depth",
            "service.rpc.shared.bounds.RequestLimits.max_filter_nodes",
        ],
        "test_an_input_over_its_bound_fails_alone_and_one_at_it_does_not": [name for name in ITEMS if "." in name],
    },
    "service.rpc.server.test_calls": {
        "test_a_call_past_the_servers_own_limit_ends_with_deadline_exceeded": ["server.max_call_s"],
        "test_every_call_has_a_request_id_the_callers_own_if_it_sent_one": [
            "service.rpc.server.calls.MAX_REQUEST_ID_LENGTH"
        ],
    },
    "service.rpc.server.test_small_requests": {
        "test_a_chunk_full_of_what_looks_like_the_end_of_the_body_lets_others_have_their_turn": [
            "service.web.server.MAX_PIECES"
        ],
    },
    "service.fetching.test_uris": {
        "test_a_uri_has_so_many_characters_and_no_more": ["service.fetching.uris.MAX_URI_BYTES"],
    },
    "service.fetching.test_fetcher": {
        "test_a_picture_at_the_bound_is_taken_and_no_more_than_that_of_a_larger_one": [
            "service.fetching.fetcher.MAX_PICTURE_BYTES"
        ],
        "test_a_slow_body_is_given_up_in_time": ["service.fetching.fetcher.FETCH_TIMEOUT_S"],
        "test_redirects_without_end_or_aim_are_given_up": ["service.fetching.fetcher.MAX_REDIRECTS"],
        "test_a_slow_origin_is_asked_for_a_few_pictures_at_once_and_holds_back_no_other": [
            "service.fetching.connecting.MAX_ORIGIN_CONNECTIONS"
        ],
    },
    "service.core.test_pictures": {
        "test_pictures_that_are_fetched_together_have_a_bound": ["service.core.pictures.MAX_TOGETHER_BYTES"],
        "test_pictures_are_embedded_in_parts_of_bounded_bytes": ["service.core.pictures.PART_BYTES"],
    },
    "embedders.front.test_breaker": {
        "test_a_check_that_takes_too_long_is_a_failure": ["embedders.front.breaker.BreakerRules.check_timeout_s"],
        "test_it_opens_after_failures_in_a_row_and_then_fails_without_asking": [
            "embedders.front.breaker.BreakerRules.max_failures"
        ],
        "test_each_failed_probe_doubles_the_time_to_the_next_up_to_the_bound": [
            "embedders.front.breaker.BreakerRules.max_cool_down_s"
        ],
    },
    "embedders.front.test_cache": {
        "test_the_least_recently_used_vectors_are_dropped_at_the_bound": ["embedder.cache_bytes"],
    },
    "embedders.front.test_batching": {
        "test_a_batch_has_at_most_what_the_backend_takes": ["clip.max_batch"],
    },
    "embedders.front.test_proof": {
        "test_stored_vectors_stand_in_for_the_reference": ["service.wiring.PROBE_MIN_COSINE"],
    },
    "service.rpc.test_spaces": {
        "test_a_nim_of_another_space_than_the_declared_one_serves_nothing_and_says_why": [
            "service.wiring.PROBE_MIN_COSINE"
        ],
    },
    "embedders.nim.test_faults": {
        "test_a_slow_answer_ends_with_the_time_out_and_is_not_asked_for_again": [
            "nim.timeout_s",
            "embedders.nim.calls.NimCallConfig.timeout_s",
        ],
        "test_a_wait_asked_for_beyond_the_bound_is_handed_on_instead_of_waited_for": [
            "embedders.nim.calls.NimCallConfig.retry_max_s"
        ],
    },
    "embedders.nim.test_embedder": {
        "test_many_inputs_go_in_requests_of_64_and_no_more_at_once_than_connections": [
            "nim.max_batch",
            "nim.max_connections",
            "embedders.nim.calls.NimCallConfig.max_connections",
            "embedders.nim.connection.ConnectionConfig.max_connections",
        ],
    },
    "embedders.nim.test_serving": {
        "test_what_is_set_and_does_not_fit_the_served_model_is_told": ["embedders.nim.profiles.NimProfile.max_inputs"],
    },
    "embedders.nim.test_reranking": {
        "test_a_request_has_at_most_512_passages": ["embedders.nim.reranking.MAX_PASSAGES"],
        "test_requests_are_cut_by_bytes_and_a_larger_passage_goes_alone": [
            "embedders.nim.calls.NimCallConfig.max_request_bytes",
        ],
        "test_no_more_requests_run_at_once_than_connections_and_a_check_passes_them": [
            "embedders.nim.calls.NimCallConfig.max_connections"
        ],
        "test_a_slow_answer_ends_with_the_time_out": ["embedders.nim.calls.NimCallConfig.timeout_s"],
        "test_a_wait_beyond_the_time_for_retries_is_not_begun": ["embedders.nim.calls.NimCallConfig.retry_max_s"],
        "test_pictures_that_have_to_be_converted_are_scaled_down": [
            "embedders.nim.calls.NimCallConfig.max_converted_pixels"
        ],
    },
    "embedders.nim.test_pictures": {
        "test_requests_are_cut_by_bytes_and_a_larger_input_goes_alone": [
            "nim.max_request_bytes",
            "embedders.nim.calls.NimCallConfig.max_request_bytes",
        ],
        "test_photos_that_have_to_be_converted_take_bounded_memory_and_requests": [
            "embedders.nim.calls.NimCallConfig.max_converted_pixels"
        ],
        "test_a_large_body_goes_out_in_pieces_of_a_length_that_was_told": ["embedders.nim.connection.PIECE_BYTES"],
    },
    "e2e.test_store": {
        "test_a_call_to_a_hanging_weaviate_ends_by_the_nearest_limit": ["weaviate.timeout_s"],
        "TestWeaviateStore": ["service.store.weaviate.collections.SCHEMA_MAX_AGE_S"],
    },
    "service.sources.test_parquet": {
        "test_a_batch_is_bounded_by_bytes": ["service.sources.rows.BATCH_BYTES"],
        "test_row_groups_are_fragments_and_numbers_of_rows_go_on": ["service.sources.parquet.FRAGMENT_BYTES"],
        "test_a_footer_over_its_bounds_is_refused": [
            "service.sources.parquet.MAX_FOOTER_VALUES",
            "service.sources.parquet.MAX_FOOTER_TEXT_BYTES",
        ],
        "test_what_is_told_of_a_value_is_short": ["service.sources.errors.MAX_DETAIL_CHARS"],
    },
    "service.sources.test_references": {
        "test_a_uri_that_no_request_can_hold_is_refused": ["service.sources.mapping.MAX_URI_CHARS"],
    },
    "service.sources.test_storage": {
        "test_a_fragment_of_pictures_has_so_many_and_no_more": ["service.sources.pictures.MAX_FILES"],
    },
    "service.sources.test_tars": {
        "test_a_member_over_the_bound_is_refused_unread_and_the_next_one_is_read": [
            "service.sources.rows.MAX_VALUE_BYTES"
        ],
        "test_a_name_that_unpacks_to_a_gigabyte_is_not_unpacked": ["service.sources.tars.MAX_HEADER_BYTES"],
    },
    "service.sources.test_text": {
        "test_a_csv_that_is_not_one_is_named_with_its_line": ["service.sources.text.MAX_LINE_BYTES"],
        "test_ranges_of_a_jsonl_have_each_line_once": ["service.sources.text.FRAGMENT_BYTES"],
    },
    "service.core.test_core": {
        "test_the_next_chunk_is_embedded_while_the_last_one_is_written": [
            "service.core.objects.importing.MAX_CHUNK_OBJECTS"
        ],
        "test_chunks_are_bounded_in_bytes_but_a_large_object_still_goes_alone": [
            "service.core.objects.importing.MAX_CHUNK_BYTES"
        ],
        "test_an_object_has_so_many_images_and_vectors_and_no_more": [
            "service.rpc.shared.bounds.MAX_OBJECT_IMAGES",
            "service.rpc.shared.bounds.MAX_OBJECT_VECTORS",
        ],
        "test_chunks_are_bounded_in_values": ["service.core.objects.importing.MAX_CHUNK_VALUES"],
    },
    "service.web.test_server": {
        "test_a_request_past_its_time_is_answered_so_and_its_work_is_dropped": [
            "service.web.bounds.WebBounds.timeout_s"
        ],
        "test_too_many_requests_at_once_are_told_to_come_again_but_health_is_not": [
            "service.web.bounds.WebBounds.max_requests"
        ],
    },
    "service.web.test_bodies": {
        "test_too_many_inputs_are_refused_before_they_cost_anything": ["web.max_inputs"],
        "test_a_body_that_never_ends_is_refused_and_its_connection_ended": ["web.max_body_bytes"],
        "test_bodies_that_are_too_long_together_are_refused_and_served_once_there_is_room": [
            "service.web.bounds.WebBounds.max_bodies_bytes"
        ],
        "test_answers_that_nobody_reads_count_towards_the_bound_until_their_callers_are_gone": [
            "service.web.bounds.WebBounds.max_bodies_bytes"
        ],
    },
    "service.web.test_inputs": {
        "test_what_is_plainly_not_base64_is_refused": ["service.web.inputs.MAX_LINE"],
    },
    "service.web.test_hostile": {
        "test_callers_that_send_slowly_or_nothing_are_cut": [
            "service.web.bounds.WebBounds.header_timeout_s",
            "service.web.bounds.WebBounds.body_timeout_s",
        ],
        "test_a_caller_that_does_not_read_its_answer_holds_it_no_longer_than_the_idle_time": [
            "service.web.bounds.WebBounds.idle_timeout_s"
        ],
        "test_more_headers_than_the_bound_are_refused_however_short": ["service.web.server.MAX_HEADERS"],
        "test_headers_over_the_bound_are_refused": ["service.web.bounds.WebBounds.max_header_bytes"],
        "test_connections_over_the_bound_are_closed_and_the_others_served": [
            "service.web.bounds.WebBounds.max_connections"
        ],
    },
    "service.rpc.collections.test_collection": {
        "test_every_violation_of_a_schema_is_listed_with_its_path": ["service.rpc.collections.request.MAX_DEPTH"],
        "test_a_page_that_cannot_be_is_refused": ["service.rpc.collections.request.MAX_PAGE_SIZE"],
    },
    "service.rpc.collections.test_binding": {
        "test_stored_vectors_prove_the_embedder_and_its_fields": ["service.core.collections.binding.MAX_COMPARED"],
        "test_a_few_objects_may_have_changed_without_their_vectors": [
            "service.core.collections.binding.MIN_COSINE",
            "service.core.collections.binding.MIN_SHARE",
        ],
        "test_what_proves_too_little_is_bound_on_the_callers_word_alone": [
            "service.core.collections.binding.MIN_COMPARED"
        ],
        "test_objects_without_a_field_do_not_prove_it": ["service.core.collections.binding.MIN_SHOWN"],
        "test_a_proof_reads_so_many_objects_and_no_more": ["service.core.collections.sampling.MAX_READ"],
        "test_tenants_are_compared_from_the_first_to_the_last_and_a_few_of_them": [
            "service.core.collections.sampling.MAX_TENANTS"
        ],
        "test_large_objects_are_embedded_one_by_one": ["service.core.collections.sampling.BATCH_BYTES"],
        "test_vectors_must_have_unit_length_where_the_distance_depends_on_it": [
            "service.core.collections.binding.MAX_LENGTH_ERROR"
        ],
    },
    "service.rpc.collections.test_tenants": {
        "test_every_violation_is_listed_with_its_path": ["service.rpc.collections.tenants.MAX_TENANTS"],
    },
    "service.rpc.shared.test_request_bounds": {
        "test_a_watch_of_a_long_name_is_not_kept": ["service.rpc.server.standard_services.MAX_NAME_LENGTH"],
        "test_a_long_request_for_reflection_is_refused_and_a_short_one_answered": [
            "service.rpc.server.standard_services.MAX_REFLECTION_BYTES"
        ],
        "test_the_values_of_all_objects_are_bounded_before_any_is_looked_at": ["service.rpc.shared.bounds.MAX_VALUES"],
        "test_an_object_with_too_much_in_its_properties_fails_alone": [
            "service.rpc.shared.bounds.MAX_OBJECT_VALUES",
            "service.rpc.shared.bounds.MAX_PROPERTIES_BYTES",
        ],
        "test_a_hundred_faults_are_named_and_the_others_counted": ["service.errors.MAX_VIOLATIONS"],
        "test_the_id_of_an_object_that_fails_is_returned_cut": ["service.rpc.objects.messages.MAX_ID_CHARS"],
    },
    "service.rpc.server.test_wire": {
        "test_a_string_passes_at_its_bound_and_is_refused_by_name_over_it": [
            "service.rpc.shared.bounds.NAME_BYTES",
            "service.rpc.shared.bounds.TEXT_BYTES",
            "service.rpc.shared.bounds.KEYWORDS_BYTES",
            "service.rpc.shared.bounds.IMAGE_BYTES",
            "service.rpc.shared.bounds.URI_BYTES",
            "service.rpc.shared.bounds.MAX_DIMENSION",
        ],
        "test_messages_may_be_a_hundred_levels_deep": ["service.rpc.server.wire.MAX_DEPTH"],
    },
    "service.rpc.search.test_refusals": {
        "test_a_search_that_cannot_be_is_refused_with_the_paths": [
            "service.rpc.shared.filters.MAX_LATITUDE",
            "service.rpc.shared.filters.MAX_LONGITUDE",
        ],
    },
    "service.rpc.evaluation.test_evaluation": {
        "test_what_cannot_be_is_refused_with_the_paths_and_nothing_is_read": [
            "service.rpc.evaluation.request.MAX_LIMIT",
            "service.rpc.shared.bounds.MAX_QUERIES",
            "service.rpc.evaluation.request.MAX_OBJECTS",
            "service.rpc.evaluation.request.MAX_GAIN",
            "service.rpc.evaluation.request.MAX_HITS",
            "service.core.evaluating.suggesting.MAX_EF",
        ],
        "test_hubs_vectors_of_other_lengths_and_queries_that_lie_apart_are_named": [
            "service.core.evaluating.truth.MAX_LENGTH_ERROR"
        ],
        "test_long_captions_are_cut_as_the_words_of_a_search_are": ["service.core.evaluating.queries.MAX_WORDS_BYTES"],
        "test_long_words_of_a_query_are_cut_in_the_result": ["service.rpc.evaluation.messages.MAX_TEXT_CHARS"],
        "test_metrics_show_no_more_collections_than_a_server_may_have_labels_of": [
            "service.process.metrics.MAX_EVALUATED"
        ],
    },
    "service.rpc.evaluation.test_field_weights": {
        "test_weights_that_cannot_be_tried_are_refused_before_anything_is_embedded": [
            "service.core.evaluating.fields.MAX_FIELD_SAMPLE",
            "service.rpc.evaluation.request.MAX_FIELD_WEIGHT",
        ],
        "test_hashes_and_more_fields_than_are_tried_are_refused": [
            "service.core.evaluating.checks.MAX_SUGGESTED_FIELDS"
        ],
        "test_texts_and_images_of_a_sample_are_bounded": [
            "service.core.evaluating.fields.MAX_FIELD_INPUTS",
            "service.core.evaluating.fields.MAX_FIELD_VALUES",
        ],
    },
    "service.cli.test_checking": {
        "test_a_server_that_stays_busy_is_not_waited_for_without_end": ["service.cli.checking.MAX_WAIT_S"],
    },
    "service.core.evaluating.test_drift": {
        "test_the_same_objects_give_the_same_summary_in_whatever_pages_they_come": [
            "service.core.evaluating.summary.MAX_SUMMARY_OBJECTS"
        ],
    },
    "service.core.evaluating.test_exact": {
        "test_all_objects_are_read_in_pages_of_about_the_same_bytes": ["service.core.evaluating.exact.PAGE_BYTES"],
    },
    "service.core.evaluating.test_queries": {
        "test_the_values_of_all_named_vectors_together_are_bounded": [
            "service.core.evaluating.queries.MAX_QUERY_VALUES"
        ],
    },
    "service.core.projecting.test_axes": {
        "test_vectors_without_clear_axes_end_after_so_many_rounds": ["service.core.projecting.axes.MAX_ROUNDS"],
    },
    "service.core.projecting.test_sample": {
        "test_of_long_vectors_there_are_fewer": ["service.core.projecting.sample.MAX_VALUES"],
        "test_pages_are_short_where_objects_are_long": ["service.core.projecting.sample.PAGE_BYTES"],
        "test_values_are_cut_to_what_a_label_needs": [
            "service.core.projecting.sample.MAX_TEXT_CHARS",
            "service.core.projecting.sample.MAX_LIST_ITEMS",
        ],
        "test_the_values_of_a_point_share_its_bytes_equally": [
            "service.core.projecting.sample.MAX_POINT_BYTES",
        ],
    },
    "service.core.projecting.test_umap": {
        "test_its_process_may_not_take_more_memory_than_the_bound": [
            "service.core.projecting.umap_process.MAX_MEMORY_BYTES"
        ],
    },
    "service.rpc.search.test_projections": {
        "test_what_does_not_fit_is_named_and_nothing_is_drawn": ["service.rpc.search.projections.MAX_SAMPLE"],
        "test_maps_are_kept_up_to_a_bound_in_bytes": ["service.core.projecting.projector.MAX_CACHED_BYTES"],
        "test_maps_are_made_one_after_the_other_and_more_callers_than_may_wait_are_refused": [
            "service.core.projecting.projector.MAX_WAITING_MAPS"
        ],
        "test_a_map_by_umap_that_takes_too_long_is_given_up": ["service.core.projecting.neighbours.UMAP_TIMEOUT_S"],
    },
    "service.rpc.search.test_reranking": {
        "test_more_searches_than_may_wait_are_refused_and_the_others_end_well": [
            "service.core.reranker_pool.MAX_WAITING_CALLS"
        ],
        "test_pictures_are_read_up_to_a_bound_in_bytes": ["service.core.searching.reranking.MAX_PICTURES_BYTES"],
        "test_what_does_not_fit_is_named_and_nothing_is_embedded_or_reranked": [
            "service.rpc.search.request.MAX_RERANKED_HITS"
        ],
    },
    "service.rpc.server.test_stock_clients": {
        "test_pages_and_hits_of_the_default_size_reach_a_stock_client": ["service.rpc.shared.pages.CLIENTS_TAKE_BYTES"],
    },
    "e2e.test_objects": {
        "test_more_objects_are_deleted_and_listed_than_weaviate_takes_at_a_time": [
            "service.core.objects.objects.MAX_NAMED"
        ],
    },
    "service.core.test_unseen": {
        "test_only_so_many_looks_are_remembered": ["service.core.searching.unseen.MAX_REMEMBERED"],
    },
    "service.core.test_writing": {
        "test_no_more_writes_run_than_there_is_room_for": ["service.core.objects.writing.MAX_WRITES"],
        "test_the_oldest_writes_are_forgotten_first": ["service.core.objects.writing.MAX_REMEMBERED"],
    },
    "embedders.nim.test_address": {
        "test_what_no_header_carries_is_no_key": ["embedders.nim.address.MAX_KEY_LENGTH"],
    },
    "embedders.nim.test_retries": {
        "test_retry_after_is_seconds_or_a_date": ["embedders.nim.retries.MAX_RETRY_AFTER_S"],
        "test_keys_that_have_had_too_many_calls_are_remembered_in_bounded_number_and_never_in_words": [
            "embedders.nim.retries.MAX_KEYS"
        ],
        "test_a_wait_that_would_pass_the_bound_is_not_begun": ["embedders.nim.retries.Retries.max_s"],
    },
    "embedders.nim.test_wire": {
        "test_vectors_of_no_common_sensible_length_are_refused": ["embedders.nim.profiles.MAX_DIMENSION"],
        "test_what_a_refusal_says_is_one_short_line": [
            "embedders.nim.failures.MAX_REFUSAL_LENGTH",
            "embedders.nim.failures._MAX_DEPTH",
        ],
    },
    "service.web.test_endpoint": {
        "test_a_request_id_that_is_too_long_is_replaced": ["service.web.exchange.MAX_REQUEST_ID_LENGTH"],
    },
}
"""The tests of all bounds, settings and constants, by module. A new one needs a test and its name here."""

UNTESTED = {
    "embedders.front.cache.ENTRY_OVERHEAD_BYTES": "an estimate",
    "embedders.front.cache.HASH_IN_THREAD_BYTES": "where the work is done, not how much of it",
    "embedders.nim.wire.WRITE_IN_THREAD_BYTES": "where the work is done, not how much of it",
    "service.fetching.connecting.CONNECT_TIMEOUT_S": "the bound on the whole is tested, and no address here is silent",
    "embedders.nim.wire.READ_IN_THREAD_BYTES": "where the work is done, not how much of it",
    "embedders.nim.connection.MAX_REFUSAL_BYTES": "no caller sees it; a refusal's words are cut far below it",
    "embedders.nim.calls.MODELS_PAGE_BYTES": "the bound on an answer, whose effect is tested for embeddings",
    "embedders.nim.calls.READY_PAGE_BYTES": "the bound on an answer, whose effect is tested for embeddings",
    "service.core.projecting.neighbours.PIECE_BYTES": "how work is divided, not how much of it",
    "service.core.objects.checks.CHECK_IN_THREAD_BYTES": "where the work is done, not how much of it",
    "service.rpc.connect.json_messages.IN_THREAD_BYTES": "where the work is done, not how much of it",
    "service.rpc.connect.json_text.LONG_BYTES": "a faster way for long strings",
    "service.rpc.server.calls.READ_IN_THREAD_BYTES": "where the work is done, not how much of it",
    "service.rpc.server.wire.FEW_BYTES": "a faster way for short fields",
    "service.rpc.shared.pages.FRAME_BYTES": "a size of gRPC",
    "service.rpc.shared.pages.ID_BYTES": "a part of a page token",
    "service.rpc.shared.pages.OFFSET_BYTES": "a part of a page token",
    "service.rpc.shared.pages.SEAL_BYTES": "a part of a page token",
    "service.sources.storage.MAX_RETRIES": "the store's own library counts them",
    "service.sources.storage.READ_BYTES": "how reading is divided, not how much of it",
    "service.sources.values.UUID_BYTES": "the size of a UUID",
    "service.web.endpoint.READ_IN_THREAD_BYTES": "where the work is done, not how much of it",
    "service.store.weaviate.collections.MAX_SCHEMAS": "the size of a cache; what it drops is read again",
}
"""Constants with such a name that have no test of their effect, and why."""

ROOT = Path(__file__).parents[4]
BOUND = re.compile(r"(^|_)(max|min)_|_bytes$|timeout_m?s$")
PLACES = (
    "service/*.py",
    "service/cli/checking.py",
    "service/core/**/*.py",
    "service/fetching/*.py",
    "service/process/metrics.py",
    "service/rpc/**/*.py",
    "service/web/*.py",
    "service/sources/*.py",
    "service/store/weaviate/collections.py",
    "embedders/front/*.py",
    "embedders/nim/*.py",
)


def constants() -> Iterator[str]:
    """Yield every number of a module or class in PLACES whose name fits BOUND."""
    for path in [path for place in PLACES for path in ROOT.glob(place)]:
        module = ast.parse(path.read_text(encoding="utf-8"))
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for scope in (module, *(each for each in module.body if isinstance(each, ast.ClassDef))):
            within = f"{name}.{scope.name}" if isinstance(scope, ast.ClassDef) else name
            for line in scope.body:
                targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
                value = getattr(line, "value", None)
                number = isinstance(value, ast.BinOp) or (isinstance(value, ast.Constant) and bool(value.value))
                yield from (
                    f"{within}.{each.id}"
                    for each in targets
                    if number and isinstance(each, ast.Name) and BOUND.search(each.id.lower())
                )


TESTED = {name for tests in TESTS.values() for bounds in tests.values() for name in bounds}
OF_CODE = {name for name in TESTED if name.startswith(("service.", "embedders."))}


def test_every_setting_that_is_a_bound_has_a_test() -> None:
    names = {variable.removeprefix("VECGATE_").lower().replace("__", ".") for variable, _ in describe_settings()}
    own = {kind: group.model_fields.keys() for kind, group in KINDS.items()}
    # A reranker's connection is the embedder's.
    own["nim-rerank"] -= NimConnectionSettings.model_fields.keys()
    names |= {f"{kind}.{field}" for kind, fields in own.items() for field in fields}
    assert {name for name in names if BOUND.search(name.rpartition(".")[2])} == TESTED - OF_CODE


def test_every_constant_that_is_a_bound_has_a_test_or_a_reason_why_not() -> None:
    assert set(constants()) == OF_CODE | set(UNTESTED)
    assert not OF_CODE & set(UNTESTED)


@pytest.mark.parametrize("module", TESTS)
def test_the_tests_of_bounds_are_there(module: str) -> None:
    found = vars(importlib.import_module(f"tests.{module}"))
    assert [test for test in TESTS[module] if test not in found] == []
