"""Child processes: what they get to know of this one, and how they ended."""

import os
import signal
import sys


def environment() -> dict[str, str]:
    """Return the environment for a child that imports this one's modules and does not need its keys and settings."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("VECGATE_")}
    return known | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def how_it_ended(code: int) -> str:
    """Say in words how a process ended, given its exit code as subprocess tells it: negative for a signal."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
