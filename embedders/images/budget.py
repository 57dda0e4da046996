"""How much CPU time decoding a picture may take. Counts only in a decoder's own process; see decoder_process."""

import signal

PER_MEGAPIXEL_S, PER_MEGABYTE_S = 0.2, 0.2
"""CPU time for a million pixels and for a million bytes: several times what the slowest formats take on a slow core."""

_first_s = 0.0


def begin(cpu_s: float) -> None:
    """Let the operating system end this process after so many seconds of CPU time, unless `end` comes before."""
    global _first_s  # noqa: PLW0603 -- a process does one job at a time
    _first_s = cpu_s
    signal.setitimer(signal.ITIMER_PROF, cpu_s)


def allow(pixels: int, content_bytes: int) -> None:
    """Give as much more time as such a picture may take, once its header is known to be within bounds.

    Only the first call of a job counts, and none where nothing bounds the time.
    """
    global _first_s  # noqa: PLW0603 -- a process does one job at a time
    if _first_s:
        more_s = PER_MEGAPIXEL_S * pixels / 1e6 + PER_MEGABYTE_S * content_bytes / 1e6
        signal.setitimer(signal.ITIMER_PROF, _first_s + more_s)
        _first_s = 0.0


def end() -> None:
    """Bound the time no longer."""
    global _first_s  # noqa: PLW0603 -- a process does one job at a time
    _first_s = 0.0
    signal.setitimer(signal.ITIMER_PROF, 0)
