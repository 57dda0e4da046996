"""UMAP in a child process.

Its compiler takes hundreds of megabytes and some seconds, and nothing stops it half-way but the end of the process.
"""

import asyncio
import contextlib
import json
import sys
from importlib.util import find_spec

import numpy as np

from embedders.children import environment, how_it_ended
from embedders.contract import Vector
from service.errors import PackageMissing

UMAP_TIMEOUT_S = 120.0
"""Seconds for one map, with the start of the process."""

PIECE_BYTES = 256 * 1024
"""Bytes that are handed over at a time, so that the event loop is free in between."""

MODULE = "service.core.projecting.umap_process"


def check_umap() -> None:
    """Check that UMAP can run here.

    Raises:
        PackageMissing: it is not installed.
    """
    if find_spec("umap") is None:
        raise PackageMissing("UMAP", "umap-learn", "map")


async def neighbour_map(vectors: Vector) -> Vector:
    """Return points that keep neighbours together.

    Args:
        vectors: float32, shape (vectors, dimension); neighbours are near by Euclidean distance.

    Returns:
        float32, shape (vectors, 2), with a mean of zero.

    Raises:
        TimeoutError: it took too long.
        RuntimeError: the process failed, for example because it had not enough memory.
    """
    about = json.dumps({"shape": vectors.shape, "limit_s": UMAP_TIMEOUT_S})
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        MODULE,
        about,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment(),
    )
    try:
        async with asyncio.timeout(UMAP_TIMEOUT_S):
            assert child.stdin is not None
            assert child.stdout is not None
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                content = np.ascontiguousarray(vectors, "<f4").data.cast("B")
                for start in range(0, len(content), PIECE_BYTES):
                    child.stdin.write(content[start : start + PIECE_BYTES])
                    await child.stdin.drain()
            child.stdin.close()
            answer = await child.stdout.read()
            code = await child.wait()
    finally:
        if child.returncode is None:
            child.kill()
            await asyncio.shield(child.wait())
    if code or len(answer) != 8 * len(vectors):
        raise RuntimeError(f"the process for UMAP {how_it_ended(code)}")
    points = np.frombuffer(answer, "<f4").reshape(-1, 2)
    centred: Vector = points - points.mean(axis=0)
    return centred
