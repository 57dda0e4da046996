"""The tests of the client's calls run on the blocking client and on the asyncio client."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial, wraps
from typing import Any

import pytest

from vecgate.client import AsyncClient, Client

Connect = Callable[..., AbstractContextManager[Client]]


class Driven:
    """An asyncio client whose calls block, so that it is used like the blocking one."""

    def __init__(self, runner: asyncio.Runner, client: AsyncClient) -> None:
        self._runner = runner
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        @wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            answer = method(*arguments, **options)
            return self._each(answer) if inspect.isasyncgen(answer) else self._runner.run(answer)

        return call

    def _each(self, answers: AsyncGenerator[Any, None]) -> Iterator[Any]:
        try:
            while True:
                # run() takes coroutines only, and not every awaitable is one.
                yield self._runner.run(_next(answers))
        except StopAsyncIteration:
            return
        finally:
            self._runner.run(answers.aclose())


async def _next(answers: AsyncGenerator[Any, None]) -> Any:
    return await anext(answers)


@contextmanager
def driven(address: str, **options: Any) -> Iterator[Driven]:
    """Connect an asyncio client in its own event loop."""

    async def connect() -> AsyncClient:
        return AsyncClient(address, **options)

    with asyncio.Runner() as runner:
        client = runner.run(connect())
        yield Driven(runner, client)
        runner.run(client.close())


@pytest.fixture(params=[Client, driven], ids=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Connects a client of either kind to an address."""
    return partial(request.param)
