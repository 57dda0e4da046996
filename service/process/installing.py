"""Installing a program once, however many processes want it at the same time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def installing_alone(target: Path, name: str, report: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock that the kernel lets go of with this process, however that ends.

    Args:
        target: where the program will be, in a folder that is there; the lock is beside it.
        name: of the program, for messages.
        report: takes lines on who waits, and why there may be no lock.

    Raises:
        OSError: the folder cannot be written.
    """
    import fcntl  # noqa: PLC0415 -- not on Windows

    with target.with_name(f"{target.name}.lock").open("wb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"another process installs {name}; waiting for it")
            fcntl.flock(held, fcntl.LOCK_EX)
        except OSError as error:
            # Some network file systems have no locks.
            report(f"the folder {target.parent} cannot be locked ({error.strerror}): install {name} once at a time")
        yield
