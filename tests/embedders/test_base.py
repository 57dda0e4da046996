"""What embedders have in common."""

import asyncio

import pytest

from embedders.base import Lifetime
from embedders.errors import EmbedderUnavailable


async def test_a_lifetime_may_be_ended_again_while_its_calls_still_end() -> None:
    life, begun, ending, may_end = Lifetime("slow"), asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def call() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await may_end.wait()

    running = asyncio.ensure_future(life.run(call()))
    await begun.wait()
    first = asyncio.ensure_future(life.end())
    await ending.wait()
    second = asyncio.ensure_future(life.end())
    await asyncio.sleep(0)
    waited = not first.done() and not second.done()
    may_end.set()
    async with asyncio.timeout(60):
        await asyncio.gather(first, second)

    assert waited
    with pytest.raises(EmbedderUnavailable, match="slow is closed"):
        await running
