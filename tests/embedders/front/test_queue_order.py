"""Whose turn it is among calls that wait for an embedder."""

import asyncio
from collections import Counter

import pytest

from embedders.contract import EmbedOptions, Priority, TextInput
from embedders.front.queueing import QueuedCall, WaitingQueue, calling_client

OPTIONS = EmbedOptions(priority=Priority.BULK)
SEARCH = EmbedOptions(priority=Priority.INTERACTIVE)


def call_of(client: str, inputs: int) -> QueuedCall:
    calling_client.set(client)
    return QueuedCall([TextInput("a cat")] * inputs, range(inputs), asyncio.get_running_loop().create_future())


def shares(queue: WaitingQueue, most: int) -> Counter[str]:
    _, places = queue.take(most)
    return Counter(call.client for call, _ in places)


async def test_clients_get_equal_parts_of_a_batch_however_many_calls_they_have() -> None:
    queue = WaitingQueue()
    for _ in range(30):
        queue.add(OPTIONS, call_of("greedy", 10))
    queue.add(OPTIONS, call_of("modest", 40))
    queue.add(OPTIONS, call_of("", 40))

    taken = [shares(queue, 30) for _ in range(4)]

    assert taken == [Counter({"greedy": 10, "modest": 10, "": 10})] * 4
    assert shares(queue, 30) == Counter({"greedy": 30})


async def test_what_others_leave_of_a_batch_is_for_those_who_have_more() -> None:
    queue = WaitingQueue()
    queue.add(OPTIONS, call_of("modest", 1))
    queue.add(OPTIONS, call_of("greedy", 100))

    assert shares(queue, 32) == Counter({"modest": 1, "greedy": 31})


async def test_batches_of_one_go_to_clients_in_turn() -> None:
    queue = WaitingQueue()
    for _ in range(5):
        queue.add(OPTIONS, call_of("greedy", 2))
    queue.add(OPTIONS, call_of("modest", 2))

    turns = ["".join(shares(queue, 1)) for _ in range(6)]

    assert turns == ["greedy", "modest", "greedy", "modest", "greedy", "greedy"]


@pytest.mark.parametrize(
    ("client", "count", "ahead"),
    [
        pytest.param("modest", 2, 4, id="each of two clients in turn"),
        pytest.param("greedy", 1, 1, id="before larger calls of the client"),
        pytest.param("greedy", 10, 300, id="behind calls of the client that are no larger"),
        pytest.param("greedy", 1000, 300, id="never more than wait"),
    ],
)
async def test_what_goes_before_a_call_is_what_has_its_turn_before(client: str, count: int, ahead: int) -> None:
    queue = WaitingQueue()
    nothing = queue.ahead(SEARCH, client, count)
    for _ in range(30):
        queue.add(SEARCH, call_of("greedy", 10))

    assert (nothing, queue.ahead(SEARCH, client, count)) == (0, ahead)


async def test_bulk_work_and_other_lines_go_before_a_call_as_often_as_they_have_their_turn() -> None:
    queue = WaitingQueue()
    queue.add(SEARCH, call_of("", 100))
    alone = queue.ahead(SEARCH, "", 3)
    queue.add(OPTIONS, call_of("", 100))
    beside_bulk = queue.ahead(SEARCH, "", 3)
    queue.add(EmbedOptions(api_key="a caller's own"), call_of("", 100))

    assert (alone, beside_bulk, queue.ahead(SEARCH, "", 3)) == (6, 8, 16)


async def test_a_call_that_is_given_up_leaves_nothing_behind() -> None:
    queue = WaitingQueue()
    calls = [call_of(client, 3) for client in ("one", "two", "two")]
    for call in calls:
        queue.add(OPTIONS, call)

    for call in calls:
        queue.remove(call)

    assert (queue.inputs, queue.bytes, queue.oldest_s()) == (0, 0, None)
    assert list(queue.clear()) == []


class ComparedCall(QueuedCall):
    """A call that counts how often calls are compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        ComparedCall.compared += 1
        return self is other

    __hash__ = object.__hash__


async def test_giving_up_a_call_does_not_look_at_the_others() -> None:
    queue, loop = WaitingQueue(), asyncio.get_running_loop()
    calls = [ComparedCall([TextInput("a cat")], [0], loop.create_future()) for _ in range(500)]
    for call in calls:
        queue.add(OPTIONS, call)

    for call in reversed(calls):
        queue.remove(call)

    assert (queue.inputs, queue.bytes) == (0, 0)
    assert ComparedCall.compared < len(calls)


async def test_what_is_left_of_a_call_is_counted_in_inputs_and_bytes() -> None:
    queue = WaitingQueue()
    one, other = call_of("one", 5), call_of("other", 5)
    queue.add(OPTIONS, one)
    queue.add(OPTIONS, other)

    queue.take(4)
    queue.remove(one)

    assert (queue.inputs, queue.bytes) == (3, 3 * len("a cat"))
