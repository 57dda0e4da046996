"""How much CPU time decoding a picture may take. Counts only in a decoder's own process; see decoder_process."""

import signal

SECONDS_PER_MEGAPIXEL = 0.2
"""Two to ten times what the slowest formats take on one core."""

_active = 0.0


def begin(cpu_s: float) -> None:
    """Let the operating system end this process after so many seconds of CPU time, unless `end` comes before."""
    global _active  # noqa: PLW0603 -- a process does one job at a time
    _active = cpu_s
    signal.setitimer(signal.ITIMER_PROF, cpu_s)


def allow(pixels: int) -> None:
    """Give as much more time as a picture of so many pixels may take, once its header is known to be within bounds.

    Does nothing where nothing bounds the time.
    """
    if _active:
        signal.setitimer(signal.ITIMER_PROF, _active + SECONDS_PER_MEGAPIXEL * pixels / 1e6)


def end() -> None:
    """Bound the time no longer."""
    global _active  # noqa: PLW0603 -- a process does one job at a time
    _active = 0.0
    signal.setitimer(signal.ITIMER_PROF, 0)
