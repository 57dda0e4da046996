"""Pictures on their way to a NIM: however many and large, requests and memory stay within their bounds."""

import asyncio
import contextlib
import io
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp.http_writer import StreamWriter
from PIL import Image

from embedders.contract import DOCUMENT, QUERY, ImageInput, Input, TextInput
from embedders.factory import build_embedder
from embedders.front.queueing import QueueBounds
from embedders.nim.connection import PIECE_BYTES, ConnectionConfig, NimConnection
from embedders.nim.embedder import NimConfig, NimEmbedder
from tests.embedders.nim.starting import start_learnt
from tests.embedders.suite import BLUE, CAT, DOG, RED, vectors
from tests.fakes.embedder import picture
from tests.fakes.nim import FakeNim

MAX_GROWTH_MIB = 900
"""Two photos are decoded at a time, in 180 MiB each, what is ready to be sent is some 50 MiB, and allocators keep some
of what four threads had. PNGs of all photos in full size, in base64 and in a request's body, would take twice that."""


@pytest.fixture
def config(nim: FakeNim) -> NimConfig:
    return NimConfig(base_url=nim.base_url, model=nim.model, retry_attempts=1)


@contextlib.asynccontextmanager
async def running(config: NimConfig, nim: FakeNim) -> AsyncIterator[NimEmbedder]:
    embedder = NimEmbedder(config)
    await start_learnt(embedder, nim)
    try:
        yield embedder
    finally:
        await embedder.close()


def photo() -> ImageInput:
    """Return a WebP of a few hundred kB that no PNG packs well."""
    noise = np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((4000, 3000), Image.Resampling.BICUBIC).save(file, "WEBP", quality=1, method=0)
    return ImageInput(file.getvalue())


def peak_mib(*, forget: bool = False) -> float:
    """Return the most memory that this process had; since it was last forgotten."""
    if forget:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) / 1024


def sizes(nim: FakeNim) -> list[int]:
    """Return the bytes of the items of each request."""
    return [sum(len(item) + 2 for item in request["input"]) for request in nim.requests]


async def test_photos_that_have_to_be_converted_take_bounded_memory_and_requests(
    nim: FakeNim, config: NimConfig
) -> None:
    photos = [photo()] * 12
    before = peak_mib(forget=True)

    async with running(config, nim) as embedder:
        outcomes = vectors(await embedder.embed(photos, DOCUMENT))

    assert peak_mib() - before < MAX_GROWTH_MIB
    assert len(outcomes) == len(photos)
    assert max(sizes(nim)) <= config.max_request_bytes
    # Two million pixels in three bytes, in base64, and what a PNG has beside.
    assert max(len(item) for request in nim.requests for item in request["input"]) < 8_100_000


async def test_requests_are_cut_by_bytes_and_a_larger_input_goes_alone(nim: FakeNim, config: NimConfig) -> None:
    texts = [letter * size for letter, size in zip("abcdefg", (50, 40, 8, 1, 200, 60, 30), strict=True)]

    async with running(replace(config, max_request_bytes=100), nim) as embedder:
        outcomes = vectors(await embedder.embed([TextInput(each) for each in texts], DOCUMENT))

    assert ["".join(item[0] for item in request["input"]) for request in nim.requests] == ["ab", "cd", "e", "fg"]
    np.testing.assert_array_equal(outcomes, np.stack([nim.vector(each) for each in texts]))


async def test_outcomes_stay_in_order_where_pictures_and_faults_are_among_many_inputs(
    nim: FakeNim, config: NimConfig
) -> None:
    inputs: list[Input] = [CAT, RED, TextInput(" "), BLUE, ImageInput(b"x"), DOG] * 5

    async with running(replace(config, max_request_bytes=1000), nim) as embedder:
        outcomes = await embedder.embed(inputs, DOCUMENT)

    for start in range(0, len(inputs), 6):
        cat, red, blank, blue, broken, dog = outcomes[start : start + 6]
        expected = [CAT.text, RED.content, BLUE.content, DOG.text]
        np.testing.assert_array_equal(vectors([cat, red, blue, dog]), np.stack([nim.vector(each) for each in expected]))
        assert [type(each).__name__ for each in (blank, broken)] == ["InputRejected", "ImageUndecodable"]


async def test_a_text_never_waits_for_the_pictures_of_others_to_be_read(
    nim: FakeNim, config: NimConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = asyncio.Event()

    async def read(self: Any, inputs: Any, options: Any, original: Any = NimEmbedder._embed_batch) -> Any:
        if any(isinstance(each, ImageInput) for each in inputs):
            await pictures.wait()
        return await original(self, inputs, options)

    monkeypatch.setattr(NimEmbedder, "_embed_batch", read)
    embedder = build_embedder(config, bounds=QueueBounds(max_inputs=100, max_bytes=2**20))
    await start_learnt(embedder, nim)
    async with asyncio.timeout(60):
        slow = asyncio.create_task(embedder.embed([RED, BLUE], QUERY))

        outcomes = await embedder.embed([CAT], QUERY)

        pictures.set()
        assert len(vectors([*await slow, *outcomes])) == 3
    await embedder.close()


async def test_a_large_body_goes_out_in_pieces_of_a_length_that_was_told(
    nim: FakeNim, config: NimConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, pieces = StreamWriter.write, []

    async def watched(self: StreamWriter, chunk: bytes, **options: Any) -> None:
        pieces.append(bytes(chunk))
        await write(self, chunk, **options)

    monkeypatch.setattr(StreamWriter, "write", watched)
    content = [b'{"input":["', b"x" * (3 * PIECE_BYTES + 5), b'"]}']
    connection = NimConnection(ConnectionConfig(base_url=config.base_url))
    connection.open()

    await connection.ask("POST", "/v1/embeddings", content, max_bytes=100_000, timeout_s=5)

    await connection.close()
    ((_, headers),) = nim.heads
    assert b"".join(pieces) == b"".join(content)
    assert max(map(len, pieces)) == PIECE_BYTES
    assert headers["content-length"] == str(sum(map(len, content)))
    assert "transfer-encoding" not in headers


async def test_a_large_body_arrives_whole_over_a_real_connection(nim: FakeNim, config: NimConfig) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (800, 700, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")

    async with running(config, nim) as embedder:
        outcomes = vectors(await embedder.embed([ImageInput(file.getvalue()), ImageInput(picture())], QUERY))

    np.testing.assert_array_equal(outcomes[0], nim.vector(file.getvalue()))
    (head,) = [headers for line, headers in nim.heads if line.startswith("POST")]
    assert int(head["content-length"]) > 2_000_000
    assert "transfer-encoding" not in head
