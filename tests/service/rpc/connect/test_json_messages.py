"""JSON as protobuf defines it, whatever its size, and what is none."""

import base64
import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidRequest
from service.rpc.connect import json_messages
from service.rpc.connect.json_messages import AT_ONCE, IN_THREAD_BYTES, JsonMessage, to_binary, to_json
from service.rpc.connect.json_text import LONG_BYTES, WINDOW
from service.rpc.shared.bounds import MAX_PROPERTIES_BYTES
from vecgate.v1 import object_service_pb2 as objects
from vecgate.v1 import search_service_pb2 as search

LONG = "x" * (LONG_BYTES + 1)
FIELDS = 1000


def read(content: str | bytes | dict[str, Any], kind: Any = search.SearchObjectsRequest, fields: int = FIELDS) -> Any:
    text = json.dumps(content, ensure_ascii=False) if isinstance(content, dict) else content
    return kind.FromString(to_binary(JsonMessage(text.encode() if isinstance(text, str) else text, kind), fields))


def refusal(content: str | bytes | dict[str, Any], kind: Any = search.SearchObjectsRequest) -> tuple[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        read(content, kind)
    (violation,) = caught.value.violations
    return violation.field, violation.description


@pytest.mark.parametrize("text", ["x" * (MAX_PROPERTIES_BYTES + 1), "\n" * (MAX_PROPERTIES_BYTES + 1)])
def test_a_text_that_no_field_may_have_is_refused_by_its_field_before_it_is_read(text: str) -> None:
    field, message = refusal({"collection": "Pictures", "nearText": {"concepts": [text]}})

    assert field == "nearText.concepts"
    assert str(MAX_PROPERTIES_BYTES) in message


@pytest.mark.parametrize("wrong", [{"sort": 3}, {"nearText": {"concepts": 3}}, {"nearText": [1]}])
def test_a_value_of_a_wrong_type_is_refused_in_words_about_the_request(wrong: dict[str, Any]) -> None:
    _, message = refusal({"collection": "Pictures", **wrong})

    assert "object of type" not in message
    assert "not iterable" not in message
    assert "attribute" not in message


def imported(**parts: object) -> dict[str, Any]:
    return {"collection": "Pictures", "objects": [{"id": "1", **parts}]}


@pytest.mark.parametrize("size", [0, 1, 2, 3, 100, LONG_BYTES, AT_ONCE // 4 * 3, AT_ONCE // 4 * 3 + 1, 2 * AT_ONCE + 1])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padding", [b"", b"="])
def test_bytes_of_any_size_are_read_in_either_alphabet_with_padding_or_without(
    size: int, encode: Any, padding: bytes
) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    packed = encode(content[:size])
    text = (packed if padding else packed.rstrip(b"=")).decode()

    read_ = read(imported(images={"front": {"content": text}, "get": {"content": text}}), objects.ImportObjectsRequest)

    assert {key: each.content for key, each in read_.objects[0].images.items()} == dict.fromkeys(
        ("front", "get"), content[:size]
    )


@pytest.mark.parametrize("text", ["!", "a b=", "YQ==YQ==", "ab=c", "a", "data:image/png;base64,aGk=", "aGk=\n", "ä"])
@pytest.mark.parametrize("before", ["", "xxxx" * LONG_BYTES])
def test_what_is_no_base64_is_refused_with_its_path(before: str, text: str) -> None:
    request = imported(images={"front": {"content": before + text}})

    field, description = refusal(request, objects.ImportObjectsRequest)

    assert (field, "base64" in description) == ("objects[0].images.front.content", True)


@pytest.mark.parametrize(
    "properties",
    [
        {"title": LONG},
        {"title": f'{LONG}"\\{LONG}\n', "other": LONG},
        {"title": ["ü" * LONG_BYTES, {"deep": LONG}]},
        {"title": "\\" * (3 * WINDOW), "quote": '\\"' * LONG_BYTES},
    ],
)
def test_long_texts_are_read_as_they_are(properties: dict[str, Any]) -> None:
    request = imported(properties=properties)
    parsed = json_format.ParseDict(request, objects.ImportObjectsRequest())

    for ascii_ in (True, False):
        assert read(json.dumps(request, ensure_ascii=ascii_), objects.ImportObjectsRequest, 10**6) == parsed


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(-1e9, 1e9) | st.text(max_size=5) | st.just(LONG),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    )
)
def test_any_properties_are_read_as_protobuf_reads_them(value: Any) -> None:
    request = imported(properties={"value": value})

    assert read(request, objects.ImportObjectsRequest) == json_format.ParseDict(request, objects.ImportObjectsRequest())


def test_names_are_taken_in_both_spellings_and_written_in_camel_case() -> None:
    for name in ("nearText", "near_text"):
        request = read({"collection": "Pictures", name: {"concepts": ["a dog"]}})
        assert request.near_text.concepts == ["a dog"]
        assert b'"nearText"' in to_json(request.SerializeToString(), search.SearchObjectsRequest)


@pytest.mark.parametrize(
    ("content", "field", "words"),
    [
        ({"nearText": {"concept": []}}, "nearText.concept", "no field"),
        ({"limits": 1}, "limits", "no field of SearchObjectsRequest"),
        ({"limit": "x"}, "limit", "literal"),
        ({"limit": 1e99}, "limit", "range"),
        ({"limit": True}, "limit", "Bool"),
        ({"nearText": 1}, "nearText", "not iterable"),
        ({"nearText": {"concepts": "a dog"}}, "nearText", "concepts must be in []"),
        ({"nearText": {"concepts": [1]}}, "concepts", "expected string"),
        ({"nearText": {}, "bm25": {}}, "", "oneof"),
        ({"targetJoin": "TARGET_JOIN_OTHER"}, "targetJoin", "enum"),
        (b"", "", "not JSON"),
        (b"[]", "", "not a JSON object"),
        (b'"text"', "", "not a JSON object"),
        (b"{", "", "not JSON"),
        (b"{}{}", "", "not JSON"),
        (b'{"limit": 1,}', "", "not JSON"),
        (b'{"limit": 1, "limit": 2}', "limit", "twice"),
        (b'{"certainty": NaN}', "", "NaN"),
        (b'{"certainty": -Infinity}', "", "-Infinity"),
        (b'{"limit": ' + b"9" * 5000 + b"}", "", "digits"),
        (b'{"collection": "\xff"}', "", "UTF-8"),
        (b'{"collection": "' + b"\xff" * (LONG_BYTES + 1) + b'"}', "", "UTF-8"),
        (b'{"collection": "' + b"\n" * (LONG_BYTES + 1) + b'"}', "", "control"),
        (b'{"' + LONG.encode() + b'": 1}', "", "too long"),
        (b'{"collection": "\\ud800"}', "collection", "surrogate"),
        ("{}".encode("utf-16"), "", "UTF-8"),
        (b"\xef\xbb\xbf{}", "", "BOM"),
        (b"[" * 5000, "", "levels"),
        (b"[" * 100_000, "", "more than 1000 fields"),
        (b'{"filters":' + b'{"negation":' * 200 + b"{}" + b"}" * 201, "filters", "deep"),
        (b'{"a":' * 500 + b"1" + b"}" * 500, "a", "no field"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_message_is_refused_by_name_of_the_field(content: Any, field: str, words: str) -> None:
    found, description = refusal(content)

    assert found == field
    assert words in description
    assert len(description) < 400


def test_more_fields_than_a_request_may_have_are_refused_before_they_are_read() -> None:
    padding = " " * LONG_BYTES
    assert len(read('{"nearText":{"concepts":[' + '"a,{[",' * 900 + '"a"]}}' + padding).near_text.concepts) == 901
    for items in ("[]," * 2000, "1," * 2000, '"a",' * 2000, "{}," * 2000):
        field, description = refusal('{"nearText":{"concepts":[' + items + "1]}}" + padding)
        assert (field, "more than 1000 fields" in description) == ("", True)
    quotes = refusal('{"collection":"' + '\\"' * 5000 + '"}' + padding)
    assert "more than 1000 fields" in quotes[1]


def test_a_large_answer_is_written_item_by_item_and_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = objects.ListObjectsResponse(next_page_token='a "token"')
    for number in range(100):
        answer.objects.add(id=str(number), images={"front": {"content": bytes(IN_THREAD_BYTES)}})
    written: list[int] = []
    real = json_messages.orjson.dumps

    def noted(value: Any) -> bytes:
        written.append(len(real(value)))
        return real(value)

    monkeypatch.setattr(json_messages.orjson, "dumps", noted)
    content = to_json(answer.SerializeToString(), objects.ListObjectsResponse)

    assert json.loads(content) == json_format.MessageToDict(answer)
    assert max(written) < 2 * IN_THREAD_BYTES
