"""Pictures are decoded in processes: what breaks or blocks one of them is one picture's fault, and nobody else's."""

import asyncio
import gc
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from embedders.contract import InputLimits
from embedders.errors import (
    EmbedderUnavailable,
    ImageEmpty,
    ImageTooLarge,
    ImageUndecodable,
    InputRejected,
)
from embedders.images import decoders as pool
from embedders.images.decoder_process import MIB, Job, Result
from embedders.images.decoders import Decoders, _Decoder
from embedders.images.decoding import as_nim_image
from embedders.images.likeness import copies
from embedders.images.pixels import PixelMemory
from embedders.images.scaling import Scaling, scaled
from tests.embedders.conftest import Decoding

LIMITS = InputLimits()
SCALING = Scaling((32, 48))


def picture(shade: int = 90, size: tuple[int, int] = (60, 40), file_format: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).point(lambda each: each + shade).convert("RGB").save(file, file_format)
    return file.getvalue()


def misbehave(content: bytes, *_: Any) -> Result:
    """Do what the content says, as a library might when it reads a picture made for that."""
    match content:
        case b"hang":
            time.sleep(1000)
        case b"spin":
            while True:
                pass
        case b"eat":
            return len(bytearray(2000 * MIB)), b""
        case b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case b"fail":
            raise RuntimeError("unforeseen")
        case b"long":
            return None, bytes(3_000_000)
    return os.getpid(), b""


def poison() -> Job:
    return Job(misbehave, (), 0.2, 500 * MIB)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0)


async def run(decoders: Decoders, content: bytes, *, large: bool = False, keep: object = None) -> Any:
    return (await decoders.run(poison(), content, large=large, ended=pool._picture_ended, keep=keep))[0]


@pytest.fixture
async def decoders(decoding: Decoding) -> AsyncIterator[Decoders]:
    made = Decoders(2)
    yield made
    await made.close()
    assert not decoding()


async def scale(decoders: Decoders, memory: PixelMemory, content: bytes) -> np.ndarray:
    slot = await memory.take()
    await decoders.scale(content, LIMITS, SCALING, slot)
    return slot.view((32, 48, 3), np.uint8)


@pytest.fixture
def memory() -> PixelMemory:
    return PixelMemory(32 * 48 * 3, 250)


async def test_pixels_are_those_that_this_process_would_get(
    decoders: Decoders, memory: PixelMemory, decoding: Decoding
) -> None:
    contents = [picture(shade) for shade in range(20)]

    pixels = await asyncio.gather(*(scale(decoders, memory, each) for each in contents))

    for each, content in zip(pixels, contents, strict=True):
        np.testing.assert_array_equal(each, scaled(content, LIMITS, SCALING))
    assert len(decoding()) == 3  # two, and the one that they are forked from


async def test_what_a_nim_gets_is_what_this_process_would_send(decoders: Decoders) -> None:
    large = picture(size=(3000, 2000), file_format="BMP")
    for content in (picture(), picture(file_format="WEBP"), picture()[:-2], large):
        assert await decoders.nim_image(content, LIMITS) == as_nim_image(content, LIMITS)


async def test_changed_copies_are_those_that_this_process_would_make(decoders: Decoders) -> None:
    assert await decoders.copies(picture(), LIMITS) == copies(picture(), LIMITS)
    with pytest.raises(ImageUndecodable, match="not a picture in JPEG"):
        await decoders.copies(b"no picture", LIMITS)


async def test_texts_are_cleaned(decoders: Decoders) -> None:
    assert await decoders.clean("A caf\u00e9 &amp; a  BAR", "lower") == "a caf\u00e9 & a bar"
    with pytest.raises(InputRejected, match="cannot be read by the model's tokenizer"):
        await decoders.clean(f"&#{'9' * 5000};", "lower")


async def test_errors_of_pictures_keep_their_kind_and_words(decoders: Decoders, memory: PixelMemory) -> None:
    narrow = Scaling((32, 32), "longest")
    file = io.BytesIO()
    Image.new("RGB", (1, 900)).save(file, "PNG")
    with pytest.raises(ImageEmpty, match="no bytes"):
        await scale(decoders, memory, b"")
    with pytest.raises(ImageUndecodable, match="not a picture in JPEG"):
        await scale(decoders, memory, b"no picture")
    with pytest.raises(ImageUndecodable, match="too narrow"):
        await decoders.scale(file.getvalue(), LIMITS, narrow, await memory.take())
    with pytest.raises(ImageTooLarge, match="60 x 40 = 2400 pixels; the limit is 2399"):
        await decoders.nim_image(picture(), InputLimits(max_image_pixels=2399))


async def test_a_file_with_too_many_bytes_reaches_no_process(decoders: Decoders, decoding: Decoding) -> None:
    with pytest.raises(ImageTooLarge, match="the limit is 100"):
        await decoders.nim_image(picture(), InputLimits(max_image_bytes=100))

    assert not decoding()


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"spin", ImageTooLarge, "takes too long"),
        (b"eat", ImageTooLarge, "more than 500 MiB of memory"),
        (b"crash", ImageUndecodable, "ended the process"),
    ],
)
async def test_a_picture_that_a_decoder_cannot_stand_fails_alone_and_by_name(
    decoders: Decoders, memory: PixelMemory, content: bytes, kind: type[InputRejected], words: str
) -> None:
    bad, good = await asyncio.gather(run(decoders, content), scale(decoders, memory, picture()), return_exceptions=True)

    assert type(bad) is kind
    assert words in str(bad)
    assert isinstance(good, np.ndarray)
    assert all(isinstance(each, np.ndarray) for each in [await scale(decoders, memory, picture()) for _ in range(4)])


async def test_a_decoder_that_hangs_is_ended(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    await run(decoders, b"")
    monkeypatch.setattr(pool, "WALL_S", 0.2)

    with pytest.raises(ImageTooLarge, match="takes too long"):
        await run(decoders, b"hang")
    monkeypatch.undo()

    assert isinstance(await run(decoders, b""), int)


async def test_a_decoder_that_was_stopped_is_ended(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    os.kill(await run(decoders, b""), signal.SIGSTOP)
    monkeypatch.setattr(pool, "WALL_S", 0.2)

    with pytest.raises(ImageTooLarge, match="takes too long"):
        await run(decoders, b"")
    monkeypatch.undo()

    assert isinstance(await run(decoders, b""), int)


async def test_a_decoder_that_is_killed_at_work_costs_its_picture_alone(decoders: Decoders) -> None:
    await asyncio.gather(*(run(decoders, b"") for _ in range(2)))
    pids = {await run(decoders, b"")}
    hanging = asyncio.create_task(run(decoders, b"hang"))
    await until(lambda: len(decoders._busy) == 1)
    other = await run(decoders, b"")

    for pid in pids - {other}:
        os.kill(pid, signal.SIGKILL)

    with pytest.raises(ImageUndecodable, match="ended the process that did it; save it again"):
        await hanging
    assert await run(decoders, b"") == other
    assert len(set(await asyncio.gather(*(run(decoders, b"") for _ in range(2))))) == 2


async def test_decoders_that_died_while_they_did_nothing_cost_no_picture(decoders: Decoders) -> None:
    for pid in set(await asyncio.gather(*(run(decoders, b"") for _ in range(2)))):
        os.kill(pid, signal.SIGKILL)
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)

    assert all(isinstance(each, int) for each in await asyncio.gather(*(run(decoders, b"") for _ in range(4))))


async def test_a_picture_given_to_a_decoder_that_was_just_killed_with_its_template_is_read_by_another(
    decoders: Decoders, memory: PixelMemory, monkeypatch: pytest.MonkeyPatch, decoding: Decoding
) -> None:
    before = await scale(decoders, memory, picture())
    killed = decoding()
    for each in killed:
        each.kill()
    psutil.wait_procs(killed)
    # As if the decoder were still ending.
    monkeypatch.setattr(_Decoder, "lives", True)

    after = await scale(decoders, memory, picture())

    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("known", [True, False], ids=["and the system says so", "and the system does not say so yet"])
async def test_a_template_that_died_is_started_again(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    decoder = psutil.Process(await run(decoders, b""))
    template = decoder.parent()
    assert template
    for each in (template, decoder):
        each.kill()
    psutil.wait_procs([template, decoder])
    if not known:
        # A process closes its connections a moment before its parent can learn that it has ended.
        monkeypatch.setattr(subprocess.Popen, "poll", lambda _: None)

    assert isinstance(await run(decoders, b""), int)


async def test_what_nobody_foresaw_is_not_blamed_on_the_picture(decoders: Decoders) -> None:
    with pytest.raises(EmbedderUnavailable, match="misbehave failed in its process: RuntimeError"):
        await run(decoders, b"fail")

    assert isinstance(await run(decoders, b""), int)


async def test_that_no_process_can_be_started_is_not_blamed_on_the_picture(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(EmbedderUnavailable, match="no process for pictures and texts can be started"):
            await run(decoders, b"")

    assert isinstance(await run(decoders, b""), int)


async def test_among_200_pictures_each_poisoned_one_fails_alone(decoders: Decoders, memory: PixelMemory) -> None:
    expected = scaled(picture(), LIMITS, SCALING)
    kinds = {b"spin": "takes too long", b"eat": "MiB", b"crash": "ended the process", b"no picture": "not a picture"}
    poisons = dict(zip(range(7, 200, 12), list(kinds) * 4, strict=False))

    async def one(number: int) -> np.ndarray:
        content = poisons.get(number)
        if content is None or content == b"no picture":
            return await scale(decoders, memory, content or picture())
        return await run(decoders, content)

    outcomes = await asyncio.gather(*(one(number) for number in range(200)), return_exceptions=True)

    for number, outcome in enumerate(outcomes):
        if number in poisons:
            assert isinstance(outcome, InputRejected)
            assert kinds[poisons[number]] in str(outcome)
        else:
            np.testing.assert_array_equal(outcome, expected)


async def test_closing_ends_what_is_at_work_and_what_waits(memory: PixelMemory, decoding: Decoding) -> None:
    decoders = Decoders(2)
    await asyncio.gather(*(run(decoders, b"") for _ in range(2)))
    calls = [asyncio.create_task(run(decoders, b"hang")) for _ in range(5)]
    await until(lambda: len(decoders._busy) == 2)

    await decoders.close()
    await decoders.close()

    for each in calls:
        with pytest.raises(EmbedderUnavailable, match="closed"):
            await each
    with pytest.raises(EmbedderUnavailable, match="closed"):
        await scale(decoders, memory, picture())
    assert not decoding()


class Kept:
    """Something that says when nothing refers to it any more."""

    def __init__(self, gone: list[str]) -> None:
        self._gone = gone

    def __del__(self) -> None:
        self._gone.append("gone")


async def test_what_a_decoder_writes_into_is_kept_until_it_is_done_though_the_caller_left(decoders: Decoders) -> None:
    gone: list[str] = []
    pid = await run(decoders, b"")
    call = asyncio.create_task(run(decoders, b"hang", keep=Kept(gone)))
    await until(lambda: len(decoders._busy) == 1)

    call.cancel()
    await asyncio.wait([call])
    del call
    gc.collect()
    assert not gone

    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while not gone:
            await asyncio.sleep(0.05)
            gc.collect()
    assert isinstance(await run(decoders, b""), int)


async def test_nothing_is_begun_for_callers_that_left(decoders: Decoders) -> None:
    working = [asyncio.create_task(run(decoders, b"hang")) for _ in range(2)]
    gone: list[str] = []
    waiting = asyncio.create_task(run(decoders, b"hang", keep=Kept(gone)))
    await until(lambda: len(decoders._busy) == 2)

    waiting.cancel()
    await asyncio.wait([waiting])
    del waiting
    gc.collect()

    assert gone
    await decoders.close()
    await asyncio.wait(working)
    assert all(each.exception() for each in working)


async def test_large_pictures_leave_a_process_for_small_ones(decoders: Decoders, memory: PixelMemory) -> None:
    large = [asyncio.create_task(run(decoders, b"hang", large=True)) for _ in range(5)]
    await until(lambda: len(decoders._busy) == 1)

    for _ in range(3):
        await scale(decoders, memory, picture())

    assert not any(each.done() for each in large)
    await decoders.close()
    await asyncio.wait(large)
    assert all(each.exception() for each in large)


async def test_the_slot_of_a_rejected_picture_is_free_though_its_error_is_kept(decoders: Decoders) -> None:
    memory, errors = PixelMemory(32 * 48 * 3, 2), []

    async with asyncio.timeout(60):
        for _ in range(5):
            slot = await memory.take()
            with pytest.raises(ImageUndecodable) as caught:
                await decoders.scale(b"no picture", LIMITS, SCALING, slot)
            errors.append((caught.value, slot))


async def test_the_slot_of_a_picture_that_nobody_can_read_is_free_without_a_collection_of_garbage(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = PixelMemory(32 * 48 * 3, 2)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    gc.disable()
    try:
        async with asyncio.timeout(60):
            for _ in range(5):
                with pytest.raises(EmbedderUnavailable):
                    await scale(decoders, memory, picture())
    finally:
        gc.enable()


async def test_long_messages_travel_whole(decoders: Decoders) -> None:
    content = picture(size=(40, 30)).ljust(5_000_000, b"\0")
    assert (await decoders.nim_image(content, LIMITS))[1] == content

    _, body = await decoders.run(poison(), b"long", large=False, ended=pool._picture_ended)
    assert body == bytes(3_000_000)


async def test_the_processes_know_nothing_of_the_server(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch, decoding: Decoding
) -> None:
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__API_KEY", "sesame")
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)

    await asyncio.gather(*(run(decoders, b"") for _ in range(2)))

    assert len(decoding()) == 3
    for each in decoding():
        assert "sesame" not in each.environ().values()
        assert not each.net_connections("inet")
    server.close()
    await server.wait_closed()


SERVER = """
import asyncio
from embedders.images.decoder_process import MIB, Job
from embedders.images.decoders import Decoders, _picture_ended
from tests.embedders.images.test_decoders import misbehave

async def main():
    decoders, long = Decoders(3), Job(misbehave, (), 600, 500 * MIB)
    contents = (b"hang", b"spin", b"hang")
    await asyncio.gather(*(decoders.run(long, each, large=False, ended=_picture_ended) for each in contents))

asyncio.run(main())
"""


def test_a_server_that_is_killed_leaves_no_process_behind() -> None:
    server = subprocess.Popen([sys.executable, "-c", SERVER])
    left: list[psutil.Process] = []
    # The template and three decoders, of which one spins.
    while len(left) < 4 or not any(each.ppid() != server.pid and each.cpu_times().user > 0.1 for each in left):
        time.sleep(0.01)
        left = psutil.Process(server.pid).children(recursive=True)

    server.kill()
    server.wait()

    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive


async def test_closing_while_the_template_tells_how_a_decoder_ended_waits_for_nobody(decoding: Decoding) -> None:
    decoders = Decoders(2)
    template = psutil.Process(await run(decoders, b"")).parent()
    assert template
    template.suspend()
    crashed = asyncio.create_task(run(decoders, b"crash"))
    await asyncio.sleep(0.2)  # it waits for the template now

    closing = asyncio.create_task(decoders.close())
    await asyncio.sleep(0.05)
    template.resume()

    async with asyncio.timeout(60):
        await closing
        with pytest.raises(EmbedderUnavailable, match="closed"):
            await crashed
    assert not decoding()


async def test_a_decoder_that_is_done_while_the_pool_closes_leaves_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoders, ask = Decoders(1), pool._ask
    connections, closing = [], []

    async def close_meanwhile(connection: socket.socket, job: Job, content: bytes) -> tuple[Any, bytes]:
        answer = await ask(connection, job, content)
        connections.append(connection)
        closing.append(asyncio.create_task(decoders.close()))
        await asyncio.sleep(0)
        return answer

    monkeypatch.setattr(pool, "_ask", close_meanwhile)
    assert isinstance(await run(decoders, b""), int)
    await closing[0]

    assert [each.fileno() for each in connections] == [-1]


async def test_calls_that_find_the_template_dead_start_one_together(decoders: Decoders, decoding: Decoding) -> None:
    await asyncio.gather(*(run(decoders, b"") for _ in range(2)))
    for each in decoding():
        each.kill()
        while each.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)

    pids = await asyncio.gather(*(run(decoders, b"") for _ in range(4)))

    assert all(isinstance(each, int) for each in pids)
    assert len({each.ppid() for each in decoding() if each.ppid() != os.getpid()}) == 1


async def test_a_picture_scaled_beforehand_has_the_pixels_that_the_model_would_have_read():
    decoders, content = Decoders(2), picture(size=(600, 400))
    try:
        small = await decoders.scaled_picture(content, LIMITS, SCALING)
    finally:
        await decoders.close()

    assert Image.open(io.BytesIO(small)).size == (48, 32)
    np.testing.assert_array_equal(scaled(small, LIMITS, SCALING), scaled(content, LIMITS, SCALING))
