"""What the decoders by themselves can do: pictures a second, from files to the pixels that the model reads.

Run as: python -m tests.gpu_check.decoding SIDE SECONDS KIND...
"""

import asyncio
import os
import sys
import time

import numpy as np

from embedders.contract import InputLimits
from embedders.images.decoders import Decoders
from embedders.images.pixels import PixelMemory
from embedders.images.scaling import Scaling
from tests.gpu_check.children import say
from tests.gpu_check.inputs import Inputs

JPEG_DRAFT_FACTOR = 4
"""The service's own."""

AT_ONCE = 2 * (os.cpu_count() or 1)
"""Pictures at the same time: enough that no decoder waits."""


async def main(side: int, seconds: float, kinds: list[str]) -> None:
    """Measure each kind of picture."""
    scaling = Scaling((side, side), "shortest", "bicubic", 0, JPEG_DRAFT_FACTOR * side)
    decoders, memory = Decoders(), PixelMemory(side * side * 3, AT_ONCE)
    try:
        for kind in kinds:
            inputs = Inputs(kind, side=side)
            await rate(decoders, memory, scaling, inputs, seconds / 3)  # starts the processes
            found = await rate(decoders, memory, scaling, inputs, seconds)
            say(part="decoders", kind=kind, rate=found, processes=os.cpu_count())
    finally:
        await decoders.close()
        memory.close()


async def rate(decoders: Decoders, memory: PixelMemory, scaling: Scaling, inputs: Inputs, seconds: float) -> float:
    """Return the pictures a second that callers of the decoders get together."""
    done, began_s = 0, time.perf_counter()

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() - began_s < seconds:
            content = inputs.one()
            assert isinstance(content, bytes)
            slot = await memory.take()
            await decoders.scale(content, InputLimits(), scaling, slot)
            assert slot.view((*scaling.size, 3), np.uint8).any()
            slot.release()
            done += 1

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return done / (time.perf_counter() - began_s)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
