"""The NIM's JSON as an endpoint reads and writes it."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedders.contract import Embedding, ImageInput, Input, TextInput
from embedders.nim import wire
from service.web import wire as nim_endpoint
from service.web.wire import RequestReader, RequestRefused

READER = RequestReader()


def body(**fields: object) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


def read(**fields: object) -> list[Input]:
    return READER.read_inputs(READER.read(body(**fields)))


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_text_that_our_client_sends_is_never_read_as_an_image(text: str) -> None:
    assert read(input=[wire.text_item(text)]) == [TextInput(wire.text_item(text), truncate=True)]


@pytest.mark.parametrize("text", ["data:image", "data:image/png;base64,AAAA", "data:images of cats"])
def test_a_text_that_looks_like_an_image_comes_from_our_client_as_a_text(text: str) -> None:
    assert isinstance(read(input=wire.text_item(text))[0], TextInput)


@given(st.binary(max_size=300), st.sampled_from(["image/png", "image/jpeg", "image/webp"]))
def test_an_image_that_our_client_sends_is_read_back_to_the_byte(content: bytes, media_type: str) -> None:
    assert read(input=wire.image_item(media_type, content)) == [ImageInput(content)]


@given(st.lists(st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4), min_size=1, max_size=5), st.booleans())
def test_what_is_written_is_read_back_to_the_bit(rows: list[list[float]], packed: bool) -> None:  # noqa: FBT001
    matrix = np.array(rows, np.float32) + np.float32(2)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    embeddings = [Embedding(row) for row in matrix]

    answer = nim_endpoint.write_embeddings("m", [TextInput("a")] * len(rows), embeddings, packed=packed)

    np.testing.assert_array_equal(wire.read_embeddings(answer, count=len(rows), dimension=4), matrix)


def test_usage_counts_what_is_known_and_nvclip_s_own_count_where_it_is_not() -> None:
    row = np.array([1, 0], np.float32)
    inputs: list[Input] = [TextInput("a"), ImageInput(b""), TextInput("b")]
    embeddings = [Embedding(row, token_count=5), Embedding(row), Embedding(row)]

    usage = json.loads(nim_endpoint.write_embeddings("m", inputs, embeddings, packed=True))["usage"]

    assert usage == {"num_images": 1, "prompt_tokens": 5 + 77, "total_tokens": 5 + 77}


@pytest.mark.parametrize("quotes", ['"' * 10, '\\"', "\\", '"\\', 'say "hello" and "bye"'])
def test_texts_full_of_quotes_and_backslashes_are_not_taken_for_many_inputs(quotes: str) -> None:
    assert [each.text for each in read(input=[quotes] * 64) if isinstance(each, TextInput)] == [quotes] * 64
    assert read(input=quotes * 50_000) == [TextInput(quotes * 50_000, truncate=True)]


@pytest.mark.parametrize("item", [b'""', b'"\\\\"', b'"a\\\\"', b'"\\""', b'"\\\\\\""'])
@pytest.mark.parametrize("count", [65, 200, 100_000])
def test_too_many_inputs_are_seen_whatever_they_are_made_of(item: bytes, count: int) -> None:
    with pytest.raises(RequestRefused) as caught:
        READER.read(b'{"model":"m","input":[' + b",".join([item] * count) + b"]}")

    assert caught.value.too_many
    assert caught.value.field == "input"


def test_messages_hold_nothing_of_what_was_sent() -> None:
    for fields in (
        {"input": ["a", "data:image/sesame"]},
        {"input": "data:image/png;base64,sesame*"},
        {"input": "a", "encoding_format": "sesame"},
        {"input": "a", "open sesame": 1},
        {"input": {"sesame": 1}},
    ):
        with pytest.raises(RequestRefused) as caught:
            read(**fields)
        assert "sesame" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_another_bound_on_inputs_is_kept() -> None:
    reader = RequestReader(max_inputs=3)

    assert len(reader.read(body(input=["a"] * 3)).items) == 3
    with pytest.raises(RequestRefused, match="at most 3"):
        reader.read(body(input=["a"] * 4))


def test_a_refusal_says_the_same_in_every_field_that_a_client_may_show() -> None:
    written = json.loads(nim_endpoint.write_error(422, "too much", kind="k", code="c", field="input", request_id="r"))

    assert {written[name] for name in ("message", "detail", "title")} == {"too much"}
    assert (written["status"], written["requestId"]) == (422, "r")
    assert written["error"] == {"message": "too much", "type": "k", "param": "input", "code": "c"}


def test_vectors_that_are_views_of_other_memory_are_written_whole() -> None:
    strided = np.arange(8, dtype=np.float64)[::2]

    packed = json.loads(nim_endpoint.write_embeddings("m", [ImageInput(b"")], [Embedding(strided)], packed=True))
    floats = json.loads(nim_endpoint.write_embeddings("m", [ImageInput(b"")], [Embedding(strided)], packed=False))

    assert np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4").tolist() == [0, 2, 4, 6]
    assert floats["data"][0]["embedding"] == [0, 2, 4, 6]
