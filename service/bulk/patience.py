"""How long a job waits for what does not answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

FIRST_PAUSE_S = 0.5
"""The pause after the first failure; each further one is twice as long."""
MAX_PAUSE_S = 20.0
"""The longest pause between two attempts with what is down: an embedder, a store, or an origin of pictures."""

T = TypeVar("T")


class BulkStopped(Exception):
    """The run cannot go on: an embedder, the store or a source fails for longer than it waits. Repeat the command."""


async def patiently(attempt: Callable[[], Awaitable[T]], passing: Any, patience_s: float) -> T:
    """Try something again for as long as it fails by what may pass, and return what it returns.

    Args:
        attempt: what to try.
        passing: types of errors after which to try again.
        patience_s: after so long the error is raised.
    """
    until_s, pause_s = time.monotonic() + patience_s, FIRST_PAUSE_S
    while True:
        try:
            return await attempt()
        except passing as error:
            wait_s = max(pause_s, getattr(error, "retry_after_s", 0.0))
            if time.monotonic() + wait_s > until_s:
                raise
        await asyncio.sleep(wait_s)
        pause_s = min(2 * pause_s, MAX_PAUSE_S)
