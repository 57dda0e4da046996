import hashlib
from collections.abc import AsyncIterator

import numpy as np
import pytest
from grpc import StatusCode

from embedders.contract import SEPARATE, EmbedOptions, InputLimits, Modality, Priority, Purpose, TextInput
from embedders.errors import EmbedderUnavailable
from tests.conftest import assert_close
from tests.fakes.embedder import TEXT_ONLY, FakeEmbedder, picture
from tests.service.conftest import Wire, failure_of, start_wire, stop_wire, unpack
from vecgate.v1 import embedding_service_pb2 as pb
from vecgate.v1.embedder_pb2 import EmbedderRef
from vecgate.v1.input_pb2 import Image, Input, TextImage


def text(value: str) -> Input:
    return Input(text=value)


def image(content: bytes) -> Input:
    return Input(image=Image(content=content))


async def test_mixed_inputs_come_back_in_order_as_the_embedders_own_vectors(wire: Wire) -> None:
    red, blue = picture((255, 0, 0)), picture((0, 0, 255))
    request = pb.EmbedInputsRequest(inputs=[text("a cat"), image(red), text("a dog"), image(blue)])

    response = await wire.embedding.EmbedInputs(request)

    for result, content in zip(response.results, ("a cat", red, "a dog", blue), strict=True):
        vector = np.frombuffer(result.embedding.vector.data, "<f4")
        assert_close(vector, wire.embedder.vector(content))
    assert response.results[0].embedding.token_count == 4
    assert not response.results[1].embedding.HasField("token_count")


async def test_the_answer_names_the_embedder_its_model_space_and_dimension(wire: Wire) -> None:
    response = await wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=[text("a cat")]))

    assert response.embedder == EmbedderRef(name="fake", model="fake/model", space="fake", dimension=8)


TRUNCATED_PNG = picture(size=(64, 64))[:-30]


@pytest.mark.parametrize(
    ("bad", "reason", "field"),
    [
        (image(b""), "IMAGE_EMPTY", "inputs[1].image.content"),
        (image(b"\x89PNG\r\n\x1a\nbroken"), "IMAGE_UNDECODABLE", "inputs[1].image.content"),
        (image(TRUNCATED_PNG), "IMAGE_UNDECODABLE", "inputs[1].image.content"),
        (image(b"just words"), "IMAGE_UNDECODABLE", "inputs[1].image.content"),
        (image(picture(size=(8, 8)) + bytes(100_000)), "IMAGE_TOO_LARGE", "inputs[1].image.content"),
        (image(picture(size=(8000, 8000))[:90_000]), "IMAGE_TOO_LARGE", "inputs[1].image.content"),
        (text("one two three four five six seven"), "TEXT_TOO_LONG", "inputs[1].text"),
        (text("x" * 40_000), "TEXT_TOO_LONG", "inputs[1].text"),
        (text("  \n"), "INVALID_INPUT", "inputs[1].text"),
        (text(""), "INVALID_INPUT", "inputs[1].text"),
        (Input(), "INVALID_INPUT", "inputs[1]"),
    ],
    ids=[
        "empty image", "broken image", "truncated image", "not an image", "image of too many bytes",
        "image of too many pixels", "text of too many tokens", "text of too many bytes", "blank text", "empty text",
        "no content",
    ],
)  # fmt: skip
async def test_a_bad_input_fails_alone_with_its_path(wire: Wire, bad: Input, reason: str, field: str) -> None:
    request = pb.EmbedInputsRequest(inputs=[text("before"), bad, text("after")])

    response = await wire.embedding.EmbedInputs(request)

    outcomes = [result.WhichOneof("outcome") for result in response.results]
    assert outcomes == ["embedding", "error", "embedding"]
    failure = unpack(response.results[1].error)
    assert (failure.code, failure.reason, failure.fields) == (StatusCode.INVALID_ARGUMENT, reason, [field])
    assert_close(np.frombuffer(response.results[2].embedding.vector.data, "<f4"), wire.embedder.vector("after"))


def pair(text: str, content: bytes) -> Input:
    return Input(text_image=TextImage(text=text, image=Image(content=content)))


@pytest.fixture
async def reader() -> AsyncIterator[Wire]:
    """A server with a model that reads a text and an image as one input."""
    limits = InputLimits(max_image_bytes=100_000)
    wire = await start_wire(FakeEmbedder(limits=limits, max_text_tokens=8, modalities=frozenset(Modality)))
    yield wire
    await stop_wire(wire)


async def test_a_text_and_an_image_as_one_input_come_back_as_one_vector(reader: Wire) -> None:
    red = picture((255, 0, 0))
    long = "one two three four five six seven"
    request = pb.EmbedInputsRequest(inputs=[pair("a cat", red), text("a cat"), pair(long, red)], truncate=True)

    response = await reader.embedding.EmbedInputs(request)

    contents = [("a cat", red), "a cat", ("one two three four five six", red)]
    for result, content in zip(response.results, contents, strict=True):
        assert_close(np.frombuffer(result.embedding.vector.data, "<f4"), reader.embedder.vector(content))
    assert [result.embedding.truncated for result in response.results] == [False, False, True]


@pytest.mark.parametrize(
    ("bad", "reason", "field"),
    [
        (pair("one two three four five six seven", picture()), "TEXT_TOO_LONG", "inputs[1].text_image.text"),
        (pair("  ", picture()), "INVALID_INPUT", "inputs[1].text_image"),
        (pair("a cat", b""), "IMAGE_EMPTY", "inputs[1].text_image.image.content"),
        (pair("a cat", b"just words"), "IMAGE_UNDECODABLE", "inputs[1].text_image.image.content"),
        (pair("a cat", picture() + bytes(100_000)), "IMAGE_TOO_LARGE", "inputs[1].text_image.image.content"),
    ],
)
async def test_what_is_wrong_with_a_part_of_one_input_fails_it_alone_with_the_path_of_the_part(
    reader: Wire, bad: Input, reason: str, field: str
) -> None:
    request = pb.EmbedInputsRequest(inputs=[text("before"), bad, text("after")])

    response = await reader.embedding.EmbedInputs(request)

    assert [result.WhichOneof("outcome") for result in response.results] == ["embedding", "error", "embedding"]
    failure = unpack(response.results[1].error)
    assert (failure.code, failure.reason, failure.fields) == (StatusCode.INVALID_ARGUMENT, reason, [field])


@pytest.mark.parametrize(
    ("modalities", "bad", "field", "words"),
    [
        (
            SEPARATE,
            pair("a", b"a"),
            "inputs[1].text_image",
            "reads texts and pictures, each as an input of its own",
        ),
        (TEXT_ONLY, pair("a", b"a"), "inputs[1].text_image", "reads texts only, not text and picture as one input"),
        (TEXT_ONLY, image(b"a"), "inputs[1].image.content", "reads texts only, not pictures"),
    ],
)
async def test_an_input_of_a_kind_that_the_model_does_not_read_fails_alone_and_names_it(
    modalities: frozenset[Modality], bad: Input, field: str, words: str
) -> None:
    wire = await start_wire(FakeEmbedder(modalities=modalities))

    response = await wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=[text("before"), bad, text("after")]))
    listed = await wire.embedding.ListEmbedders(pb.ListEmbeddersRequest())
    await stop_wire(wire)

    assert [result.WhichOneof("outcome") for result in response.results] == ["embedding", "error", "embedding"]
    failure = unpack(response.results[1].error)
    assert (failure.reason, failure.fields) == ("INVALID_INPUT", [field])
    assert f"the model fake/model of embedder fake {words}" in failure.message
    assert len(listed.embedders[0].modalities) == len(modalities)


async def test_the_kinds_that_an_embedder_reads_are_listed(reader: Wire) -> None:
    listed = await reader.embedding.ListEmbedders(pb.ListEmbeddersRequest())

    assert list(listed.embedders[0].modalities) == [pb.MODALITY_TEXT, pb.MODALITY_IMAGE, pb.MODALITY_TEXT_IMAGE]


async def test_a_long_text_is_cut_when_asked_for_and_the_answer_says_so(wire: Wire) -> None:
    long = "one two three four five six seven"

    response = await wire.embedding.EmbedInputs(
        pb.EmbedInputsRequest(inputs=[text(long), text("short")], truncate=True)
    )

    assert [result.embedding.truncated for result in response.results] == [True, False]
    assert response.results[0].embedding.token_count == 8


async def test_ten_thousand_inputs_in_one_request_are_refused_with_the_bound(wire: Wire) -> None:
    failure = await failure_of(wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=[text("a")] * 10_000)))

    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "BATCH_TOO_LARGE")
    assert failure.fields == ["inputs"]
    assert "50" in failure.message
    assert len(wire.embedder.calls) == 1, "only the check at the start"


async def test_no_inputs_and_unknown_enum_numbers_are_told_in_one_answer(wire: Wire) -> None:
    request = pb.EmbedInputsRequest(purpose=99, priority=98)  # type: ignore[arg-type]

    failure = await failure_of(wire.embedding.EmbedInputs(request))

    assert failure.code is StatusCode.INVALID_ARGUMENT
    assert failure.fields == ["inputs", "purpose", "priority"]


async def test_inputs_without_content_fail_alone_even_while_the_embedder_is_down(wire: Wire) -> None:
    wire.embedder.failure = EmbedderUnavailable("down")

    response = await wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=[Input(), Input()]))

    assert [unpack(result.error).fields for result in response.results] == [["inputs[0]"], ["inputs[1]"]]


async def test_purpose_and_priority_reach_the_embedder(wire: Wire) -> None:
    request = pb.EmbedInputsRequest(inputs=[text("a")], purpose=pb.PURPOSE_DOCUMENT, priority=pb.PRIORITY_BULK)

    await wire.embedding.EmbedInputs(request)

    assert wire.embedder.calls[-1] == ([TextInput("a")], EmbedOptions(Purpose.DOCUMENT, Priority.BULK))


async def test_an_unknown_embedder_is_not_found_and_the_message_lists_those_there_are(wire: Wire) -> None:
    failure = await failure_of(wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=[text("a")], embedder="other")))

    assert (failure.code, failure.reason) == (StatusCode.NOT_FOUND, "EMBEDDER_NOT_FOUND")
    assert "fake" in failure.message
    assert failure.metadata == {"name": "other"}


async def test_an_embedder_is_chosen_by_name() -> None:
    wire = await start_wire(FakeEmbedder(), FakeEmbedder(name="second", space="other"))
    try:
        response = await wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=[text("a")], embedder="second"))
    finally:
        await stop_wire(wire)

    assert response.embedder.space == "other"
    assert_close(np.frombuffer(response.results[0].embedding.vector.data, "<f4"), wire.embedders[1].vector("a"))


async def test_list_embedders_tells_limits_health_and_the_bounds_of_messages(wire: Wire) -> None:
    response = await wire.embedding.ListEmbedders(pb.ListEmbeddersRequest())

    (info,) = response.embedders
    assert list(info.modalities) == [pb.MODALITY_TEXT, pb.MODALITY_IMAGE]
    assert info.health == pb.EMBEDDER_HEALTH_READY
    assert (info.limits.max_image_bytes, info.limits.max_text_tokens) == (100_000, 8)
    assert info.limits.max_image_frames == 1000
    assert response.limits.max_request_bytes == 32 * 1024 * 1024
    assert response.limits.max_response_bytes == 64 * 1024 * 1024
    assert (response.limits.max_inputs, response.limits.max_objects, response.limits.max_hits) == (50, 20, 100)


async def test_a_picture_of_more_than_grpcs_own_four_megabytes_passes(wire: Wire) -> None:
    content = picture() + hashlib.sha256().digest() * 170_000

    response = await wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=[image(content)]))

    assert len(content) > 5_000_000
    assert unpack(response.results[0].error).reason == "IMAGE_TOO_LARGE", "the embedder's own bound, not gRPC's"


async def test_a_named_nim_is_answered_for_by_its_other_address_and_an_address_by_itself_alone() -> None:
    first, second = FakeEmbedder(name="open"), FakeEmbedder(name="open-2")
    wire = await start_wire(first, second, replicas={"open": ["open", "open-2"]})
    first.failure = EmbedderUnavailable("down")

    answers = [
        await wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=[text("a cat")], embedder=name))
        for name in ("", "open", "open-2")
    ]
    first.failure, second.failure = None, EmbedderUnavailable("down")
    failure = await failure_of(wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=[text("b")], embedder="open-2")))
    await stop_wire(wire)

    assert [each.embedder.name for each in answers] == ["open-2"] * 3
    assert failure.code is StatusCode.UNAVAILABLE


async def test_an_address_of_another_space_is_listed_with_the_reason_why_it_stands_in_for_nothing() -> None:
    spaces = {"open": "one", "open-2": "other"}
    wire = await start_wire(
        *(FakeEmbedder(name=name, space=space) for name, space in spaces.items()), replicas={"open": list(spaces)}
    )

    listed = (await wire.embedding.ListEmbedders(pb.ListEmbeddersRequest())).embedders
    await stop_wire(wire)

    assert [each.health for each in listed] == [pb.EMBEDDER_HEALTH_READY] * 2
    assert listed[0].health_detail == ""
    assert "it has the space other and open has one" in listed[1].health_detail
