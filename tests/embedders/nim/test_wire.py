"""The JSON of /v1/embeddings, both directions."""

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedders.errors import AnswerInvalid
from embedders.nim.failures import read_refusal
from embedders.nim.wire import (
    embeddings_request,
    image_item,
    max_answer_bytes,
    read_embeddings,
    text_item,
)

ROWS = np.array([[0.6, 0.8, 0.0], [0.0, -1.0, 0.0]], np.float32)


def packed(row: Any) -> str:
    return base64.b64encode(np.asarray(row, "<f4").tobytes()).decode()


def answer(*embeddings: object, indexes: list[Any] | None = None) -> bytes:
    indexes = list(range(len(embeddings))) if indexes is None else indexes
    data = [
        {"object": "embedding", "index": at, "embedding": each} for at, each in zip(indexes, embeddings, strict=True)
    ]
    return json.dumps({"object": "list", "data": data, "model": "m", "usage": {}}).encode()


def test_a_request_has_the_three_documented_fields() -> None:
    request = embeddings_request("nvidia/nvclip", [b'"a"', b'"b"'])

    assert json.loads(b"".join(request)) == {
        "input": ["a", "b"],
        "model": "nvidia/nvclip",
        "encoding_format": "base64",
    }


def test_further_fields_of_a_model_stand_beside_them() -> None:
    request = embeddings_request("m", [b'"a"'], {"input_type": "query"})

    assert json.loads(b"".join(request)) == {
        "input": ["a"],
        "model": "m",
        "encoding_format": "base64",
        "input_type": "query",
    }


def test_an_image_becomes_a_data_uri() -> None:
    assert image_item("image/png", b"\x00\xff") == "data:image/png;base64,AP8="


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("plain", "plain"),
        ("two\nlines", "two lines"),
        ("two\r\nlines\u2028more\n", "two lines more"),
        (" spaces  stay ", " spaces  stay "),
        ("data:image/png;base64,AAAA", "data: image/png;base64,AAAA"),
        ("DATA:Image", "DATA: Image"),
        ("\n data:image", "  data: image"),
        ("data:text/plain", "data:text/plain"),
        ("see data:image/png", "see data: image/png"),
        (
            "<img src='DATA:image/png;base64,AA'> data:data:image",
            "<img src='DATA: image/png;base64,AA'> data:data: image",
        ),
    ],
)
def test_texts_keep_their_words_but_never_look_like_pictures(text: str, item: str) -> None:
    assert text_item(text) == item


@given(
    st.text()
    | st.text(st.sampled_from("data:imge \n"))
    | st.lists(st.sampled_from(["data:", "image", "DATA", ":", "\n", " "])).map("".join)
)
def test_no_text_becomes_a_picture_or_has_line_ends(text: str) -> None:
    item = text_item(text)
    assert "data:image" not in item.lower()
    assert "\n" not in item
    assert "\r" not in item


@pytest.mark.parametrize(
    "prefix", ["data:image/png;base64,AAAA", "data:image", "a cat ![x](data:image/png;base64,AAAA)"]
)
def test_the_escape_changes_no_token_of_clip(prefix: str) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    assert tokenizer.encode(text_item(prefix)) == tokenizer.encode(prefix)


@pytest.mark.parametrize("form", [packed, lambda row: row.tolist()])
@pytest.mark.parametrize("base", [0, 1])
def test_both_encodings_and_both_numberings_are_read(form: Any, base: int) -> None:
    rows = read_embeddings(answer(*map(form, ROWS), indexes=[base, base + 1]), count=2, dimension=3).rows
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, ROWS)


def test_rows_follow_the_index() -> None:
    rows = read_embeddings(answer(*map(packed, ROWS), indexes=[2, 1]), count=2, dimension=3).rows
    np.testing.assert_array_equal(rows, ROWS[::-1])


def test_whole_numbers_in_lists_are_values() -> None:
    np.testing.assert_array_equal(read_embeddings(answer([0, 1, 0]), count=1, dimension=3).rows, [[0, 1, 0]])


def test_lengths_of_half_precision_are_near_enough() -> None:
    row = ROWS[:1] * 1.002
    np.testing.assert_array_equal(read_embeddings(answer(packed(row[0])), count=1, dimension=3).rows, row)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"null", "no list"),
        (b'{"data": {}}', "no list"),
        (b'{"data": [1, 2]}', "no list"),
        (answer(packed(ROWS[0])), "1 embeddings for 2 inputs"),
        (answer(*map(packed, ROWS), indexes=[0, 0]), "number"),
        (answer(*map(packed, ROWS), indexes=[2, 3]), "number"),
        (answer(*map(packed, ROWS), indexes=[-1, 0]), "number"),
        (answer(*map(packed, ROWS), indexes=[0, None]), "number"),
        (answer(*map(packed, ROWS), indexes=[False, True]), "number"),
        (answer(*map(packed, ROWS), indexes=[0.0, 1.0]), "number"),
        (answer(packed(ROWS[0]), None), "neither"),
        (answer(packed(ROWS[0]), {}), "neither"),
        (answer(packed(ROWS[0]), ["0.0", "1.0", "0.0"]), "neither"),
        (answer(packed(ROWS[0]), [[0.0], [1.0], [0.0]]), "neither"),
        (answer(packed(ROWS[0]), [True, False, False]), "neither"),
        (answer(packed(ROWS[0]), "AA=A"), "not base64"),
        (answer(packed(ROWS[0]), "AAAA"), "not base64"),
        (answer(packed(ROWS[0]), "é"), "not base64"),
        (answer(packed(ROWS[0]), [10**400, 0, 0]), "not JSON"),
        (answer(packed(ROWS[0]), [1e300, 0, 0]), "finite"),
        (answer(packed(ROWS[0]), [math.nan, 0, 0]), "not JSON"),
        (answer(packed(ROWS[0]), [10**39, 0, 0]), "finite"),
        (answer(packed(ROWS[0]), packed([math.inf, 0, 0])), "finite"),
        (answer(packed(ROWS[0]), [0, 0, 0]), "unit length"),
        (answer(packed(ROWS[0]), [3e38, 3e38, 3e38]), "unit length"),
        (answer(packed(ROWS[0]), [0.5, 0.5, 0.5]), "unit length"),
        (answer(packed(ROWS[0]), packed([1, 0])), "2 values; 3 are expected"),
        (answer(packed(ROWS[0]), ""), "0 values"),
    ],
)
def test_anything_else_is_no_answer(body: bytes, message: str) -> None:
    with pytest.raises(AnswerInvalid, match=message):
        read_embeddings(body, count=2, dimension=3)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_body_raises_anything_else(body: bytes) -> None:
    with pytest.raises(AnswerInvalid):
        read_embeddings(body, count=1, dimension=3)


def test_the_bound_on_an_answer_holds_floats_written_in_full() -> None:
    rows = np.full((64, 1024), -1.2345678901234567e-10)
    assert len(answer(*rows.tolist())) < max_answer_bytes(64, 1024)


def test_a_dimension_that_nobody_knows_is_that_of_the_first_vector() -> None:
    rows = read_embeddings(answer(packed(ROWS[0]), ROWS[1].tolist()), count=2, dimension=None).rows

    np.testing.assert_array_equal(rows, ROWS)


@pytest.mark.parametrize("embeddings", [(packed(ROWS[0]), [1.0, 0.0]), ("", ""), ([1.0] * 65_537,)])
def test_vectors_of_no_common_sensible_length_are_refused(embeddings: tuple[object, ...]) -> None:
    with pytest.raises(AnswerInvalid, match="different lengths"):
        read_embeddings(answer(*embeddings), count=len(embeddings), dimension=None)


def test_vectors_of_a_model_that_promises_no_unit_length_are_scaled() -> None:
    body = answer([3.0, 4.0, 0.0], packed([0.0, -1e-20, 0.0]), [3e38, 3e38, 0.0])

    rows = read_embeddings(body, count=3, dimension=3, unit_length=False).rows

    half = math.sqrt(0.5)
    np.testing.assert_allclose(rows, [[0.6, 0.8, 0.0], [0.0, -1.0, 0.0], [half, half, 0.0]], atol=1e-6)


@pytest.mark.parametrize(("row", "message"), [([0, 0, 0], "zeros"), ([math.nan, 1, 0], "finite")])
def test_vectors_without_a_direction_are_refused_whatever_the_model_promises(row: list[float], message: str) -> None:
    with pytest.raises(AnswerInvalid, match=message):
        read_embeddings(answer(packed(row)), count=1, dimension=3, unit_length=False)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"detail": "out of credits"}, "out of credits"),
        ({"title": "Unprocessable Entity", "status": 422}, "Unprocessable Entity"),
        ({"title": "Unprocessable Entity", "detail": "too long"}, "too long"),
        ({"message": "m", "detail": "d", "title": "t"}, "m"),
        ({"error": {"message": "unknown model", "type": "x"}}, "unknown model"),
        ({"error": "plain"}, "plain"),
        ({"detail": [{"loc": ["body", "input", 0], "msg": "too short", "input": "secret"}]}, "body.input.0: too short"),
        ({"detail": [{"msg": "a"}, "b", {"msg": "c"}, {"msg": "d"}]}, "a; b; c"),
        ({"detail": {"detail": {"detail": {"detail": {"detail": "deep"}}}}}, ""),
        ({"detail": "two\nlines\x1b[31m and\ttabs"}, "two lines [31m and tabs"),
        ({"detail": "x" * 500}, "x" * 200),
        ({"detail": 5}, ""),
        ([], ""),
        (None, ""),
    ],
)
def test_what_a_refusal_says_is_one_short_line(body: object, words: str) -> None:
    assert read_refusal(json.dumps(body).encode()) == words


KEY = "nvapi-0123456789-0123456789"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (f"{KEY} and {KEY}.", "... and ...."),
        (f"{'x' * 190} {KEY}", f"{'x' * 190} ..."),
        (f"{'x' * 195} {KEY}", f"{'x' * 195} ..."),
        (f"the key {KEY[:12]}", "the key ..."),
        (f"the key {KEY[:12]}*** is wrong", "the key ...*** is wrong"),
        (f"the key {KEY[:-1]}? is wrong", "the key ...? is wrong"),
        ("nvapi is no key", "nvapi is no key"),
    ],
)
def test_no_part_of_a_key_stays_in_a_refusal_wherever_it_is_cut(said: str, words: str) -> None:
    assert read_refusal(json.dumps({"detail": said}).encode(), secrets=["other-key", KEY]) == words


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_refusal_raises(body: bytes) -> None:
    assert len(read_refusal(body)) <= 200
