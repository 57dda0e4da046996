"""The NIM's JSON as an endpoint reads and writes it."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedders.contract import EmbedderSpec, Embedding, ImageInput, Input, InputLimits, TextImageInput, TextInput
from embedders.nim import wire
from service.errors import InvalidRequest
from service.web import wire as nim_endpoint
from service.web.inputs import InputReader
from service.web.wire import VALUES_AT_ONCE, RequestReader, RequestRefused

READER = RequestReader(max_inputs=64)
SPEC = EmbedderSpec(name="e", model="m", space="s", dimension=4, limits=InputLimits(), max_batch=64)


def body(**fields: object) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


def read(**fields: object) -> list[Input]:
    request = READER.read(body(**fields))
    return InputReader().read(request.items, request.modalities, SPEC, truncate=True)


def written(inputs: Sequence[Input], embeddings: Sequence[Embedding], *, packed: bool) -> Any:
    return json.loads(b"".join(nim_endpoint.write_embeddings("m", inputs, embeddings, packed=packed)))


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

    answer = b"".join(nim_endpoint.write_embeddings("m", [TextInput("a")] * len(rows), embeddings, packed=packed))

    np.testing.assert_array_equal(wire.read_embeddings(answer, count=len(rows), dimension=4).rows, matrix)


def test_usage_counts_what_is_known_and_nvclip_s_own_count_where_it_is_not() -> None:
    row = np.array([1, 0], np.float32)
    inputs: list[Input] = [TextInput("a"), ImageInput(b""), TextInput("b"), TextImageInput("c", b"")]
    embeddings = [Embedding(row, token_count=5), Embedding(row), Embedding(row), Embedding(row, token_count=2)]

    usage = written(inputs, embeddings, packed=True)["usage"]

    assert usage == {"num_images": 2, "prompt_tokens": 5 + 77 + 2, "total_tokens": 5 + 77 + 2}


@pytest.mark.parametrize("quotes", ['"' * 10, '\\"', "\\", '"\\', 'say "hello" and "bye"'])
def test_texts_full_of_quotes_and_backslashes_are_not_taken_for_many_inputs(quotes: str) -> None:
    assert [each.text for each in read(input=[quotes] * 64) if isinstance(each, TextInput)] == [quotes] * 64
    assert read(input=quotes * 50_000) == [TextInput(quotes * 50_000, truncate=True)]


@pytest.mark.parametrize("item", [b'""', b'"\\\\"', b'"a\\\\"', b'"\\""', b'"\\\\\\""'])
@pytest.mark.parametrize("count", [65, 400, 100_000])
def test_too_many_inputs_are_seen_whatever_they_are_made_of(item: bytes, count: int) -> None:
    with pytest.raises(RequestRefused) as caught:
        READER.read(b'{"model":"m","input":[' + b",".join([item] * count) + b"]}")

    assert caught.value.too_many
    assert caught.value.field == "input"


def test_messages_hold_nothing_of_what_was_sent() -> None:
    for fields in (
        {"input": ["a", "data:image/sesame"]},
        {"input": "data:image/png;base64,sesame*"},
        {"input": "open data:image/sesame;base64,AAAA sesame"},
        {"input": "data:text/sesame;base64,AAAA"},
        {"input": "sesame", "modality": "image"},
        {"input": "a", "encoding_format": "sesame"},
        {"input": "a", "modality": "sesame"},
        {"input": "a", "modality": ["text", "sesame"]},
        {"input": "a", "open sesame": 1},
        {"input": {"sesame": 1}},
    ):
        with pytest.raises((RequestRefused, InvalidRequest)) as caught:
            read(**fields)
        assert "sesame" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


def test_another_bound_on_inputs_is_kept() -> None:
    reader = RequestReader(max_inputs=3)

    assert len(reader.read(body(input=["a"] * 3)).items) == 3
    with pytest.raises(RequestRefused, match="at most 3"):
        reader.read(body(input=["a"] * 4))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("count", [1, 63, 64, 65, 130])
def test_an_answer_that_is_written_in_pieces_is_the_same_json(count: int, *, packed: bool) -> None:
    rows = np.linspace(-1, 1, count * 1024, dtype=np.float32).reshape(count, 1024)
    embeddings = [Embedding(row) for row in rows]

    answer = written([TextInput("a")] * count, embeddings, packed=packed)

    values = [each["embedding"] for each in answer["data"]]
    floats = [np.frombuffer(base64.b64decode(each), "<f4") for each in values] if packed else values
    np.testing.assert_array_equal(np.array(floats, np.float32), rows)
    assert [each["index"] for each in answer["data"]] == list(range(count))
    assert VALUES_AT_ONCE == 64 * 1024  # 64 such vectors


def test_a_refusal_says_the_same_in_every_field_that_a_client_may_show() -> None:
    written = json.loads(nim_endpoint.write_error(422, "too much", kind="k", code="c", field="input", request_id="r"))

    assert {written[name] for name in ("message", "detail", "title")} == {"too much"}
    assert (written["status"], written["requestId"]) == (422, "r")
    assert written["error"] == {"message": "too much", "type": "k", "param": "input", "code": "c"}


def test_vectors_that_are_views_of_other_memory_are_written_whole() -> None:
    strided = np.arange(8, dtype=np.float64)[::2]

    packed = written([ImageInput(b"")], [Embedding(strided)], packed=True)
    floats = written([ImageInput(b"")], [Embedding(strided)], packed=False)

    assert np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4").tolist() == [0, 2, 4, 6]
    assert floats["data"][0]["embedding"] == [0, 2, 4, 6]
