"""The blocking and the asyncio client are one: `make protos` generates the first from the second."""

import asyncio
import inspect
import re
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.server import FakeVecgate, serving
from vecgate import client as client_module
from vecgate.client import AsyncClient, Client, Object


def calls(client: type) -> dict[str, Any]:
    return {name: method for name, method in inspect.getmembers(client, inspect.isfunction) if name[0] != "_"}


def test_every_call_of_one_is_a_call_of_the_other() -> None:
    assert calls(Client).keys() == calls(AsyncClient).keys()
    assert len(calls(Client)) > 20


@pytest.mark.parametrize("name", ["__init__", *calls(Client)])
def test_both_take_the_same(name: str) -> None:
    blocking = inspect.signature(getattr(Client, name))
    awaited = inspect.signature(getattr(AsyncClient, name))

    parameters = [(each.name, each.kind, each.default) for each in blocking.parameters.values()]
    assert parameters == [(each.name, each.kind, each.default) for each in awaited.parameters.values()]
    answer = str(blocking.return_annotation).replace(", None, None]", ", None]")
    assert answer == re.sub(r"\bAsync(?=[A-Z])", "", str(awaited.return_annotation))


@pytest.mark.parametrize("name", calls(Client))
def test_an_asyncio_call_is_awaited_or_iterated(name: str) -> None:
    method = calls(AsyncClient)[name]

    assert inspect.iscoroutinefunction(method) != inspect.isasyncgenfunction(method)
    assert inspect.isgeneratorfunction(calls(Client)[name]) == inspect.isasyncgenfunction(method)


def test_both_are_public() -> None:
    assert {"AsyncClient", "Client"} <= set(client_module.__all__)


async def test_an_asyncio_import_takes_an_asynchronous_generator_and_calls_run_side_by_side() -> None:
    async def objects() -> AsyncIterator[Object]:
        for number in range(5):
            await asyncio.sleep(0)
            yield Object({"title": str(number)})

    with serving(FakeVecgate()) as fake:
        fake.add_collection("Pictures")
        async with AsyncClient(fake.address) as client:

            async def stored() -> int:
                return sum(
                    [each.stored async for each in client.import_objects("Pictures", objects(), chunk_objects=2)]
                )

            count, embedded = await asyncio.gather(stored(), client.embed(["a", "b"]))

    assert (count, embedded.matrix().shape) == (5, (2, 4))


async def test_an_import_that_is_closed_has_cancelled_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    released, calls = threading.Event(), []
    with serving(FakeVecgate()) as fake:
        fake.add_collection("Pictures")
        fake.refuse = lambda each: None if each.properties["title"] == "0" else released.wait(10) and None
        async with AsyncClient(fake.address) as client:
            send = client._object.ImportObjects

            def noted(*arguments: Any, **options: Any) -> Any:
                calls.append(send(*arguments, **options))
                return calls[-1]

            monkeypatch.setattr(client._object, "ImportObjects", noted)
            each = (Object({"title": str(number)}) for number in range(9))
            outcomes = client.import_objects("Pictures", each, chunk_objects=1)
            assert (await anext(outcomes)).stored
            await outcomes.aclose()

            assert [call.cancelled() for call in calls] == [False, True, True, True]
            released.set()


async def test_a_cancelled_import_cancels_its_calls_and_leaves_the_client_usable() -> None:
    released = threading.Event()
    with serving(FakeVecgate()) as fake:
        fake.add_collection("Pictures")
        fake.refuse = lambda _: released.wait(10) and None
        async with AsyncClient(fake.address) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    [each async for each in client.import_objects("Pictures", [Object({"title": "a"})])]
            released.set()

            assert (await client.embed("a")).matrix().shape == (1, 4)
