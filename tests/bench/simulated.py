"""For pipelines of bulk jobs: simulated GPUs, which sleep, and a first stage that waits for all embedders.

Loads little, as each process of a simulated GPU loads it.
"""

import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from service.bulk.reading import Reading, read_fragment
from service.bulk.rows import from_table, to_table

GPU_ROWS_S = 100.0
"""Rows a second of a simulated GPU."""


def tell_started(folder: Path) -> Path:
    """Tell that one more embedder is ready, and return a file of its own."""
    file = folder / secrets.token_hex()
    file.touch()
    return file


def worked_s(folder: Path) -> float:
    """Return the seconds from the first work of a simulated GPU to the last."""
    times = [float(each) for file in folder.iterdir() for each in file.read_text().split()]
    return max(times) - min(times)


def read_when_started(table: pa.Table, reading: Reading, *, folder: Path, embedders: int) -> Iterator[pa.Table]:
    """Read once so many embedders are ready: rows that were decoded before would make a short job look fast."""
    while sum(1 for _ in folder.iterdir()) < embedders:
        time.sleep(0.1)
    yield from read_fragment(table, reading)


class SleepingEmbed:
    """A GPU, as far as its time goes.

    Attributes:
        folder: of subclasses, where it tells that it is ready, and when it worked.
    """

    folder: ClassVar[Path]

    def __init__(self, *_: Any, **__: Any) -> None:
        self._vector = np.eye(1, 3, dtype=np.float32)[0]
        self._diary = tell_started(self.folder)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Give each object of a batch the same vector."""
        rows = from_table(table)
        live = [each for each in rows if each.object is not None]
        began_s = time.time()
        time.sleep(len(live) / GPU_ROWS_S)
        with self._diary.open("a") as diary:
            diary.write(f"{began_s} {time.time()}\n")
        for each in live:
            assert each.object is not None
            each.object, each.pictures = replace(each.object, vectors={"main": self._vector}), {}
        return to_table(rows)
