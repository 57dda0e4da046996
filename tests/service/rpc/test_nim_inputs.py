"""Inputs from a gRPC request to a NIM that checks them strictly: a text is a text, whatever it holds."""

from collections.abc import AsyncIterator

import numpy as np
import pytest

from embedders.factory import build_embedder
from embedders.front.queueing import QueueBounds
from embedders.nim.embedder import NimConfig
from tests.conftest import assert_close
from tests.fakes.embedder import picture
from tests.fakes.nim import FakeNim, FakePair
from tests.service.conftest import Wire, start_wire, stop_wire, unpack
from tests.service.rpc.objects.test_import import import_, obj
from tests.service.rpc.search.test_search import search
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as pb
from vecgate.v1.input_pb2 import Image, Input, TextImage

NEMOTRON = "nvidia/Nemotron-3.5-Embed-1B-BF16"
RED, BLUE = picture((255, 0, 0)), picture((0, 0, 255))
URL = "data:image/png;base64,iVBORw0KGgo="
TEXTS = [URL, f"see {URL}", f"<img src='{URL}'> and\nmore", f"a\n{URL}", "DATA:IMAGE/PNG;BASE64,AAAA"]


@pytest.fixture
async def nim() -> AsyncIterator[FakeNim]:
    async with FakeNim(model=NEMOTRON) as running:
        yield running


async def start(nim: FakeNim) -> Wire:
    """Start a server in front of a NIM."""
    bounds = QueueBounds(max_inputs=100, max_bytes=10**9)
    wire = await start_wire(build_embedder(NimConfig(base_url=nim.base_url), bounds=bounds))  # type: ignore[arg-type]
    nim.forget()
    return wire


@pytest.fixture
async def wire(nim: FakeNim) -> AsyncIterator[Wire]:
    """A server in front of a NIM that reads a text and an image as one input."""
    running = await start(nim)
    yield running
    await stop_wire(running)


def pair(text: str, image: bytes) -> Input:
    return Input(text_image=TextImage(text=text, image=Image(content=image)))


async def embed(wire: Wire, *inputs: Input, purpose: pb.Purpose.ValueType) -> list[np.ndarray]:
    response = await wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=inputs, purpose=purpose))
    for each in response.results:
        assert each.HasField("embedding"), each
    return [np.frombuffer(each.embedding.vector.data, "<f4") for each in response.results]


@pytest.mark.parametrize(("purpose", "role"), [(pb.PURPOSE_QUERY, "query"), (pb.PURPOSE_DOCUMENT, "passage")])
async def test_texts_with_data_urls_are_texts_and_images_alone_or_with_a_text_are_documents(
    wire: Wire, nim: FakeNim, purpose: pb.Purpose.ValueType, role: str
) -> None:
    inputs = [*(Input(text=each) for each in TEXTS), Input(image=Image(content=RED)), pair("a red square", RED)]

    *texts, image, both = await embed(wire, *inputs, purpose=purpose)

    for text, vector in zip(TEXTS, texts, strict=True):
        assert_close(vector, nim.vector(text, role))
    assert_close(image, nim.vector(RED, "passage"))
    assert_close(both, nim.vector(FakePair("a red square", RED), "passage"))


@pytest.mark.parametrize("text", TEXTS)
async def test_a_data_url_in_the_text_of_a_pair_is_no_second_image(wire: Wire, nim: FakeNim, text: str) -> None:
    (vector,) = await embed(wire, pair(text, RED), purpose=pb.PURPOSE_DOCUMENT)

    (request,) = nim.requests
    assert request["modality"] in ("text_image", ["text_image"])
    # The NIM would take it for an image, so a space breaks it.
    (item,) = request["input"]
    sent = item.rpartition("\ndata:image")[0]
    assert sent.replace(": ", ":") == text.replace(": ", ":")
    assert_close(vector, nim.vector(FakePair(sent, RED), "passage"))


async def test_the_query_s_pair_finds_the_object_of_the_same_pair(wire: Wire, nim: FakeNim) -> None:
    await wire.create_pictures(combination=collection_pb.COMBINATION_JOINT_INPUT)
    await import_(wire, obj(image=RED, title="a red square"), obj(image=BLUE, title=f"blue {URL}"), obj(title=URL))
    given = {"text_image": {"text": "a red square", "image": {"content": RED}}}

    pairs = await wire.search.SearchObjects(search(near_inputs={"inputs": [given]}, limit=1))
    texts = await wire.search.SearchObjects(search(near_text={"concepts": [URL]}, limit=1))

    assert_close(pairs.hits[0].distance, 0)
    assert pairs.hits[0].object.properties["title"] == "a red square"
    assert texts.hits[0].object.properties["title"] == URL
    assert {request["input_type"] for request in nim.requests if "text_image" in request["modality"]} == {"passage"}


@pytest.mark.parametrize("model", ["nvidia/nvclip", "nvidia/nv-embedqa-e5-v5"])
async def test_what_a_family_does_not_read_fails_alone_by_name_and_makes_no_request(model: str) -> None:
    async with FakeNim(model=model) as nim:
        wire = await start(nim)
        inputs = [Input(text=URL), pair("a", RED), Input(image=Image(content=RED))]
        response = await wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=inputs))
        sent = [item for request in nim.requests for item in request["input"]]
        await stop_wire(wire)

    text, both, image = response.results
    reads_images = model == "nvidia/nvclip"
    assert text.HasField("embedding")
    assert image.HasField("embedding") is reads_images
    assert len(sent) == 1 + reads_images
    assert f"the model {model} of embedder nim reads" in unpack(both.error).message
