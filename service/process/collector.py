"""When Python's garbage collector runs: not while modules load, and never over what lives as long as the process."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Keep the collector from running: what modules load stays, and looking through it is a tenth of loading it."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def keep() -> None:
    """Exempt all present objects, such as torch and the stubs; `release` ends that."""
    gc.collect()
    gc.freeze()


def release() -> None:
    """Undo `keep`. Without this, libraries complain at exit about objects that were never collected."""
    gc.unfreeze()
