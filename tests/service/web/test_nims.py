"""The endpoint in front of simulated NIMs of today, which check what they are sent."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import numpy as np
import pytest

from embedders.nim.embedder import NimConfig, NimEmbedder
from tests.conftest import assert_close
from tests.embedders.suite import LIMITS
from tests.fakes.embedder import picture, watched
from tests.fakes.nim import Content, FakeNim, FakePair
from tests.fakes.web import data_uri, running_web

VL = "nvidia/llama-nemotron-embed-vl-1b-v2"
PNG = picture()
PAIR = f"a red bag\n{data_uri(PNG)}"
HTML = f"<img src='{data_uri(PNG)}'>"


@asynccontextmanager
async def serving(nim: FakeNim, *dimensions: int | None) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the endpoint over embedders of one NIM, of which each asks for other dimensions."""
    configs = [
        NimConfig(name=f"nim-{each}", base_url=nim.base_url, dimensions=each, limits=LIMITS, retry_attempts=1)
        for each in dimensions
    ]
    async with AsyncExitStack() as stack:
        web = await stack.enter_async_context(running_web(*(watched(NimEmbedder(each)) for each in configs)))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=web.url, timeout=20))
        nim.forget()
        yield client


async def ask(http: httpx.AsyncClient, **fields: object) -> httpx.Response:
    return await http.post("/v1/embeddings", json={"model": VL} | fields)


def rows(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array([each["embedding"] for each in answer.json()["data"]], np.float32)


@pytest.mark.parametrize("modality", [None, ["text_image", "text", "image"]])
async def test_texts_pictures_and_both_as_one_input_reach_the_nim_as_what_they_are(modality: list[str] | None) -> None:
    async with FakeNim(model=VL) as nim, serving(nim, None) as http:
        found = rows(await ask(http, input=[PAIR, "a bag", data_uri(PNG)], modality=modality, input_type="passage"))

        contents: list[Content] = [FakePair("a red bag", PNG), "a bag", PNG]
        assert_close(found, np.stack([nim.vector(each, "passage") for each in contents]))


async def test_what_is_declared_a_text_is_one_for_the_nim_too() -> None:
    async with FakeNim(model=VL) as nim, serving(nim, None) as http:
        refused = await ask(http, input=HTML)
        found = rows(await ask(http, input=[HTML, PAIR], modality="text"))

        assert (refused.status_code, refused.json()["error"]["param"]) == (422, "input[0]")
        assert_close(found, np.stack([nim.vector(HTML, "query"), nim.vector(PAIR, "query")]))


async def test_dimensions_choose_the_embedder_that_asks_the_nim_for_them() -> None:
    async with FakeNim(model=VL) as nim, serving(nim, None, 8) as http:
        whole, cut = await ask(http, input="a bag"), await ask(http, input="a bag", dimensions=8)
        by_space = await ask(http, input="a bag", model=f"{VL}@8")
        none = await ask(http, input="a bag", dimensions=4)
        listed = (await http.get("/v1/models")).json()["data"]

        assert_close(rows(whole)[0], nim.vector("a bag", "query"))
        assert_close(rows(cut)[0], nim.vector("a bag", "query", 8))
        assert_close(rows(by_space), rows(cut))
    assert [each.headers["vecgate-space"] for each in (whole, cut)] == [VL, f"{VL}@8"]
    assert [each["id"] for each in listed] == [VL, f"{VL}@8"]
    assert none.json()["message"] == f"dimensions: is 4; {VL} has 8, 16 on this server"


@pytest.mark.parametrize(("truncate", "kept"), [("END", "one two"), ("START", "two three")])
async def test_the_nim_cuts_a_text_where_the_caller_says(truncate: str, kept: str) -> None:
    async with FakeNim(model=VL, max_words=2) as nim, serving(nim, None) as http:
        found = rows(await ask(http, input="one two three", truncate=truncate))
        refused = await ask(http, input=["one", "one two three"], truncate="NONE")

        assert_close(found[0], nim.vector(kept, "query"))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input[1]")


async def test_nvclip_s_requests_stay_within_its_schema_whatever_the_caller_sends() -> None:
    fields = {"model": "nvidia/nvclip", "input_type": "passage", "truncate": "END", "modality": ["text", "image"]}
    async with FakeNim(model="nvidia/nvclip") as nim, serving(nim, None) as http:
        found = rows(await ask(http, input=["a bag", data_uri(PNG)], user="me", **fields))
        many = rows(await ask(http, input=[f"text {each}" for each in range(200)], model="nvidia/nvclip"))
        at_start = await ask(http, input="a bag", model="nvidia/nvclip", truncate="START")

        assert_close(found, np.stack([nim.vector("a bag"), nim.vector(PNG)]))
        assert_close(many[199], nim.vector("text 199"))
    assert "cuts no text at its start" in at_start.json()["message"]
    assert at_start.json()["error"]["param"] == "input[0]"


async def test_a_nim_whose_model_is_not_known_yet_is_asked_for_by_its_name_only() -> None:
    async with FakeNim(model=VL) as nim:
        address = nim.base_url
    lost = NimConfig(name="lost", base_url=address, limits=LIMITS, retry_attempts=1)
    async with running_web(watched(NimEmbedder(lost))) as web, httpx.AsyncClient(base_url=web.url) as http:
        models = (await http.get("/v1/models")).json()["data"]
        by_model, by_name, by_role = [await ask(http, input="a bag", model=each) for each in (VL, "lost", "-query")]

    assert models == []
    assert (by_name.status_code, by_name.json()["error"]["code"]) == (503, "embedder_unavailable")
    for each in (by_model, by_role):
        assert (each.status_code, each.json()["error"]["param"]) == (422, "model")
    assert by_model.json()["message"].endswith("it has: none, because no embedder has answered yet")
