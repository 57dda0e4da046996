"""The embedder in this process, with the processes that run the model and those that decode, but without a service.

Run as: python -m tests.gpu_check.embedder FOLDER PRECISION DEVICE SECONDS SIDE BY. BY is eager or graphs.
"""

import asyncio
import sys
import time
from typing import Any

from embedders.clip import ClipConfig, ClipEmbedder
from embedders.contract import DOCUMENT, Embedding, ImageInput, Input, TextInput
from tests.gpu_check.children import say, time_for
from tests.gpu_check.gpu import GpuLoad
from tests.gpu_check.inputs import Inputs

LOADS = ((1, 1), (32, 1), (32, 6))
"""Inputs of a call, and callers."""


async def main(folder: str, precision: Any, device: str, seconds: float, side: int, by: str) -> None:
    """Measure an embedder."""
    config = ClipConfig(model=folder, device=device, precision=precision, graphs=by == "graphs")
    embedder = ClipEmbedder(config)
    began_s = time.perf_counter()
    try:
        await embedder.start()
        say(part="embedder started", by=by, seconds=time.perf_counter() - began_s)
        for kind in ("png", "texts"):
            inputs = Inputs(kind, side=side)
            for count, callers in LOADS:
                load = {"part": "embedder", "by": by, "kind": kind, "inputs": count, "callers": callers}
                if not time_for(3 * seconds, **load):
                    continue
                await rate(embedder, inputs, count, callers, seconds / 3)
                with GpuLoad() as gpu:
                    found = await rate(embedder, inputs, count, callers, seconds)
                say(**load, rate=found, gpu_busy=gpu.busy)
    finally:
        await embedder.close()


async def rate(embedder: ClipEmbedder, inputs: Inputs, count: int, callers: int, seconds: float) -> float:
    """Return the inputs a second that callers get together, who each send so many at once."""
    done, began_s = 0, time.perf_counter()

    def one() -> Input:
        each = inputs.one()
        return TextInput(each) if isinstance(each, str) else ImageInput(each)

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() - began_s < seconds:
            outcomes = await embedder.embed([one() for _ in range(count)], DOCUMENT)
            assert all(isinstance(each, Embedding) for each in outcomes)
            done += count

    await asyncio.gather(*(caller() for _ in range(callers)))
    return done / (time.perf_counter() - began_s)


if __name__ == "__main__":
    folder, precision, device, seconds, side, by = sys.argv[1:]
    asyncio.run(main(folder, precision, device, float(seconds), int(side), by))
