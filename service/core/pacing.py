"""Long work on the event loop, in short pieces."""

import asyncio
import time

PIECE_S = 0.01
"""So long may work go on before others have their turn."""


class Pace:
    """Lets others have the event loop from time to time; for loops over as many things as callers choose."""

    def __init__(self) -> None:
        self._until_s = time.perf_counter() + PIECE_S

    async def step(self) -> None:
        """Go on, or let others go first if it has been long enough."""
        if time.perf_counter() > self._until_s:
            await asyncio.sleep(0)
            self._until_s = time.perf_counter() + PIECE_S
