"""The HTTP endpoint as a client of a NIM meets it."""

import asyncio
import base64
import gzip
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import numpy as np
import pytest
import structlog
from grpc_health.v1 import health_pb2

from embedders.contract import ImageInput, InputLimits, Modality, Priority, Purpose, TextImageInput, TextInput
from embedders.errors import (
    AnswerInvalid,
    CredentialRejected,
    EmbedderOverloaded,
    EmbedderRateLimited,
    EmbedderUnavailable,
    ModelGone,
)
from service.domain import NamedVector, Space, WeightedField
from service.rpc.server.standard_services import HealthReporter
from service.store.base import Store
from service.store.weaviate.vector_schema import vector_to_schema
from tests.fakes.embedder import FakeEmbedder, picture
from tests.fakes.web import MODEL, Web, data_uri, running_web

PNG, JPEG = picture(), picture((1, 2, 200), file_format="JPEG")
STRINGS = ("message", "detail", "title")

Ask = Callable[..., Any]


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with running_web(FakeEmbedder(max_text_tokens=8, limits=InputLimits(max_image_bytes=100_000))) as running:
        yield running


@pytest.fixture
async def http(web: Web) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=web.url, timeout=20) as client:
        yield client


async def post(http: httpx.AsyncClient, path: str = "/v1/embeddings", **fields: object) -> httpx.Response:
    return await http.post(path, json={"model": MODEL} | fields)


def vectors(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array([each["embedding"] for each in answer.json()["data"]], np.float32)


def refusal(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Return a refusal's body; every client finds its text in it."""
    body: dict[str, Any] = answer.json()
    assert answer.status_code == status, answer.text
    assert {type(body[name]) for name in STRINGS} == {str}
    assert len({*(body[name] for name in STRINGS), body["error"]["message"]}) == 1
    assert body["status"] == status
    assert body["requestId"] == answer.headers["x-request-id"]
    assert {type(body["error"][name]) for name in ("type", "code")} == {str}
    return body


async def test_texts_and_images_come_back_in_order_as_the_nim_s_documented_answer(
    web: Web, http: httpx.AsyncClient
) -> None:
    answer = await post(http, input=["a cat", data_uri(PNG), "a big dog", data_uri(JPEG, "image/jpeg")])

    body = answer.json()
    expected = [web.embedder.vector(each) for each in ("a cat", PNG, "a big dog", JPEG)]
    np.testing.assert_array_equal(vectors(answer), np.stack(expected))
    np.testing.assert_allclose(np.linalg.norm(vectors(answer), axis=1), 1, atol=1e-6)
    assert body["object"] == "list"
    assert body["model"] == MODEL
    assert [(each["object"], each["index"]) for each in body["data"]] == [("embedding", at) for at in range(4)]
    assert body["usage"] == {"num_images": 2, "prompt_tokens": 4 + 5, "total_tokens": 4 + 5}
    assert (answer.headers["vecgate-embedder"], answer.headers["vecgate-space"]) == ("fake", "fake")


async def test_one_text_needs_no_list_and_vectors_come_packed_when_asked_for(web: Web, http: httpx.AsyncClient) -> None:
    packed = (await post(http, input="a cat", encoding_format="base64")).json()["data"][0]["embedding"]

    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(packed), "<f4"), web.embedder.vector("a cat"))


@pytest.mark.parametrize("path", ["//v1/embeddings", "/a/b/v1/embeddings", "/a/b//v1/embeddings", "/v1//embeddings"])
async def test_doubled_slashes_and_the_prefix_lead_there_too(path: str) -> None:
    async with running_web(path_prefix="/a/b") as web, httpx.AsyncClient() as http:
        answer = await http.post(web.url + path, json={"model": MODEL, "input": "a cat"})

    assert vectors(answer).shape == (1, 8)


@pytest.mark.parametrize(
    "media_type", ["image/png", "image/jpg", "image/jpeg", "image/svg+xml", "image/x;charset=utf-8"]
)
async def test_an_image_is_read_from_its_bytes_whatever_its_media_type_says(
    web: Web, http: httpx.AsyncClient, media_type: str
) -> None:
    answer = await post(http, input=[data_uri(JPEG, media_type)])

    np.testing.assert_array_equal(vectors(answer)[0], web.embedder.vector(JPEG))


@pytest.mark.parametrize("text", [base64.b64encode(PNG).decode(), "data:text/plain,AAAA", "see data:image/png"])
async def test_what_has_no_image_prefix_is_a_text_as_it_is_for_a_nim(
    web: Web, http: httpx.AsyncClient, text: str
) -> None:
    np.testing.assert_array_equal(vectors(await post(http, input=text))[0], web.embedder.vector(text))


@pytest.mark.parametrize(
    "text", [base64.b64encode(PNG).decode(), base64.b64encode(JPEG).decode(), "data:video/mp4,AAAA", "DATA:,x"]
)
async def test_strict_images_refuse_a_text_that_looks_like_one(text: str) -> None:
    async with running_web(strict_images=True) as web, httpx.AsyncClient(base_url=web.url) as http:
        body = refusal(await post(http, input=["a cat", text]), 422)
        good = await post(http, input=["a cat", data_uri(PNG), "/9j/ is how a picture begins"])
        said = await post(http, input=text, modality="text")

    assert body["message"].startswith("input[1]: looks like an image without its prefix")
    assert body["error"]["param"] == "input[1]"
    assert len(vectors(good)) == 3
    assert len(vectors(said)) == 1


async def test_long_texts_are_cut_unless_the_caller_says_no(web: Web, http: httpx.AsyncClient) -> None:
    long = "one two three four five six seven eight"

    cut = await post(http, input=long)
    refused = await post(http, input=["short", long], truncate="NONE")

    np.testing.assert_array_equal(vectors(cut)[0], web.embedder.vector("one two three four five six"))
    assert cut.json()["usage"]["prompt_tokens"] == 8
    body = refusal(refused, 400)
    assert body["message"].startswith("input[1]: the text has 10 tokens; the model reads 8")
    assert body["error"]["code"] == "text_too_long"


async def test_fields_of_other_clients_are_taken_where_they_make_sense(web: Web, http: httpx.AsyncClient) -> None:
    fields = {"user": "me", "dimensions": 8, "truncate": "END", "encoding_format": None}

    for input_type in ("query", "passage", None):
        vectors(await post(http, input="a cat", input_type=input_type, **fields))

    options = [each for inputs, each in web.embedder.calls if inputs == [TextInput("a cat", truncate=True)]]
    assert [(each.purpose, each.priority) for each in options] == [
        (Purpose.QUERY, Priority.INTERACTIVE),
        (Purpose.DOCUMENT, Priority.BULK),
        (Purpose.QUERY, Priority.INTERACTIVE),
    ]


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        ({"input": 3}, "input", "Expected str | array, got int"),
        ({"input": ["a", 3]}, "input[1]", "token numbers are not accepted"),
        ({"input": [1, 2]}, "input[0]", "OpenAIEmbeddings: check_embedding_ctx_length=False"),
        ({"input": [[1, 2]]}, "input[0]", "send the text itself"),
        ({"input": ["a", None]}, "input[1]", "Expected str, got null"),
        ({"input": None}, "input", "Expected str | array, got null"),
        ({"input": []}, "input", "is empty; give 1 to 2048"),
        ({}, "input", "missing required field input"),
        ({"input": "a", "model": None}, "model", "Expected str, got null"),
        ({"input": "a", "model": ""}, "model", "length >= 1"),
        ({"input": "a", "dimensions": 512}, "dimensions", "is 512; fake/model has 8 on this server"),
        ({"input": "a", "dimensions": 0}, "dimensions", ">= 1"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "must be one of float, base64"),
        ({"input": "a", "truncate": "MIDDLE"}, "truncate", "must be one of NONE, END, START"),
        ({"input": "a", "input_type": "text"}, "input_type", "must be one of query, passage"),
        ({"input": "a", "late": "text"}, "late", "extra inputs are not permitted; the fields are input, model"),
        ({"input": "a", "modality": "audio"}, "modality", "must be one of text, image, text_image"),
        ({"input": "a", "modality": ["audio"]}, "modality[0]", "must be one of text, image, text_image"),
        ({"input": "a", "modality": []}, "modality", "has 0 values for 1 inputs; give one, or one for each input"),
        ({"input": ["a"] * 3, "modality": ["text"] * 2}, "modality", "has 2 values for 3 inputs"),
        ({"input": "a", "modality": "text_image"}, "modality", "is text_image, which fake/model does not read"),
        ({"input": ["a", "b"], "modality": ["text", "text_image"]}, "modality[1]", "it may be image or text"),
        ({"input": "a", "modality": "image"}, "input[0]", "is not an image alone, as modality says"),
        ({"input": "a", "embedding_type": "int8"}, "embedding_type", "no integer and no binary vectors"),
        ({"input": "a", "embedding_type": "double"}, "embedding_type", "must be one of float"),
        ({"input": "a", "user": 1}, "user", "Expected str | null, got int"),
        ({"input": ["a", "data:image/png,AAAA"]}, "input[1]", "data:image/png;base64,"),
        ({"input": "data:image/png;base64,AA*A"}, "input[0]", "not base64"),
        ({"input": "data:image/png;base64,AAAAA"}, "input[0]", "not base64"),
        ({"input": "data:images are free"}, "input[0]", "data:image/png;base64,"),
    ],
)
async def test_a_body_that_breaks_the_schema_is_told_its_field_and_the_fix(
    http: httpx.AsyncClient, fields: dict[str, object], field: str | None, text: str
) -> None:
    body = refusal(await post(http, **fields), 422)

    assert text in body["message"]
    assert body["error"]["param"] == field
    assert (body["error"]["type"], body["error"]["code"]) == ("invalid_request_error", "invalid_input")


async def test_a_request_without_a_model_is_told_the_field(http: httpx.AsyncClient) -> None:
    body = refusal(await http.post("/v1/embeddings", json={"input": "a"}), 422)

    assert (body["message"], body["error"]["param"]) == ("model: Object missing required field model", "model")


@pytest.mark.parametrize("name", ["x" * 100_000, "a` - at `$.model", "a b", "\u001b[31m", ""])
async def test_an_unknown_field_of_another_name_than_a_word_is_not_repeated(http: httpx.AsyncClient, name: str) -> None:
    body = refusal(await post(http, **{"input": "a", name: 1}), 422)

    assert body["message"].startswith("extra inputs are not permitted; the fields are")
    assert body["error"]["param"] is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"nonsense", b"\xff\xfe", b'{"input": "\\ud800", "model": "m"}', b'{"input": "a", "model": "m"}x'],
)
async def test_a_body_that_is_no_json_is_told_so(http: httpx.AsyncClient, content: bytes) -> None:
    body = refusal(await http.post("/v1/embeddings", content=content), 400)

    assert body["error"]["code"] == "invalid_json"


async def test_a_compressed_body_is_refused_by_name(http: httpx.AsyncClient) -> None:
    packed = gzip.compress(json.dumps({"model": MODEL, "input": "a cat"}).encode())

    answer = await http.post("/v1/embeddings", content=packed, headers={"content-encoding": "gzip"})

    assert refusal(answer, 415)["error"]["code"] == "body_compressed"


async def test_inputs_that_cannot_be_embedded_are_all_named(http: httpx.AsyncClient) -> None:
    answer = await post(http, input=["a cat", " ", data_uri(b"no picture"), data_uri(b""), data_uri(b"x" * 100_001)])

    body = refusal(answer, 400)
    assert [part.partition(":")[0] for part in body["message"].split("; input")] == ["input[1]", "[2]", "[3]", "[4]"]
    assert body["error"]["param"] == "input[1]"


async def test_a_model_that_is_not_there_is_told_so_that_weaviate_s_module_shows_it(http: httpx.AsyncClient) -> None:
    body = refusal(await http.post("/v1/embeddings", json={"input": "a", "model": "nvidia/nvclip"}), 422)

    assert body["message"] == f"this server has no model 'nvidia/nvclip'; it has: {MODEL}"
    assert body["error"] | {"message": ""} == {
        "message": "", "type": "invalid_request_error", "param": "model", "code": "model_not_found",
    }  # fmt: skip


async def test_a_dimension_that_is_not_known_yet_is_no_fault_of_who_asks_for_one() -> None:
    embedder = FakeEmbedder(dimension=0)
    embedder.failure = EmbedderUnavailable("the NIM has not answered yet")
    async with running_web(embedder) as web, httpx.AsyncClient(base_url=web.url) as http:
        answer = await post(http, input="a cat", dimensions=1024)

    assert refusal(answer, 503)["error"]["code"] == "embedder_unavailable"


async def test_the_model_chooses_the_embedder() -> None:
    first, second = FakeEmbedder(name="one", model="m/one", space="s1"), FakeEmbedder(name="two", model="m/two")
    async with running_web(first, second) as web, httpx.AsyncClient(base_url=web.url) as http:
        answer = await http.post("/v1/embeddings", json={"input": "a cat", "model": "m/two"})
        models = (await http.get("/v1/models")).json()
        one = (await http.get("/v1/models/m/one")).json()
        none = refusal(await http.get("/v1/models/m/three"), 404)

    np.testing.assert_array_equal(vectors(answer)[0], second.vector("a cat"))
    assert answer.headers["vecgate-embedder"] == "two"
    assert {each["id"] for each in models["data"]} == {"m/one", "m/two"}
    assert (one["id"], one["object"], one["owned_by"], one["space"]) == ("m/one", "model", "vecgate", "s1")
    assert none["error"]["code"] == "model_not_found"


@pytest.fixture
async def several() -> AsyncIterator[tuple[Web, httpx.AsyncClient]]:
    """Run a server with three embedders of one model, of which two have a space of their own, and one of another."""
    embedders = (
        FakeEmbedder(name="whole", model="m", space="m", dimension=16),
        FakeEmbedder(name="cut", model="m", space="m@8", dimension=8),
        FakeEmbedder(name="cut-2", model="m", space="m@8", dimension=8),
        FakeEmbedder(name="other", model="o-query", space="o", dimension=4),
    )
    async with running_web(*embedders) as web, httpx.AsyncClient(base_url=web.url) as http:
        yield web, http


@pytest.mark.parametrize(
    ("asked", "embedder"),
    [
        ({"model": "m"}, "whole"),
        ({"model": "m", "dimensions": 16}, "whole"),
        ({"model": "m", "dimensions": 8}, "cut"),
        ({"model": "m@8"}, "cut"),
        ({"model": "m@8", "dimensions": 8}, "cut"),
        ({"model": "cut-2"}, "cut-2"),
        ({"model": "cut-2-passage"}, "cut-2"),
        ({"model": "m@8-query", "dimensions": 8}, "cut"),
        ({"model": "o-query"}, "other"),
        ({"model": "o-query-query"}, "other"),
    ],
)
async def test_model_and_dimensions_together_choose_the_embedder(
    several: tuple[Web, httpx.AsyncClient], asked: dict[str, object], embedder: str
) -> None:
    web, http = several
    answer = await http.post("/v1/embeddings", json={"input": "a cat", **asked})

    chosen = web.pool.get(embedder)
    np.testing.assert_array_equal(vectors(answer)[0], cast("FakeEmbedder", chosen).vector("a cat"))
    assert (answer.headers["vecgate-embedder"], answer.json()["model"]) == (embedder, chosen.spec.model)


@pytest.mark.parametrize(
    ("asked", "field", "text"),
    [
        ({"model": "m", "dimensions": 4}, "dimensions", "is 4; m has 8, 16 on this server"),
        ({"model": "m@8", "dimensions": 16}, "dimensions", "is 16; m has 8 on this server"),
        ({"model": "cut-2", "dimensions": 16}, "dimensions", "is 16; m has 8 on this server"),
        ({"model": "m@4"}, "model", "this server has no model 'm@4'; it has: m, m@8, o-query"),
        ({"model": "m-document"}, "model", "no model 'm-document'"),
        ({"model": "-query"}, "model", "no model '-query'"),
        ({"model": "m-passage", "input_type": "query"}, "input_type", "model ends with -passage"),
    ],
)
async def test_a_model_or_dimension_that_is_not_there_is_told_with_those_that_are(
    several: tuple[Web, httpx.AsyncClient], asked: dict[str, object], field: str, text: str
) -> None:
    _, http = several

    body = refusal(await http.post("/v1/embeddings", json={"input": "a cat", **asked}), 422)

    assert text in body["message"]
    assert body["error"]["param"] == field


async def test_a_space_of_a_model_is_listed_by_its_id(several: tuple[Web, httpx.AsyncClient]) -> None:
    _, http = several

    models = (await http.get("/v1/models")).json()["data"]
    cut = (await http.get("/v1/models/m@8")).json()

    assert [(each["id"], each["root"], each["dimension"]) for each in models] == [
        ("m", "m", 16),
        ("m@8", "m", 8),
        ("o-query", "o-query", 4),
    ]
    assert (cut["id"], cut["embedder"], cut["space"]) == ("m@8", "cut", "m@8")


@pytest.fixture
async def checkpoints() -> AsyncIterator[tuple[Web, httpx.AsyncClient]]:
    """Run a server with three checkpoints of one architecture, of which the last has vectors of another length."""
    embedders = (
        FakeEmbedder(name="a", model="ViT-B-32", space="clip:ViT-B-32:aaa"),
        FakeEmbedder(name="b", model="ViT-B-32", space="clip:ViT-B-32:bbb"),
        FakeEmbedder(name="b-2", model="ViT-B-32", space="clip:ViT-B-32:bbb"),
        FakeEmbedder(name="c", model="ViT-B-32", space="clip:ViT-B-32:ccc", dimension=4),
    )
    async with running_web(*embedders) as web, httpx.AsyncClient(base_url=web.url) as http:
        yield web, http


@pytest.mark.parametrize(
    "asked", [{}, {"model": "ViT-B-32-passage"}, {"dimensions": 8}, {"model": "ViT-B-32-query", "dimensions": 8}]
)
async def test_the_name_of_a_model_of_several_spaces_is_never_a_guess(
    checkpoints: tuple[Web, httpx.AsyncClient], asked: dict[str, object]
) -> None:
    _, http = checkpoints

    body = refusal(await http.post("/v1/embeddings", json={"input": "a cat", "model": "ViT-B-32", **asked}), 422)

    assert "the model 'ViT-B-32' has several vector spaces on this server; ask for one" in body["message"]
    assert "by its id: clip:ViT-B-32:aaa, clip:ViT-B-32:bbb" in body["message"]
    assert "an embedder's name: a, b, b-2" in body["message"]
    assert (body["error"]["param"], body["error"]["code"]) == ("model", "model_not_found")


async def test_a_model_of_several_spaces_is_listed_by_names_that_a_request_may_have(
    checkpoints: tuple[Web, httpx.AsyncClient],
) -> None:
    web, http = checkpoints
    listed = (await http.get("/v1/models")).json()["data"]
    document = (await http.get("/openapi.json")).json()
    asked = [
        await http.post("/v1/embeddings", json={"input": "a cat", "model": name})
        for name in (*(each["id"] for each in listed), "b-2")
    ]
    by_length = await http.post("/v1/embeddings", json={"input": "a cat", "model": "ViT-B-32", "dimensions": 4})
    unclear = refusal(await http.get("/v1/models/ViT-B-32"), 404)

    assert [(each["id"], each["embedder"]) for each in listed] == [
        ("clip:ViT-B-32:aaa", "a"),
        ("clip:ViT-B-32:bbb", "b"),
        ("clip:ViT-B-32:ccc", "c"),
    ]
    assert [each.headers["vecgate-embedder"] for each in (*asked, by_length)] == ["a", "b", "c", "b-2", "c"]
    assert "several vector spaces" in unclear["message"]
    names = document["components"]["schemas"]["EmbeddingsRequest"]["properties"]["model"]["enum"]
    assert {"clip:ViT-B-32:bbb", "b-2", "ViT-B-32", "ViT-B-32-query"} <= set(names)
    assert web.pool.default.spec.name == "a"


async def test_the_module_of_a_native_vector_asks_for_the_embedder_of_its_space(
    checkpoints: tuple[Web, httpx.AsyncClient],
) -> None:
    web, http = checkpoints
    for name in ("a", "b"):
        spec = web.pool.get(name).spec
        vector = NamedVector(
            "v",
            Space(spec.space, spec.dimension, spec.model),
            text_fields=(WeightedField("title"),),
            native=True,
            base_url=web.url,
        )
        model = vector_to_schema(vector)["vectorizer"]["multi2vec-nvidia"]["model"]

        answer = await http.post("/v1/embeddings", json={"input": "a cat", "model": model})

        assert (answer.headers["vecgate-embedder"], answer.headers["vecgate-space"]) == (name, spec.space)


@pytest.mark.parametrize("order", [("cut", "full"), ("full", "cut")])
async def test_a_name_that_is_the_id_of_a_space_means_that_space_in_any_order(order: tuple[str, str]) -> None:
    made = {
        "cut": FakeEmbedder(name="cut", model="m", space="m@8", dimension=8),
        "full": FakeEmbedder(name="full", model="m", space="m", dimension=16),
    }
    async with running_web(*(made[each] for each in order)) as web, httpx.AsyncClient(base_url=web.url) as http:
        listed = (await http.get("/v1/models")).json()["data"]
        answers = [
            await http.post("/v1/embeddings", json={"input": "a cat", **asked})
            for asked in ({"model": "m"}, {"model": "m-query"}, {"model": "m", "dimensions": 8}, {"model": "m@8"})
        ]

    assert {each["id"]: each["embedder"] for each in listed} == {"m": "full", "m@8": "cut"}
    assert [each["embedder"] for each in listed] == [*order]
    assert [each.headers["vecgate-embedder"] for each in answers] == ["full", "full", "cut", "cut"]


async def test_a_model_at_its_full_dimension_is_waited_for_before_a_shorter_one_takes_its_name() -> None:
    cut = FakeEmbedder(name="cut", model="m", space="m@8", dimension=8)
    other = FakeEmbedder(name="other", model="o", space="clip:o:1", dimension=4)
    late = FakeEmbedder(name="late", model="", space="", dimension=0)
    late.failure = EmbedderUnavailable("down")
    async with running_web(cut, other, late) as web, httpx.AsyncClient(base_url=web.url) as http:
        waits = [
            refusal(await http.post("/v1/embeddings", json={"input": "a cat", "model": "m", **asked}), 503)
            for asked in ({}, {"dimensions": 16})
        ]
        answers = [
            await http.post("/v1/embeddings", json={"input": "a cat", **asked})
            for asked in ({"model": "m", "dimensions": 8}, {"model": "m@8"}, {"model": "cut"}, {"model": "o"})
        ]

    for each in waits:
        assert each["message"].startswith("m may be the model of embedder late, which is not known yet: ")
        assert each["message"].endswith("; try again, or ask for m@8")
    assert [each.headers["vecgate-embedder"] for each in answers] == ["cut", "cut", "cut", "other"]


async def test_a_dimension_that_is_learnt_from_the_answer_is_checked_before_it_is_sent() -> None:
    embedder = FakeEmbedder(dimension=8)
    async with running_web(embedder) as web, httpx.AsyncClient(base_url=web.url) as http:
        embedder._spec = replace(embedder.spec, dimension=0)
        embedder.vector = lambda _: np.eye(8, dtype=np.float32)[0]  # type: ignore[method-assign]

        fits, other = await post(http, input="a cat", dimensions=8), await post(http, input="a cat", dimensions=12)

    body = refusal(other, 422)
    assert vectors(fits).shape == (1, 8)
    assert body["message"] == "dimensions: is 12; fake/model has 8 on this server"
    assert (body["error"]["param"], body["error"]["code"]) == ("dimensions", "invalid_input")


async def test_embedders_of_one_space_stand_in_for_each_other_whatever_their_models_are_called() -> None:
    first = FakeEmbedder(name="bf16", model="m-bf16", space="m")
    second = FakeEmbedder(name="nvfp4", model="m-nvfp4", space="m")
    async with running_web(first, second) as web, httpx.AsyncClient(base_url=web.url) as http:
        own = await http.post("/v1/embeddings", json={"input": "a cat", "model": "m-nvfp4"})
        second.failure = EmbedderUnavailable("down")
        other = await http.post("/v1/embeddings", json={"input": "a cat", "model": "m-nvfp4", "dimensions": 8})

    assert [each.headers["vecgate-embedder"] for each in (own, other)] == ["nvfp4", "bf16"]
    assert other.json()["model"] == "m-nvfp4"


@pytest.mark.parametrize(
    ("fields", "purpose", "priority"),
    [
        ({"input": "a cat"}, Purpose.QUERY, Priority.INTERACTIVE),
        ({"input": "a cat", "model": f"{MODEL}-query"}, Purpose.QUERY, Priority.INTERACTIVE),
        ({"input": "a cat", "model": f"{MODEL}-passage"}, Purpose.DOCUMENT, Priority.BULK),
        ({"input": "a cat", "model": f"{MODEL}-passage", "input_type": "passage"}, Purpose.DOCUMENT, Priority.BULK),
        ({"input": ["a cat"] * 64}, Purpose.QUERY, Priority.INTERACTIVE),
        ({"input": ["a cat"] * 65}, Purpose.QUERY, Priority.BULK),
    ],
)
async def test_the_role_behind_a_model_s_name_and_the_number_of_inputs_say_what_they_are_for(
    web: Web, http: httpx.AsyncClient, fields: dict[str, object], purpose: Purpose, priority: Priority
) -> None:
    web.embedder.calls.clear()

    vectors(await post(http, **fields))

    ((_, options),) = web.embedder.calls
    assert (options.purpose, options.priority) == (purpose, priority)


@pytest.mark.parametrize(
    ("header", "priority"),
    [
        ("u=7", Priority.BULK),
        ("u=6, i", Priority.BULK),
        ("i, u=7", Priority.BULK),
        ("u=1, u=6;some=parameter", Priority.BULK),
        ("u=5", Priority.INTERACTIVE),
        ("u=1, i", Priority.INTERACTIVE),
        ("u=6, u=1", Priority.INTERACTIVE),
        ("i", Priority.INTERACTIVE),
        ("u=8", Priority.INTERACTIVE),
        ("u=70", Priority.INTERACTIVE),
        ("menu=7", Priority.INTERACTIVE),
        ("", Priority.INTERACTIVE),
    ],
)
async def test_a_request_that_says_it_is_not_urgent_waits_behind_others(
    web: Web, http: httpx.AsyncClient, header: str, priority: Priority
) -> None:
    web.embedder.calls.clear()

    answer = await http.post("/v1/embeddings", json={"input": "a cat", "model": MODEL}, headers={"priority": header})

    assert answer.status_code == 200
    ((_, options),) = web.embedder.calls
    assert options.priority is priority


async def test_a_text_with_an_image_is_one_input_where_the_model_reads_both() -> None:
    embedder = FakeEmbedder(modalities=frozenset(Modality))
    async with running_web(embedder) as web, httpx.AsyncClient(base_url=web.url) as http:
        embedder.calls.clear()
        joint = f"a red bag\n{data_uri(PNG)}"
        answer = await post(http, input=[joint, "a bag", data_uri(PNG)], modality=["text_image", "text", "image"])
        again = await post(http, input=joint)

    assert embedder.calls[0][0] == [
        TextImageInput("a red bag", PNG, truncate=True),
        TextInput("a bag", truncate=True),
        ImageInput(PNG),
    ]
    np.testing.assert_array_equal(vectors(answer)[0], vectors(again)[0])
    assert answer.json()["usage"]["num_images"] == 2


async def test_a_text_with_an_image_is_refused_with_the_way_out_where_the_model_reads_them_apart(
    http: httpx.AsyncClient,
) -> None:
    joint = f"a red bag {data_uri(PNG)}"

    body = refusal(await post(http, input=["a bag", joint]), 422)
    said = await post(http, input=["a bag", joint], modality="text", truncate="END")

    assert "not text and picture as one input; send them as two inputs" in body["message"]
    assert (body["error"]["param"], body["error"]["code"]) == ("input[1]", "invalid_input")
    assert len(vectors(said)) == 2


async def test_a_long_text_is_cut_where_the_caller_says(web: Web, http: httpx.AsyncClient) -> None:
    long = "one two three four five six seven eight"

    at_end = await post(http, input=[long, data_uri(PNG)], truncate="END")
    at_start = await post(http, input=[long, data_uri(PNG)], truncate="START")

    np.testing.assert_array_equal(vectors(at_end)[0], web.embedder.vector("one two three four five six"))
    np.testing.assert_array_equal(vectors(at_start)[0], web.embedder.vector("three four five six seven eight"))


async def test_a_request_of_thousands_of_inputs_is_answered_in_order(web: Web, http: httpx.AsyncClient) -> None:
    texts = [f"text {number}" for number in range(2048)]

    answer = await post(http, input=texts, encoding_format="base64")

    packed = [base64.b64decode(each["embedding"]) for each in answer.json()["data"]]
    assert packed == [web.embedder.vector(text).astype("<f4").tobytes() for text in texts]


async def test_the_license_and_the_manifest_are_told(http: httpx.AsyncClient) -> None:
    license_ = (await http.get("/v1/license")).json()
    manifest = (await http.get("/v1/manifest")).json()
    metadata = (await http.get("/v1/metadata")).json()

    assert (license_["name"], license_["type"]) == ("Apache-2.0", "file")
    assert license_["content"] == (Path(__file__).parents[3] / "LICENSE").read_text()
    assert license_["size"] == len(license_["content"])
    assert license_["sha"] == hashlib.sha1(license_["content"].encode()).hexdigest()
    assert metadata["licenseInfo"] == license_
    (model,) = manifest["models"]
    assert (model["id"], model["modalities"], model["max_text_tokens"]) == (MODEL, ["image", "text"], 8)


@pytest.mark.parametrize(
    ("error", "status", "code", "kind", "retry_after"),
    [
        (EmbedderUnavailable("down", retry_after_s=2.2), 503, "embedder_unavailable", "server_error", "3"),
        (EmbedderOverloaded("full"), 503, "overloaded", "server_error", "1"),
        (EmbedderRateLimited("slow", retry_after_s=7), 429, "upstream_rate_limited", "rate_limit_error", "7"),
        (ModelGone("gone"), 424, "embedder_misconfigured", "invalid_request_error", None),
        (CredentialRejected("key"), 424, "embedder_misconfigured", "invalid_request_error", None),
        (AnswerInvalid("rubbish"), 500, "embedder_answer_invalid", "server_error", None),
        (RuntimeError("secret of ours"), 500, "internal", "server_error", None),
    ],
)
async def test_failures_of_the_embedder_are_the_one_table_s(
    web: Web, http: httpx.AsyncClient, error: Exception, status: int, code: str, kind: str, retry_after: str | None
) -> None:
    web.embedder.failure = error

    answer = await post(http, input="a cat")

    body = refusal(answer, status)
    assert (body["error"]["code"], body["error"]["type"]) == (code, kind)
    assert answer.headers.get("retry-after") == retry_after
    assert "secret of ours" not in answer.text
    if code == "internal":
        assert body["requestId"] in body["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1", 404),
        ("GET", "/v1/embeddings", 405),
        ("POST", "/v1/models", 405),
        ("DELETE", "/v1/v1/embeddings", 404),
    ],
)
async def test_other_paths_and_methods_are_refused_in_the_same_form(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await http.request(method, path)

    refusal(answer, status)
    assert ("allow" in answer.headers) == (status == 405)


async def test_health_metadata_and_version_answer_as_a_nim_s(web: Web, http: httpx.AsyncClient) -> None:
    live, ready = await http.get("/v1/health/live"), await http.get("/v1/health/ready")
    metadata, release = (await http.get("/v1/metadata")).json(), (await http.get("/v1/version")).json()
    web.embedder.failure = EmbedderUnavailable("the GPU is on fire")
    await post(http, input="a cat")
    unready = await http.get("/v1/health/ready")

    assert [(each.status_code, each.json()["object"]) for each in (live, ready)] == [(200, "health.response")] * 2
    assert (unready.status_code, unready.headers["retry-after"]) == (503, "5")
    assert "the GPU is on fire" in unready.json()["message"]
    assert metadata["modelInfo"] == [{"shortName": MODEL, "modelUrl": ""}]
    assert metadata["version"] == release["release"]


@pytest.mark.parametrize("store_answers", [True, False])
async def test_ready_means_over_http_what_the_health_of_embedding_means_over_grpc(
    web: Web, http: httpx.AsyncClient, *, store_answers: bool
) -> None:
    store = SimpleNamespace(available=store_answers)
    health = HealthReporter(cast("Store", store), web.pool, max_watches=1, interval_s=0.01)
    await health.start()

    async def become(http_status: int, grpc_status: int) -> None:
        asked = health_pb2.HealthCheckRequest(service="vecgate.v1.EmbeddingService")
        async with asyncio.timeout(60):
            while (await health.servicer.Check(asked, None)).status != grpc_status:
                await asyncio.sleep(0.01)
        assert (await http.get("/v1/health/ready")).status_code == http_status

    try:
        await become(200, health_pb2.HealthCheckResponse.SERVING)
        web.embedder.failure = EmbedderUnavailable("the GPU is on fire")
        await post(http, input="a cat")
        await become(503, health_pb2.HealthCheckResponse.NOT_SERVING)
    finally:
        await health.drain()


async def test_the_document_and_the_metrics_are_served(http: httpx.AsyncClient) -> None:
    document, metrics = await http.get("/openapi.json"), await http.get("/metrics")

    assert document.json()["openapi"] == "3.1.0"
    assert "/v1/embeddings" in document.json()["paths"]
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "python_info" in metrics.text


async def test_each_request_writes_one_access_line_without_content(http: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        answer = await http.post(
            "/v1/embeddings", json={"model": MODEL, "input": "very private"}, headers={"x-request-id": "mine"}
        )
        own = await post(http, input="very private", secretly=1)
        await http.get("/v1/health/ready")
        await http.get("/very/private?very=private")

    calls = [line for line in lines if line["event"] == "call"]
    assert [line.get("error") for line in calls] == [None, "INVALID_INPUT", "PATH_NOT_FOUND"]
    assert [(line["method"], line["code"]) for line in calls] == [
        ("POST /v1/embeddings", 200),
        ("POST /v1/embeddings", 422),
        ("GET (other)", 404),
    ]
    assert calls[0]["request_bytes"] == len(
        json.dumps({"model": MODEL, "input": "very private"}, separators=(",", ":"))
    )
    assert calls[0]["response_bytes"] == len(answer.content)
    assert "private" not in str(lines)
    assert answer.headers["x-request-id"] == "mine"
    assert len(own.headers["x-request-id"]) == 32


@pytest.mark.parametrize(("length", "kept"), [(128, True), (129, False)])
async def test_a_request_id_that_is_too_long_is_replaced(http: httpx.AsyncClient, length: int, *, kept: bool) -> None:
    answer = await http.get("/v1/health/live", headers={"x-request-id": "x" * length})

    assert (answer.headers["x-request-id"] == "x" * length) == kept


async def test_images_and_texts_reach_the_embedder_as_they_were_sent(web: Web, http: httpx.AsyncClient) -> None:
    web.embedder.calls.clear()

    await post(http, input=[data_uri(PNG), "line one\nline two"])

    ((inputs, _),) = web.embedder.calls
    assert inputs == [ImageInput(PNG), TextInput("line one\nline two", truncate=True)]


async def test_an_image_answer_is_the_same_while_others_are_asked_for(web: Web, http: httpx.AsyncClient) -> None:
    texts = [f"text {number}" for number in range(40)]

    answers = await asyncio.gather(*(post(http, input=[text]) for text in texts))

    expected = np.stack([web.embedder.vector(text) for text in texts])
    np.testing.assert_array_equal(np.concatenate([vectors(each) for each in answers]), expected)
