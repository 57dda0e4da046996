"""Memory that processes share: one writes, another one reads, and nothing of it is left behind."""

import asyncio
import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from embedders.errors import EmbedderUnavailable
from embedders.images.pixels import PixelMemory, Place, Slot, opened

SHAPE = (2, 3, 3)


def run(code: str, *arguments: object) -> str:
    """Run code in another process, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


WRITING = """
import json, sys
from embedders.images.pixels import Place, opened
array = opened(Place(*json.loads(sys.argv[1])), int(sys.argv[2]), (2, 3, 3), "uint8")
array[...] += 7
print(array[1, 2, 2], array.flags.writeable)
"""


async def test_what_another_process_writes_is_read_here_and_the_reverse() -> None:
    memory = PixelMemory(18, 3)
    slots = [await memory.take() for _ in range(3)]
    for slot in slots:
        slot.view(SHAPE, np.uint8)[...] = slot.index

    written = run(WRITING, json.dumps(memory.place), 1)

    assert written == "8 True"
    assert [int(slot.view(SHAPE, np.uint8).sum()) for slot in slots] == [0, 18 * 8, 18 * 2]
    memory.close()


async def test_floats_may_stand_where_pixels_stood() -> None:
    memory = PixelMemory(6, 1)
    slot = await memory.take()
    slot.view((6,), np.uint8)[...] = 1

    slot.view((1,), "<f4")[...] = 0.5

    assert opened(memory.place, 0, (1,), np.float32)[0] == 0.5
    memory.close()


async def test_an_array_larger_than_a_slot_is_refused() -> None:
    memory = PixelMemory(64, 2)
    slot = await memory.take()
    with pytest.raises(ValueError, match="65 bytes does not fit into a slot of 64"):
        slot.view((65,), np.uint8)
    with pytest.raises(ValueError, match="65 bytes"):
        opened(memory.place, 0, (65,), np.uint8)
    memory.close()


async def test_a_slot_is_free_again_when_nothing_refers_to_it() -> None:
    memory = PixelMemory(1, 1)
    slot = await memory.take()
    view = slot.view((1,), np.uint8)
    next_one = asyncio.create_task(memory.take())

    del slot
    gc.collect()
    await asyncio.sleep(0)
    assert not next_one.done()
    part = view[:1]
    del view
    await asyncio.sleep(0)
    assert not next_one.done()
    del part

    assert (await next_one).index == 0
    memory.close()


async def test_a_released_slot_is_free_once() -> None:
    memory = PixelMemory(1, 2)
    first, second = await memory.take(), await memory.take()
    first.release()
    first.release()
    del first

    third = await memory.take()
    waiting = asyncio.create_task(memory.take())
    await asyncio.sleep(0)

    assert {second.index, third.index} == {0, 1}
    assert not waiting.done()
    waiting.cancel()
    memory.close()


async def test_slots_are_given_in_the_order_of_the_calls() -> None:
    memory = PixelMemory(1, 1)
    held: list[Slot] = [await memory.take()]
    order: list[int] = []

    async def wait(number: int) -> None:
        slot = await memory.take()
        order.append(number)
        slot.release()

    waiting = [asyncio.create_task(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    held.pop()
    await asyncio.gather(*waiting)

    assert order == [0, 1, 2, 3, 4]
    memory.close()


async def test_what_was_freed_last_is_taken_next_so_that_no_more_memory_is_used_than_needed() -> None:
    memory = PixelMemory(1, 100)
    first, second = await memory.take(), await memory.take()
    taken = {first.index, second.index}
    first.release()

    for _ in range(100):
        slot = await memory.take()
        taken.add(slot.index)
        slot.release()

    assert taken == {0, 1}
    memory.close()


async def test_calls_that_are_cancelled_lose_no_slot() -> None:
    memory = PixelMemory(1, 1)
    slot = await memory.take()
    before, at_once, after = (asyncio.create_task(memory.take()) for _ in range(3))
    await asyncio.sleep(0)

    before.cancel()
    slot.release()
    await asyncio.sleep(0)
    # The slot is already its own, and it has not run since.
    at_once.cancel()

    assert (await after).index == 0
    assert [each.cancelled() for each in (before, at_once)] == [True, True]
    memory.close()


async def test_a_slot_may_be_freed_by_any_thread() -> None:
    memory = PixelMemory(1, 1)
    slot = await memory.take()
    waiting = asyncio.create_task(memory.take())
    await asyncio.sleep(0)

    thread = threading.Thread(target=slot.release)
    thread.start()

    assert (await waiting).index == 0
    thread.join()
    memory.close()


async def test_closing_fails_those_that_wait_and_keeps_what_is_taken() -> None:
    memory = PixelMemory(4, 1)
    slot = await memory.take()
    view = slot.view((4,), np.uint8)
    waiting = asyncio.create_task(memory.take())
    await asyncio.sleep(0)

    memory.close()
    memory.close()

    with pytest.raises(EmbedderUnavailable):
        await waiting
    with pytest.raises(EmbedderUnavailable):
        await memory.take()
    view[...] = 3
    assert slot.view((4,), np.uint8).sum() == 12
    with pytest.raises(FileNotFoundError):
        opened(memory.place, 0, (4,), np.uint8)


async def test_another_memory_at_the_same_path_is_not_taken_for_the_first() -> None:
    first = PixelMemory(1, 1)
    number = int(first.place.path.rpartition("/")[2])
    first.close()
    second = PixelMemory(1, 1)
    other = int(second.place.path.rpartition("/")[2])
    if other != number:  # a lower one was free
        os.dup2(other, number)

    with pytest.raises(OSError, match=re.escape(first.place.path)):
        opened(first.place, 0, (1,), np.uint8)
    assert opened(second.place._replace(path=first.place.path), 0, (1,), np.uint8)[0] == 0
    second.close()
    if other != number:
        os.close(number)


HOLDING = """
import asyncio, json, sys
from embedders.images.pixels import PixelMemory
memory = PixelMemory(1 << 20, 8)
slot = asyncio.run(memory.take())
slot.view((1 << 20,), "uint8")[...] = 1
print(json.dumps(memory.place), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a temporary file is left behind elsewhere")
def test_a_killed_process_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout
    assert process.stdin
    place = Place(*json.loads(process.stdout.readline()))
    assert opened(place, 0, (1,), np.uint8)[0] == 1

    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()

    assert not Path(place.path).exists()
    assert list(tmp_path.iterdir()) == []
