"""Requests are counted before they are parsed: to the element and to the byte, and as the parser reads them."""

import time

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import InvalidRequest, Violation
from service.rpc.server.wire import WireCheck
from service.rpc.shared.bounds import NAME_BYTES, Bound, RequestLimits, list_bounds, max_fields, string_bounds
from tests.fakes.floods import Flood, floods_of
from tests.fakes.messages import METHODS, messages
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb

LIMITS = RequestLimits(
    max_inputs=50,
    max_objects=20,
    max_hits=100,
    max_filter_depth=4,
    max_filter_nodes=20,
    max_text_bytes=32 * 1024,
    max_image_bytes=20 * 1024 * 1024,
)
LISTS, STRINGS = list_bounds(LIMITS), string_bounds(LIMITS)
KINDS = {method.input_type.name: method.input_type for method in METHODS}
CHECKS = {name: WireCheck(kind, LIMITS) for name, kind in KINDS.items()}


def refused(name: str, content: bytes) -> Violation | None:
    """Return why a request is refused, or None."""
    try:
        CHECKS[name].check(content)
    except InvalidRequest as error:
        (violation,) = error.violations
        return violation
    return None


def in_all(*forms: str) -> pytest.MarkDecorator:
    """Return what runs a test with all floods of some forms."""
    floods = [
        (name, flood)
        for name, kind in KINDS.items()
        for flood in floods_of(kind)
        if flood.form in forms and flood.field != "Value.string_value"
    ]
    return pytest.mark.parametrize(
        ("name", "flood"), [pytest.param(*each, id=f"{each[0]} {each[1]}") for each in floods]
    )


@in_all("equal", "packed", "empty", "distinct")
def test_a_list_passes_at_its_bound_and_is_refused_by_name_over_it(name: str, flood: Flood) -> None:
    bound = LISTS[flood.field]
    # A list in a Struct is a value itself.
    room = bound.most - (flood.path[-1].full_name == "google.protobuf.ListValue.values")

    at, over = (refused(name, flood.content(2**30, count)) for count in (room, room + 1))

    assert at is None
    assert over is not None
    assert over.reason == bound.reason
    assert str(bound.most) in over.description
    assert over.field in ".".join(each.name for each in flood.path)


@in_all("long")
def test_a_string_passes_at_its_bound_and_is_refused_by_name_over_it(name: str, flood: Flood) -> None:
    bound = STRINGS.get(flood.field, Bound(NAME_BYTES))

    at, over = (refused(name, flood.content(size)) for size in (bound.most, bound.most + 1))

    assert at is None
    assert over == Violation(
        over.field if over else "", f"has {bound.most + 1} bytes; give at most {bound.most}", bound.reason
    )


def test_texts_in_a_struct_are_bounded_by_what_holds_it_and_those_of_an_object_are_left_to_the_object() -> None:
    imported = object_pb.ImportObjectsRequest(collection="Pictures", objects=[object_pb.DataObject()])
    imported.objects[0].properties["title"] = "a" * 2**24
    created = collection_pb.CreateCollectionRequest()
    created.collection.reranker.options["model"] = "a" * 64 * 1024

    assert refused("ImportObjectsRequest", imported.SerializeToString()) is None
    over = refused("CreateCollectionRequest", created.SerializeToString())

    assert over is not None
    assert over.field == "collection.reranker.options"


@given(st.data())
@settings(max_examples=300, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_what_the_parser_takes_is_never_called_unreadable(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(KINDS)))
    content = bytearray(data.draw(messages(KINDS[name])).SerializeToString())
    for _ in range(data.draw(st.integers(0, 2)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    why = refused(name, bytes(content))

    if why is not None and "cannot be parsed" in why.description:
        with pytest.raises(DecodeError):
            GetMessageClass(KINDS[name]).FromString(bytes(content))


TAG, LONG_TAG = b"\x0a", b"\x8a\x80\x00"


@pytest.mark.parametrize("element", [TAG + b"\x00", LONG_TAG + b"\x00", TAG + b"\x80\x80\x00"])
def test_elements_count_however_they_are_written(element: bytes) -> None:
    assert len(embedding_pb.EmbedInputsRequest.FromString(51 * element).inputs) == 51

    assert refused("EmbedInputsRequest", 50 * element) is None
    assert refused("EmbedInputsRequest", 51 * element) is not None


def test_a_list_counts_over_all_pieces_that_the_parser_joins() -> None:
    piece = search_pb.SearchObjectsRequest(near_text={"concepts": ["a"] * 30}).SerializeToString()
    assert len(search_pb.SearchObjectsRequest.FromString(2 * piece).near_text.concepts) == 60

    assert refused("SearchObjectsRequest", piece) is None
    assert refused("SearchObjectsRequest", 2 * piece) is not None


@pytest.mark.parametrize("field", [b"\x20\x01", b"\x98\x3e\x01", b"\x9a\x3e\x00"], ids=["known", "number", "bytes"])
def test_fields_are_bounded_whether_they_are_known_or_not(field: bytes) -> None:
    most = max_fields(LIMITS)

    assert refused("EmbedInputsRequest", field * most) is None
    over = refused("EmbedInputsRequest", field * (most + 1))

    assert over is not None
    assert str(most) in over.description


@pytest.mark.parametrize("tag", [b"\x20", b"\x98\x3e"], ids=["known", "unknown"])
def test_a_number_is_read_no_farther_than_a_number_goes(tag: bytes) -> None:
    long, longer = (tag + b"\x80" * (count - 1) + b"\x01" for count in (10, 11))
    embedding_pb.EmbedInputsRequest.FromString(long)
    with pytest.raises(DecodeError):
        embedding_pb.EmbedInputsRequest.FromString(longer)

    assert refused("EmbedInputsRequest", long) is None
    assert "cannot be parsed" in str(refused("EmbedInputsRequest", longer))

    longest = tag + b"\x80" * 2**25
    began_s = time.thread_time()
    assert refused("EmbedInputsRequest", longest) is not None
    assert time.thread_time() - began_s < 0.05


def test_a_group_is_refused_whatever_is_in_it() -> None:
    group = b"\xa3\x06" + b"\x0a\x00" * 100 + b"\xa4\x06"

    assert "cannot be parsed" in str(refused("EmbedInputsRequest", group))


def test_messages_may_be_a_hundred_levels_deep() -> None:
    def nested(levels: int) -> bytes:
        content = b""
        for tag in [b"\x1a"] * (levels - 1) + [b"\x5a"]:  # Filter.negation, in SearchObjectsRequest.filters
            size = len(content)
            content = tag + (bytes([size]) if size < 128 else bytes([size % 128 + 128, size // 128])) + content
        return content

    assert search_pb.SearchObjectsRequest.FromString(nested(3)).filters.negation.HasField("negation")
    assert refused("SearchObjectsRequest", nested(100)) is None
    assert "cannot be parsed" in str(refused("SearchObjectsRequest", nested(101)))
