"""Calls that wait in a BatchingEmbedder's queue, and what the backend behind it got."""

import asyncio
from collections.abc import Sequence

from embedders.contract import QUERY, EmbedOptions, Input, Outcome, TextInput
from embedders.front.batching import BatchingEmbedder
from embedders.front.queueing import QueueBounds
from tests.fakes.embedder import FakeEmbedder


def bounds(max_inputs: int, max_bytes: int = 10**9) -> QueueBounds:
    return QueueBounds(max_inputs=max_inputs, max_bytes=max_bytes)


def texts(name: str, number: int) -> list[Input]:
    return [TextInput(f"{name} {at}") for at in range(number)]


def batches(inner: FakeEmbedder) -> list[list[str]]:
    """Return the texts of each batch that the backend got."""
    return [[each.text for each in inputs if isinstance(each, TextInput)] for inputs, _ in inner.calls]


async def occupy(embedder: BatchingEmbedder, inner: FakeEmbedder) -> asyncio.Task[list[Outcome]]:
    """Let one call sit in the backend, so that later ones wait; `inner.gate` lets it go."""
    inner.gate = asyncio.Event()
    inner.entered.clear()
    call = asyncio.create_task(embedder.embed(texts("first", 1), QUERY))
    await inner.entered.wait()
    inner.entered.clear()
    return call


async def call(
    embedder: BatchingEmbedder, inputs: Sequence[Input], options: EmbedOptions = QUERY
) -> asyncio.Task[list[Outcome]]:
    """Begin a call and let it take its place."""
    task = asyncio.create_task(embedder.embed(inputs, options))
    await asyncio.sleep(0)
    return task


def release(inner: FakeEmbedder) -> None:
    assert inner.gate is not None
    inner.gate.set()
