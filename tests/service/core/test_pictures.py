"""Pictures by reference: how many, how much of them, and for how long they count."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing

import pytest
from prometheus_client import REGISTRY

from embedders.errors import ImageTooLarge
from service.core import pictures
from service.core.objects.checks import DraftObject
from service.core.pictures import AT_ONCE, PART, Pictures
from service.errors import ImageNotServed, ImageUnreachable, ImageUriNotAllowed
from service.process.holding import hold


class Shelf:
    """A source: the URI is the number of bytes, or an error. `gate` holds back all answers."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self, uri: str, *, max_bytes: int, count: Callable[[int], None] | None = None) -> bytes:
        self.asked.append(uri)
        await self.gate.wait()
        assert count is not None
        assert max_bytes > 0
        if uri == "half":
            count(5)
            raise ImageNotServed("it broke")
        count(int(uri))
        return bytes(int(uri))


@pytest.fixture
def held() -> Iterator[list[int]]:
    """What the call holds, in each step."""
    steps: list[int] = []
    token = hold.set(steps.append)
    yield steps
    hold.reset(token)


def drafts(*uris: str) -> list[DraftObject]:
    return [DraftObject(f"objects[{n}]", references={"photo": uri} if uri else {}) for n, uri in enumerate(uris)]


async def test_without_a_source_every_uri_is_refused() -> None:
    (fault,) = (await Pictures().fetch({"here": "https://a.example/"})).values()

    assert isinstance(fault, ImageUriNotAllowed)


async def test_pictures_that_are_fetched_together_have_a_bound(
    monkeypatch: pytest.MonkeyPatch, held: list[int]
) -> None:
    monkeypatch.setattr(pictures, "MAX_TOGETHER_BYTES", 10)

    found = await Pictures(Shelf()).fetch({"a": "6", "b": "4", "c": "1"})

    assert [len(each) if isinstance(each, bytes) else type(each) for each in found.values()] == [6, 4, ImageTooLarge]
    assert sum(held) == 10


async def test_what_broke_off_counts_no_longer(held: list[int]) -> None:
    found = await Pictures(Shelf()).fetch({"a": "half", "b": "3"})

    assert isinstance(found["a"], ImageNotServed)
    assert sum(held) == 3


async def test_pictures_are_embedded_in_parts_of_bounded_bytes(
    monkeypatch: pytest.MonkeyPatch, held: list[int]
) -> None:
    monkeypatch.setattr(pictures, "PART_BYTES", 100)
    uris = {f"{n}": "10" for n in range(3 * AT_ONCE)}
    parts, holding = [], []

    async for part in Pictures(Shelf()).in_parts(uris):
        parts.append(list(part))
        holding.append(sum(held))

    assert [len(each) for each in parts] == [AT_ONCE] * 3
    assert [name for part in parts for name in part] == list(uris)
    assert holding == [10 * AT_ONCE] * 3
    assert sum(held) == 0


async def test_a_part_that_is_not_read_on_counts_no_longer(held: list[int]) -> None:
    async with aclosing(Pictures(Shelf()).in_parts({"a": "10"})) as parts:
        await anext(parts)
        assert sum(held) == 10

    assert sum(held) == 0


async def test_small_pictures_are_embedded_as_many_together_as_a_nim_takes() -> None:
    parts = [part async for part in Pictures(Shelf()).in_parts({f"{n}": "1" for n in range(PART + 3)})]

    assert [len(each) for each in parts] == [PART, 3]


async def test_objects_keep_their_order_and_a_few_are_fetched_ahead(held: list[int]) -> None:
    shelf = Shelf()
    read: list[int] = []

    def counted() -> Iterator[DraftObject]:
        for n, each in enumerate(drafts("", *["1"] * 100)):
            read.append(n)
            yield each

    async with aclosing(Pictures(shelf).filled(counted())) as filled:
        paths = [(await anext(filled)).path for _ in range(10)]

    assert paths == [f"objects[{n}]" for n in range(10)]
    assert len(read) <= 10 + AT_ONCE
    assert len(shelf.asked) <= 10 + AT_ONCE


async def test_objects_that_name_many_pictures_are_fetched_ahead_by_their_pictures() -> None:
    shelf = Shelf()
    many = [DraftObject(f"objects[{n}]", references={f"{i}": "1" for i in range(10)}) for n in range(5)]

    async with aclosing(Pictures(shelf).filled(many)) as filled:
        await anext(filled)

    assert len(shelf.asked) == 20


async def test_no_more_is_fetched_ahead_while_large_pictures_are_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "PART_BYTES", 30)
    waiting = drafts(*["10"] * 100)

    async with aclosing(Pictures(Shelf()).filled(waiting.pop() for _ in range(100))) as filled:
        for _ in range(AT_ONCE - 2):
            await anext(filled)
        assert len(waiting) == 100 - AT_ONCE
        await anext(filled)
        assert len(waiting) < 100 - AT_ONCE


async def test_a_call_that_ends_early_ends_what_was_fetched_ahead() -> None:
    shelf = Shelf()
    shelf.gate.clear()
    filled = Pictures(shelf).filled(drafts("1", "1"))
    first = asyncio.create_task(anext(filled))
    while len(shelf.asked) < 2:
        await asyncio.sleep(0)

    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await filled.aclose()

    assert not [each for each in asyncio.all_tasks() if each is not asyncio.current_task()]


async def test_an_object_says_which_of_its_images_is_missing() -> None:
    draft = DraftObject("objects[3]", references={"a": "2", "b": "half"})

    refused = await Pictures().fill(draft)
    broken = await Pictures(Shelf()).fill(draft)

    assert [(each.field, each.reason) for each in refused.faults] == [
        (f'objects[3].images["{name}"].uri', "IMAGE_URI_NOT_ALLOWED") for name in "ab"
    ]
    assert str(broken.error) == 'objects[3].images["b"].uri: it broke'
    assert broken.images == {"a": bytes(2)}
    assert broken.fetched == 2


class Broken:
    """A source that raises what it is told to."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def fetch(self, uri: str, *, max_bytes: int, count: Callable[[int], None] | None = None) -> bytes:
        del uri, max_bytes, count
        raise self._error


def measured(outcome: str) -> tuple[float, ...]:
    """Return the metrics of fetches: of this outcome, their bytes, and how many were timed."""
    samples = (
        ("vecgate_image_fetches_total", {"outcome": outcome}),
        ("vecgate_image_fetched_bytes_total", {}),
        ("vecgate_image_fetch_seconds_count", {}),
    )
    return tuple(REGISTRY.get_sample_value(name, labels) or 0.0 for name, labels in samples)


async def test_fetched_images_are_counted_with_their_bytes() -> None:
    before = measured("fetched")
    await Pictures(Shelf()).fetch({"a": "6", "b": "4"})

    assert [now - was for now, was in zip(measured("fetched"), before, strict=True)] == [2, 10, 2]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ImageNotServed("x"), "not_served"),
        (ImageUnreachable("x"), "unreachable"),
        (ImageTooLarge("x"), "too_large"),
    ],
)
async def test_fetches_that_fail_are_counted_by_their_outcome(error: Exception, outcome: str) -> None:
    before = measured(outcome)
    await Pictures(Broken(error)).fetch({"a": "https://a.example/"})

    assert [now - was for now, was in zip(measured(outcome), before, strict=True)] == [1, 0, 1]


@pytest.mark.parametrize("source", [Broken(ImageUriNotAllowed("x")), None])
async def test_what_is_not_fetched_at_all_is_counted_and_not_timed(source: Broken | None) -> None:
    before = measured("not_allowed")
    await Pictures(source).fetch({"a": "https://a.example/"})

    assert [now - was for now, was in zip(measured("not_allowed"), before, strict=True)] == [1, 0, 0]
