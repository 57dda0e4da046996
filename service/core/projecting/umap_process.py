"""The process that runs UMAP once: vectors come on standard input, points go to standard output.

It ends by itself when its time is over, also if nobody is left who could end it.
"""

import json
import resource
import signal
import sys

import numpy as np

from embedders.contract import Vector

NEIGHBOURS = 15
"""How many of an object's nearest ones are kept together: UMAP's own default, between detail and the whole."""

MAX_MEMORY_BYTES = 4 * 1024**3
"""Bytes that the process may take, with its compiler's; a map of 5,000 vectors of 4,096 values takes about a third."""


def project(vectors: Vector) -> Vector:
    """Return points for vectors: float32, shape (vectors, 2)."""
    from umap import UMAP  # noqa: PLC0415 -- an extra, and slow to import

    # Its spectral beginning needs more vectors than axes and neighbours.
    few = len(vectors) <= NEIGHBOURS
    # With a seed a map looks the same the next time, and one thread is used.
    reducer = UMAP(
        n_neighbors=min(NEIGHBOURS, len(vectors) - 1), init="random" if few else "spectral", random_state=0, n_jobs=1
    )
    return np.asarray(reducer.fit_transform(vectors), np.float32)


def main() -> None:
    """Read, project and write."""
    about = json.loads(sys.argv[1])
    signal.alarm(round(about["limit_s"]))
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    vectors = np.frombuffer(sys.stdin.buffer.read(), "<f4").reshape(about["shape"])
    sys.stdout.buffer.write(np.ascontiguousarray(project(vectors), "<f4").tobytes())


if __name__ == "__main__":
    main()
